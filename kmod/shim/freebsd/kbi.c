/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * kbi.c: the layouts of the kernel's structures that this module has compiled
 * into it, directly or through the kernel's macros and inlines.  They are those
 * of FreeBSD 14 and 15; a header with others fails here and not in somebody's
 * kernel.  kpi.txt has the functions and variables.
 *
 * A member that the shim begins to use gets a line: `make check-ko` finds out.
 *
 * A kernel with INVARIANTS or WITNESS has the same layouts: options of a
 * kernel must not change what modules see, because these are built without
 * knowing them.  For the same reason the headers give a module (KLD_MODULE)
 * functions where the kernel itself has inlines: locks (LOCK_DEBUG), critical
 * sections and dirty pages (*_KBI).  So WITNESS sees what this module locks.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/bus.h>
#include <sys/callout.h>
#include <sys/conf.h>
#include <sys/domainset.h>
#include <sys/kernel.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/module.h>
#include <sys/mutex.h>
#include <sys/pcpu.h>
#include <sys/proc.h>
#include <sys/rwlock.h>
#include <sys/sx.h>
#include <sys/sysctl.h>
#include <sys/taskqueue.h>
#include <sys/ucred.h>
#include <sys/uio.h>

#include <vm/vm.h>
#include <vm/vm_param.h>
#include <vm/pmap.h>
#include <vm/vm_object.h>
#include <vm/vm_page.h>

#include <machine/pcb.h>
#include <machine/segments.h>

#if __FreeBSD_version < 1400000 || __FreeBSD_version >= 1600000
#error "nobody has looked at this FreeBSD release's structures: see kbi.c"
#elif __FreeBSD_version < 1500000
#define	BY_RELEASE(in14, in15)	(in14)
#else
#define	BY_RELEASE(in14, in15)	(in15)
#endif

#ifndef SMP
#error "only kernels with SMP have these structures"
#endif

#define	SIZE(type, in14, in15)						\
	CTASSERT(sizeof(type) == BY_RELEASE(in14, in15))
#define	OFFSET(type, member, in14, in15)				\
	CTASSERT(offsetof(type, member) == BY_RELEASE(in14, in15))

/* host_should_yield(): would miss signals or preemption, or see always some. */
OFFSET(struct thread, td_ast, 268, 268);
OFFSET(struct thread, td_owepreempt, 312, 312);
CTASSERT(TDA_SCHED == 7);
#if __FreeBSD_version < 1500000
/* DROP_GIANT(): locks are left alone after a panic. */
OFFSET(struct thread, td_stopsched, 314, 0);
#endif
/* host_free(): would free(9) in a critical section. */
OFFSET(struct thread, td_critnest, 1228, 1276);
/* host_world_begin() and _end(): what they change would be other memory. */
OFFSET(struct thread, td_pcb, 1104, 1152);
OFFSET(struct pcb, pcb_tssp, 224, 224);
/* Ownership and privilege would be decided by something else. */
OFFSET(struct thread, td_ucred, 384, 392);
OFFSET(struct ucred, cr_uid, 96, 100);
OFFSET(struct ucred, cr_ruid, 100, 104);
OFFSET(struct ucred, cr_prison, 136, 144);

/* curthread, curcpu and the task register's descriptor: reads through %gs. */
OFFSET(struct pcpu, pc_curthread, 0, 0);
OFFSET(struct pcpu, pc_cpuid, 60, 60);
OFFSET(struct pcpu, pc_tss, 496, 496);
SIZE(struct system_segment_descriptor, 16, 16);
#if __FreeBSD_version >= 1500000
/* PHYS_TO_DMAP(): each access to guest memory goes through it. */
OFFSET(struct kva_layout_s, dmap_low, 16, 16);
#endif

/* Which VM a file operation is for, and where it reads or writes. */
OFFSET(struct cdev, si_drv1, 168, 168);
OFFSET(struct uio, uio_offset, 16, 16);
OFFSET(struct uio, uio_resid, 24, 24);
OFFSET(struct uio, uio_rw, 36, 36);
/* What make_dev_s(9) reads of ours; it checks the sizes, or D_VERSION. */
SIZE(struct make_dev_args, 64, 64);
OFFSET(struct make_dev_args, mda_flags, 8, 8);
OFFSET(struct make_dev_args, mda_devsw, 16, 16);
OFFSET(struct make_dev_args, mda_cr, 24, 24);
OFFSET(struct make_dev_args, mda_uid, 32, 32);
OFFSET(struct make_dev_args, mda_gid, 36, 36);
OFFSET(struct make_dev_args, mda_mode, 40, 40);
OFFSET(struct make_dev_args, mda_si_drv1, 48, 48);
SIZE(struct cdevsw, 184, 184);
OFFSET(struct cdevsw, d_open, 16, 16);
OFFSET(struct cdevsw, d_read, 40, 40);
OFFSET(struct cdevsw, d_write, 48, 48);
OFFSET(struct cdevsw, d_ioctl, 56, 56);
OFFSET(struct cdevsw, d_mmap_single, 112, 112);

/* VM_PAGE_TO_PHYS(): guests would get other pages than they own. */
OFFSET(struct vm_page, phys_addr, 48, 32);
/* VM_OBJECT_WLOCK() and the NUMA policy.  15.1 is smaller behind these. */
OFFSET(struct vm_object, lock, 0, 0);
OFFSET(struct vm_object, domain, 104, 88);
OFFSET(struct domainset_ref, dr_policy, 0, 0);
/* domainset_populate() fills one on our stack. */
SIZE(struct domainset, 40, 40);

/*
 * Locks are known to the kernel's functions by the address of their last word,
 * and lie in our memory: a larger one would overwrite what is behind it.
 */
SIZE(struct lock_object, 24, 24);
SIZE(struct mtx, 32, 32);
OFFSET(struct mtx, mtx_lock, 24, 24);
SIZE(struct rwlock, 32, 32);
OFFSET(struct rwlock, rw_lock, 24, 24);
SIZE(struct sx, 32, 32);
OFFSET(struct sx, sx_lock, 24, 24);

/* So do these, which the kernel fills or reads. */
SIZE(struct callout, 64, 64);
SIZE(struct task, 32, 32);
OFFSET(struct task, ta_func, 16, 16);
OFFSET(struct task, ta_context, 24, 24);
SIZE(struct sx_args, 24, 24);
SIZE(struct malloc_type, 112, 112);
OFFSET(struct malloc_type, ks_version, 8, 8);
OFFSET(struct malloc_type, ks_shortdesc, 16, 16);
SIZE(struct timespec, 16, 16);
OFFSET(struct timespec, tv_sec, 0, 0);
OFFSET(struct timespec, tv_nsec, 8, 8);
SIZE(struct bintime, 16, 16);
OFFSET(struct bintime, sec, 0, 0);
OFFSET(struct bintime, frac, 8, 8);

/* hw.vmm: sysctls made at compile time, and the requests to them. */
SIZE(struct sysctl_ctx_list, 16, 16);
SIZE(struct sysctl_oid, 112, 112);
OFFSET(struct sysctl_oid, oid_children, 0, 0);
OFFSET(struct sysctl_oid, oid_parent, 8, 8);
OFFSET(struct sysctl_oid, oid_kind, 44, 44);
OFFSET(struct sysctl_oid, oid_arg1, 48, 48);
OFFSET(struct sysctl_oid, oid_arg2, 56, 56);
OFFSET(struct sysctl_oid, oid_handler, 72, 72);
OFFSET(struct sysctl_req, oldptr, 16, 16);
OFFSET(struct sysctl_req, oldlen, 24, 24);
OFFSET(struct sysctl_req, oldfunc, 40, 40);
OFFSET(struct sysctl_req, newptr, 48, 48);
OFFSET(struct sysctl_req, newlen, 56, 56);
OFFSET(struct sysctl_req, newfunc, 72, 72);

/* What kldload finds in the linker sets. */
SIZE(struct sysinit, 32, 32);
OFFSET(struct sysinit, func, 16, 16);
SIZE(struct moduledata, 24, 24);
SIZE(struct mod_metadata, 24, 24);
SIZE(struct mod_depend, 12, 12);
SIZE(struct mod_version, 4, 4);
