// SPDX-License-Identifier: BSD-2-Clause
/*
 * module.c: loading and unloading, and the module's one parameter, which holds
 * what are loader tunables on FreeBSD: insmod vmm_rs.ko tunables=maxcpu=4,x=1
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

#include "shim.h"

static char *tunables = "";
module_param(tunables, charp, 0444);
MODULE_PARM_DESC(tunables, "settings below hw.vmm: name=number[,name=number...]");

static int __init shim_init(void)
{
	int error;

	error = shim_cdev_init();
	if (error)
		goto fail;
	error = shim_core_load();
	if (error)
		goto fail_cdev;
	error = shim_sysctl_init();
	if (error)
		goto fail_load;
	return 0;

fail_load:
	shim_core_unload();
fail_cdev:
	shim_cdev_exit();
fail:
	shim_mem_drain();
	return error;
}

/* Nodes of VMs hold the module, so there is no VM here (see cdev.c). */
static void __exit shim_exit(void)
{
	shim_sysctl_exit();
	shim_core_unload();
	shim_cdev_exit();
	shim_mem_drain();
}

int64_t host_tunable(const char *name, int64_t dflt)
{
	const size_t len = strlen(name);
	const char *at = tunables;
	char number[24];
	s64 value;

	while (at && *at) {
		if (!strncmp(at, name, len) && at[len] == '=') {
			at += len + 1;
			strscpy(number, at, min(sizeof(number),
						strcspn(at, ",") + 1));
			if (!kstrtos64(number, 0, &value))
				return value;
			pr_warn("vmm_rs: tunable %s: %s is not a number\n",
				name, number);
			return dflt;
		}
		at = strchr(at, ',');
		if (at)
			at++;
	}
	return dflt;
}

module_init(shim_init);
module_exit(shim_exit);
MODULE_DESCRIPTION("bhyve-compatible virtual machine monitor");
MODULE_LICENSE("Dual BSD/GPL");
