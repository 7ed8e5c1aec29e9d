// SPDX-License-Identifier: BSD-2-Clause
/*
 * sysctl.c: hw.vmm, under /proc/sys/hw/vmm. create and destroy take a VM's
 * name; the other values are those that the core enumerates.
 */
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysctl.h>

#include "shim.h"

#define ROOT	"hw/vmm"

/* One value: a table of its own, for its own directory. */
struct info {
	struct list_head link;
	u32 index;
	char path[64];
	struct ctl_table table[2];	/* the last one is the end mark */
	struct ctl_table_header *header;
};

static struct ctl_table_header *requests_header;
static LIST_HEAD(infos);

static int request(int (*fn)(const char *), int write, const char *text,
		   size_t *lenp, loff_t *ppos)
{
	size_t len = *lenp;
	char name[NAME_MAX + 1];

	if (!write) {
		*lenp = 0;
		return 0;
	}
	if (len && text[len - 1] == '\n')
		len--;
	if (*ppos || len >= sizeof(name))
		return -EINVAL;
	memcpy(name, text, len);
	name[len] = '\0';
	*ppos += *lenp;
	return shim_errno(host_priv_vmm() ?: fn(name));
}

static int create_request(struct ctl_table *table, int write, void *buffer,
			  size_t *lenp, loff_t *ppos)
{
	return request(vmm_rs_create, write, buffer, lenp, ppos);
}

static int destroy_request(struct ctl_table *table, int write, void *buffer,
			   size_t *lenp, loff_t *ppos)
{
	return request(vmm_rs_destroy, write, buffer, lenp, ppos);
}

static struct ctl_table requests[] = {
	{
		.procname = "create",
		.mode = 0600,
		.proc_handler = create_request,
	},
	{
		.procname = "destroy",
		.mode = 0600,
		.proc_handler = destroy_request,
	},
	{ }
};

/* The kernel has put a terminator behind what was written. */
static int info_write(const struct info *info, char *text, size_t *lenp,
		      loff_t *ppos)
{
	u64 value;
	int error;

	if (*ppos)
		return -EINVAL;
	error = kstrtou64(strim(text), 0, &value);
	if (error)
		return error;
	*ppos += *lenp;
	return shim_errno(vmm_rs_info_set(info->index, value));
}

static int info_request(struct ctl_table *table, int write, void *buffer,
			size_t *lenp, loff_t *ppos)
{
	const struct info *info = table->extra1;
	struct vmm_rs_info value;
	char text[24];
	size_t len;

	if (write)
		return info_write(info, buffer, lenp, ppos);
	if (!vmm_rs_info(info->index, &value))
		return -ENOENT;
	if (*ppos) {
		*lenp = 0;
		return 0;
	}
	len = scnprintf(text, sizeof(text),
			value.type == VMM_RS_INT ? "%lld\n" : "%llu\n",
			value.value);
	*lenp = min(len, *lenp);
	memcpy(buffer, text, *lenp);
	*ppos += *lenp;
	return 0;
}

/* hw.vmm.a.b.c is the file c in hw/vmm/a/b. */
static int info_add(u32 index, const struct vmm_rs_info *value)
{
	struct info *info;
	char *file;

	info = kzalloc(sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	info->index = index;
	if (snprintf(info->path, sizeof(info->path), ROOT "/%s", value->name) >=
	    sizeof(info->path)) {
		kfree(info);
		return -ENAMETOOLONG;
	}
	strreplace(info->path, '.', '/');
	file = strrchr(info->path, '/');
	*file++ = '\0';
	info->table[0].procname = file;
	info->table[0].mode = value->writable ? 0644 : 0444;
	info->table[0].proc_handler = info_request;
	info->table[0].extra1 = info;
	info->header = register_sysctl(info->path, info->table);
	if (!info->header) {
		kfree(info);
		return -ENOMEM;
	}
	list_add_tail(&info->link, &infos);
	return 0;
}

int shim_sysctl_init(void)
{
	struct vmm_rs_info value;
	int error;
	u32 i;

	requests_header = register_sysctl(ROOT, requests);
	if (!requests_header)
		return -ENOMEM;
	for (i = 0; vmm_rs_info(i, &value); i++) {
		error = info_add(i, &value);
		if (error) {
			shim_sysctl_exit();
			return error;
		}
	}
	return 0;
}

void shim_sysctl_exit(void)
{
	struct info *info, *next;

	list_for_each_entry_safe_reverse(info, next, &infos, link) {
		unregister_sysctl_table(info->header);
		list_del(&info->link);
		kfree(info);
	}
	unregister_sysctl_table(requests_header);
}
