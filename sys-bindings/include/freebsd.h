/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * freebsd.h: what bindgen reads of FreeBSD: the ioctl ABI of vmm as a program
 * sees it (no _KERNEL).  The headers are the FreeBSD host's own or the wheel's;
 * see vmm_headers.
 *
 * Two parts of the ABI are in no header of /usr/include, so their layout is
 * stated here and checked by tests/layout.rs: the requests of /dev/vmmctl, and
 * how FreeBSD 14 laid out the requests that 15 changed.
 */
#ifndef _VMM_SYS_FREEBSD_H_
#define	_VMM_SYS_FREEBSD_H_

#include <sys/param.h>
#include <sys/domainset.h>
#include <sys/ioccom.h>

#include <machine/vmm.h>
#include <machine/vmm_dev.h>

/* /dev/vmmctl, FreeBSD 15; the header of a later FreeBSD may have it. */
#ifndef VMMCTL_VM_CREATE
struct vmmctl_vm_create {
	char	name[VM_MAX_NAMELEN + 1];
	int	reserved[16];		/* zero */
};
struct vmmctl_vm_destroy {
	char	name[VM_MAX_NAMELEN + 1];
	int	reserved[16];		/* zero */
};
#define	VMMCTL_VM_CREATE	_IOWR('V', 0, struct vmmctl_vm_create)
#define	VMMCTL_VM_DESTROY	_IOWR('V', 1, struct vmmctl_vm_destroy)
#endif

/* FreeBSD 14's memory segments: no NUMA policy yet. */
struct vm_memseg_14 {
	int	segid;
	size_t	len;
	char	name[VM_MAX_SUFFIXLEN + 1];
};
#define	VM_ALLOC_MEMSEG_14	_IOW('v', IOCNUM_ALLOC_MEMSEG, struct vm_memseg_14)
#define	VM_GET_MEMSEG_14	_IOWR('v', IOCNUM_GET_MEMSEG, struct vm_memseg_14)

#endif /* !_VMM_SYS_FREEBSD_H_ */
