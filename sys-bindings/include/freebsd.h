/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * freebsd.h: what bindgen reads of FreeBSD: the ioctl ABI of vmm as a program
 * sees it (no _KERNEL).  The headers are the FreeBSD host's own or the wheel's;
 * see vmm_headers.
 *
 * Two parts of the ABI are in no header of /usr/include, so their layout is
 * stated here and checked by tests/layout.rs: the requests of /dev/vmmctl, and
 * how FreeBSD 12, 13 and 14 laid out the requests that were changed since. A
 * GENERIC kernel's vmm.ko still takes these (COMPAT_FREEBSD12 and so on); they
 * carry the number of the last release that had them.
 */
#ifndef _VMM_SYS_FREEBSD_H_
#define	_VMM_SYS_FREEBSD_H_

#include <sys/param.h>
#include <sys/domainset.h>
#include <sys/ioccom.h>

#include <machine/vmm.h>
#include <machine/vmm_dev.h>

/*
 * /dev/vmmctl as FreeBSD 16 has it; the header of a later FreeBSD may have it.
 * FreeBSD 15 has another reserved int in the place of flags, so that any flag
 * is EINVAL there.
 */
#ifndef VMMCTL_CREATE_DESTROY_ON_CLOSE
/* The VM goes when the descriptor that created it is closed. */
#define	VMMCTL_CREATE_DESTROY_ON_CLOSE	0x1
struct vmmctl_vm_create {
	char		name[VM_MAX_NAMELEN + 1];
	uint32_t	flags;			/* VMMCTL_CREATE_* */
	int		reserved[15];		/* zero */
};
struct vmmctl_vm_destroy {
	char	name[VM_MAX_NAMELEN + 1];
	int	reserved[16];		/* zero */
};
#define	VMMCTL_VM_CREATE	_IOWR('V', 0, struct vmmctl_vm_create)
#define	VMMCTL_VM_DESTROY	_IOWR('V', 1, struct vmmctl_vm_destroy)
#endif

/* Memory segments: without a NUMA policy, and numbered otherwise. */
struct vm_memseg_12 {
	int	segid;
	size_t	len;
	char	name[64];
};
#define	VM_ALLOC_MEMSEG_12	_IOW('v', IOCNUM_ALLOC_MEMSEG, struct vm_memseg_12)
#define	VM_GET_MEMSEG_12	_IOWR('v', IOCNUM_GET_MEMSEG, struct vm_memseg_12)

struct vm_memseg_14 {
	int	segid;
	size_t	len;
	char	name[VM_MAX_SUFFIXLEN + 1];
};
#define	VM_ALLOC_MEMSEG_14	_IOW('v', IOCNUM_ALLOC_MEMSEG, struct vm_memseg_14)
#define	VM_GET_MEMSEG_14	_IOWR('v', IOCNUM_GET_MEMSEG, struct vm_memseg_14)

/* VM_RUN: the exit, and an IPI's destinations, are in the structure itself. */
struct vm_exit_13 {
	uint32_t	exitcode;
	int32_t		inst_length;
	uint64_t	rip;
	uint64_t	u[15];
};
struct vm_exit_ipi_13 {			/* in u */
	uint32_t	mode;
	uint8_t		vector;
	uint64_t	dmask[4];
};
struct vm_run_13 {
	int			cpuid;
	struct vm_exit_13	vm_exit;
};
#define	VM_RUN_13	_IOWR('v', IOCNUM_RUN, struct vm_run_13)

/* Statistics: the first MAX_VM_STATS of them. */
struct vm_stats_13 {
	int		cpuid;
	int		num_entries;
	struct timeval	tv;
	uint64_t	statbuf[MAX_VM_STATS];
};
#define	VM_STATS_13	_IOWR('v', IOCNUM_VM_STATS, struct vm_stats_13)

#endif /* !_VMM_SYS_FREEBSD_H_ */
