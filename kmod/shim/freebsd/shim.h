/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * shim.h: what the files of the FreeBSD shim need of each other.  What the
 * core needs of them is in ../host.h.
 */
#ifndef _VMM_RS_FREEBSD_SHIM_H_
#define	_VMM_RS_FREEBSD_SHIM_H_

#include <sys/malloc.h>

struct vm_object;
struct host_memobj;

MALLOC_DECLARE(M_VMM_RS);

/* mem.c: frees what host_free() has put off. */
void	shim_mem_drain(void);

/* cpu.c: the interrupt vector behind host_kick_cpu(). */
void	shim_cpu_init(void);
void	shim_cpu_fini(void);

/* cpu.c: between the two the core is told when CPUs sleep and wake. */
void	shim_sleep_start(void);
void	shim_sleep_stop(void);

/* user.c: the jail parameter allow.vmm. */
void	shim_priv_init(void);

/* sysctl.c: hw.vmm answers between the two.  sysctl_stop() waits for requests
 * that are running. */
void	shim_sysctl_start(void);
void	shim_sysctl_stop(void);

/* memobj.c: the object behind a memobj, referenced once more. */
struct vm_object *shim_memobj_reference(struct host_memobj *obj);

#endif /* !_VMM_RS_FREEBSD_SHIM_H_ */
