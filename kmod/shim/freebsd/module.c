/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * module.c: loading and unloading.  The module is called vmm, version 1, as
 * the stock one is: tools find it by that name, and whichever of the two comes
 * second is refused by the linker with EEXIST.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/errno.h>
#include <sys/kernel.h>
#include <sys/module.h>

#include "../host.h"
#include "shim.h"

/* The core's errors are FreeBSD's, so nothing is translated anywhere here. */
CTASSERT(HOST_EPERM == EPERM && HOST_ENOENT == ENOENT && HOST_EINTR == EINTR);
CTASSERT(HOST_EIO == EIO && HOST_ENXIO == ENXIO && HOST_E2BIG == E2BIG);
CTASSERT(HOST_EDEADLK == EDEADLK && HOST_ENOMEM == ENOMEM);
CTASSERT(HOST_EACCES == EACCES && HOST_EFAULT == EFAULT);
CTASSERT(HOST_EBUSY == EBUSY && HOST_EEXIST == EEXIST);
CTASSERT(HOST_ENODEV == ENODEV && HOST_EINVAL == EINVAL);
CTASSERT(HOST_ENOTTY == ENOTTY && HOST_ENOSPC == ENOSPC);
CTASSERT(HOST_ERANGE == ERANGE && HOST_EAGAIN == EAGAIN);
CTASSERT(HOST_EALREADY == EALREADY && HOST_EOPNOTSUPP == EOPNOTSUPP);
CTASSERT(HOST_ETIMEDOUT == ETIMEDOUT && HOST_ENAMETOOLONG == ENAMETOOLONG);

/* A MOD_LOAD that fails is followed by a MOD_UNLOAD. */
static bool loaded;

static int
shim_load(void)
{
	int error;

	shim_cpu_init();
	shim_priv_init();
	error = vmm_rs_load();
	if (error != 0) {
		shim_cpu_fini();
		shim_mem_drain();
		return (error);
	}
	shim_sleep_start();
	shim_sysctl_start();
	loaded = true;
	return (0);
}

static int
shim_unload(void)
{
	int error;

	if (!loaded)
		return (0);
	shim_sysctl_stop();
	error = vmm_rs_unload();
	if (error != 0) {
		shim_sysctl_start();
		return (error);
	}
	loaded = false;
	shim_sleep_stop();
	shim_cpu_fini();
	shim_mem_drain();
	return (0);
}

static int
shim_modevent(module_t mod __unused, int what, void *arg __unused)
{
	switch (what) {
	case MOD_LOAD:
		return (shim_load());
	case MOD_UNLOAD:
		return (shim_unload());
	case MOD_QUIESCE:
	case MOD_SHUTDOWN:
		return (0);
	default:
		return (EOPNOTSUPP);
	}
}

static moduledata_t shim_moduledata = {
	.name = "vmm",
	.evhand = shim_modevent,
};

/* Loading runs code on every CPU and makes a device node: after both exist. */
DECLARE_MODULE(vmm, shim_moduledata, MAX(SI_SUB_SMP, SI_SUB_DEVFS) + 1,
    SI_ORDER_ANY);
MODULE_VERSION(vmm, 1);
