/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shim.h: what the files of the Linux shim need of each other. What the core
 * needs of them is in ../host.h.
 */
#ifndef _VMM_RS_LINUX_SHIM_H_
#define _VMM_RS_LINUX_SHIM_H_

#include <linux/mm_types.h>
#include <linux/types.h>
#include <linux/uio.h>

#include "../host.h"

/* errno.c: the core's error (FreeBSD's numbers) as a negative Linux errno. */
int shim_errno(int host_error);
/* A negative Linux errno as the core's error; HOST_EIO for all it lacks. */
int shim_host_error(int error);

/* sleep.c: vmm_rs_load() and vmm_rs_unload(), with what belongs around them. */
int shim_core_load(void);
void shim_core_unload(void);

/* mem.c: frees what host_free() has put off. */
void shim_mem_drain(void);

/* cdev.c: the device class and the numbers of the nodes. */
int shim_cdev_init(void);
void shim_cdev_exit(void);

/* sysctl.c: hw.vmm, under /proc/sys. exit waits for running requests. */
int shim_sysctl_init(void);
void shim_sysctl_exit(void);

/* memobj.c: the page at pindex with a reference, or NULL. */
struct page *shim_memobj_get_page(struct host_memobj *obj, u64 pindex);

/* The data of a read(2) or write(2). */
struct host_uio {
	struct iov_iter *iter;
	bool write;
};

#endif /* _VMM_RS_LINUX_SHIM_H_ */
