/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * host.h: everything the Rust core asks of the host kernel (host_*), and
 * everything the host kernel calls in the core (vmm_rs_*).  This file is the
 * only definition of that interface: bindgen reads it for Rust, the C compiler
 * for shim/freebsd and shim/linux.
 *
 * A shim holds no policy: no VT-x, no VM state, no device model.
 *
 * Contexts, as the comments below name them:
 *   thread    a thread of the host that may sleep
 *   critical  between host_critical_enter() and host_critical_exit(), or in a
 *             timer callback: no sleeping, no allocation, interrupts may come
 *   spin      between host_spin_enter() and host_spin_exit(), or in a function
 *             run by host_run_on_all_cpus(): interrupts are off
 *   any       each of these (never an NMI handler)
 * A function without a mark is for thread context with no spin lock held.
 *
 * Functions that can fail return 0 or one of enum host_error, which has
 * FreeBSD's numbers; the Linux shim translates at its system calls.
 */
#ifndef _VMM_RS_HOST_H_
#define	_VMM_RS_HOST_H_

#if defined(__linux__) && defined(__KERNEL__)
#include <linux/types.h>
#elif defined(_KERNEL)
#include <sys/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

/* FreeBSD's errno values (sys/errno.h); the shims assert or translate them. */
enum host_error {
	HOST_OK = 0,
	HOST_EPERM = 1,
	HOST_ENOENT = 2,
	HOST_EINTR = 4,
	HOST_EIO = 5,
	HOST_ENXIO = 6,
	HOST_E2BIG = 7,
	HOST_EDEADLK = 11,
	HOST_ENOMEM = 12,
	HOST_EACCES = 13,
	HOST_EFAULT = 14,
	HOST_EBUSY = 16,
	HOST_EEXIST = 17,
	HOST_ENODEV = 19,
	HOST_EINVAL = 22,
	HOST_ENOTTY = 25,
	HOST_ENOSPC = 28,
	HOST_ERANGE = 34,
	HOST_EAGAIN = 35,
	HOST_EALREADY = 37,
	HOST_EOPNOTSUPP = 45,
	HOST_ETIMEDOUT = 60,
	HOST_ENAMETOOLONG = 63
};

#define	HOST_PAGE_SIZE		4096
#define	HOST_LARGE_ORDER	9	/* 2 MiB = 4 KiB << 9 */

/* ---- Kernel memory ------------------------------------------------------ */

/* Zeroed memory of the kernel heap, aligned to align (a power of two up to a
 * page); NULL when there is none.  Sleeps while memory is short. */
void	*host_alloc(size_t size, size_t align);
/* Frees it; size and align as given to host_alloc().  critical is allowed. */
void	 host_free(void *p, size_t size, size_t align);

/* npages physically contiguous, zeroed, page-aligned pages, and the physical
 * address of the first in *hpa; NULL when there are none.  The answer is the
 * address that host_phys_to_virt() gives for *hpa. */
void	*host_pages_alloc(uint32_t npages, uint64_t *hpa);
void	 host_pages_free(void *va, uint32_t npages);

/* The kernel's address of a physical page that came from host_pages_alloc()
 * or host_memobj_page() and has not been freed since.  Context: any. */
void	*host_phys_to_virt(uint64_t hpa);

/* ---- Guest memory -------------------------------------------------------
 * A memobj is a run of zero-filled pages that belongs to one VM: userland
 * mmaps it through the character devices, the core maps its pages into the
 * EPT.  It lives until the last hold is released, a userland mapping counting
 * as one, so a destroyed VM's memory stays valid for whoever still maps it.
 *
 * Pages that the core asks for are wired: the guest uses them by tables that
 * the host's pager doesn't know.  Lest guests take all of the host's memory,
 * there is a limit: on FreeBSD such a page counts as one that userland has
 * wired, of which there may be vm.max_user_wired; on Linux all objects together
 * may have four fifths of memory (or the module's max_guest_pages). */
struct host_memobj;

struct host_numa {		/* where pages come from; see domainset(9) */
	int		 policy;	/* DOMAINSET_POLICY_*, 0 for the default */
	const uint8_t	*mask;		/* bit per domain, kernel memory */
	size_t		 mask_size;	/* bytes */
};

struct host_page {
	uint64_t	hpa;	/* of the 4 KiB page, or of the large page */
	uint32_t	order;	/* 0: 4 KiB; HOST_LARGE_ORDER: 2 MiB, aligned,
				   all of which belongs to the object */
	bool		fresh;	/* this call made it resident */
};

/* A new object of len bytes (a multiple of 4 KiB) with one hold. numa may be
 * NULL.  No page is allocated yet. */
int	host_memobj_create(uint64_t len, const struct host_numa *numa,
	    struct host_memobj **objp);
void	host_memobj_hold(struct host_memobj *obj);
/* May sleep only when it drops the last hold. */
void	host_memobj_release(struct host_memobj *obj);
/* Makes page number pindex resident and wired (it stays so until it is
 * unwired or the object dies) and describes it.  With want_large the host may
 * answer with the 2 MiB page around it if the object has all of it; it need
 * not.  HOST_ENOMEM at the limit. */
int	host_memobj_page(struct host_memobj *obj, uint64_t pindex,
	    bool want_large, struct host_page *out);
/* Whether the limit leaves room for so many pages more, now; they are not set
 * aside. */
bool	host_memobj_room(uint64_t npages);
/* Gives npages pages from pindex on back to the host's pager; they keep their
 * contents.  The core uses no address of theirs any more, and asks nothing
 * about the object meanwhile. */
void	host_memobj_unwire(struct host_memobj *obj, uint64_t pindex,
	    uint64_t npages);

/* ---- Time --------------------------------------------------------------- */

uint64_t host_uptime_ns(void);		/* monotonic; any */
uint64_t host_wallclock_ns(void);	/* since 1970, UTC; any */
uint64_t host_tsc_hz(void);		/* any */

/* One-shot timers.  fn runs in critical context on any CPU, at or after the
 * deadline (host_uptime_ns() scale), once per arming. */
struct host_timer;
struct host_timer *host_timer_create(void (*fn)(void *), void *arg);
void	host_timer_arm(struct host_timer *t, uint64_t deadline_ns); /* any */
/* After it returns fn will not start; it may still be running.  any */
void	host_timer_cancel(struct host_timer *t);
/* Cancels and waits until fn is not running. */
void	host_timer_destroy(struct host_timer *t);

/* ---- Sleep and wakeup --------------------------------------------------- */

struct host_waitq;
struct host_waitq *host_waitq_create(const char *name);	/* static string */
void	host_waitq_destroy(struct host_waitq *wq);
/* Sleeps until ready(arg) is true: checked before sleeping and after each
 * wake without losing a wake between check and sleep.  ready() runs with a
 * spin lock of the host held: it only reads memory.  timeout_ns 0 is none.
 * Returns 0, HOST_ETIMEDOUT, or (interruptible only) HOST_EINTR when the
 * thread has to go back to userland. */
int	host_waitq_wait(struct host_waitq *wq, bool (*ready)(void *), void *arg,
	    uint64_t timeout_ns, bool interruptible);
void	host_waitq_wake(struct host_waitq *wq);		/* all sleepers; any */

/* Sleepable shared/exclusive lock. */
struct host_sx;
struct host_sx *host_sx_create(const char *name);	/* static string */
void	host_sx_destroy(struct host_sx *sx);
void	host_sx_xlock(struct host_sx *sx);
void	host_sx_xunlock(struct host_sx *sx);
void	host_sx_slock(struct host_sx *sx);
void	host_sx_sunlock(struct host_sx *sx);

/* ---- CPUs --------------------------------------------------------------- */

uint32_t host_ncpus(void);		/* CPU ids are below it; any */
uint32_t host_curcpu(void);		/* stable in critical and spin only */
/* No preemption and no migration; nests. */
void	 host_critical_enter(void);
void	 host_critical_exit(void);
/* Interrupts off as well, for spin locks; nests; the cookie goes to exit. */
uint64_t host_spin_enter(void);		/* any */
void	 host_spin_exit(uint64_t cookie);
/* Runs fn(arg) on every CPU in spin context, returns when all are done. */
void	 host_run_on_all_cpus(void (*fn)(void *), void *arg);
/* Makes that CPU take an interrupt soon; a guest running there exits.  any */
void	 host_kick_cpu(uint32_t cpu);
/* CR4 = (CR4 | set) & ~clear, keeping the host's own copy right.  spin */
void	 host_cr4_change(uint64_t set, uint64_t clear);
/* The host was told to do without whatever the CPUs' flaws cost (Linux'
 * mitigations=off; FreeBSD has no such switch for all of them). */
bool	 host_mitigations_off(void);

/* True when the current thread should leave the run loop: a signal, an AST
 * or a reschedule is pending.  Context: any, interrupts may be off. */
bool	 host_should_yield(void);
/* Gives the CPU up if it is wanted.  Returns HOST_EINTR if the thread must go
 * back to userland before it goes on (signal, AST), else 0. */
int	 host_yield(void);
/* Lets the other threads that want this CPU have it first, though nothing is
 * pending: for a vcpu that waits for another one in a loop. */
void	 host_relinquish(void);

/* Brackets the use of this CPU for guests.  critical, on the same CPU.
 * begin: the thread's FPU state is saved and the FPU is the core's (CR0.TS
 * clear); the host notes that segment bases are to be reloaded on return to
 * userland.  end: the FPU is the host's again (its XCR0 and GDTR, IDTR, LDTR
 * having been restored by the core), and what a VM exit leaves behind in the
 * task register's limit is repaired. */
void	 host_world_begin(void);
void	 host_world_end(void);

/* ---- User memory -------------------------------------------------------- */

int	host_copyin(uint64_t uaddr, void *kaddr, size_t len);
int	host_copyout(const void *kaddr, uint64_t uaddr, size_t len);
/* The data of a read(2) or write(2); advances by len. */
struct host_uio;
int	host_uiomove(struct host_uio *uio, void *kaddr, size_t len);

/* ---- Logging ------------------------------------------------------------ */

enum host_log_level { HOST_LOG_INFO, HOST_LOG_WARN, HOST_LOG_ERR };
/* One line, without newline or terminator; printed behind "vmm_rs: ". any */
void	host_log(enum host_log_level level, const char *msg, size_t len);
/* Stops the host.  any */
void	host_panic(const char *msg, size_t len) __attribute__((__noreturn__));

/* ---- Character devices, privilege, tunables ----------------------------- */

/* Whoever created a VM: a user in a jail (on Linux, in a user namespace).  NULL
 * stands for the kernel itself. */
struct host_cred;
struct host_cred *host_cred_hold_current(void);
void	host_cred_release(struct host_cred *cred);
/* May the current thread see what cred owns? */
bool	host_cred_visible(const struct host_cred *cred);
/* 0 if the current thread, which sees what cred owns, may end it: as the same
 * user in the same jail, or with privilege; else HOST_EPERM. */
int	host_cred_may_destroy(const struct host_cred *cred);
/* The real user, by whom limits count. */
uint32_t host_cred_ruid(const struct host_cred *cred);
/* Really root, and in no jail. */
bool	host_cred_is_host_root(const struct host_cred *cred);

/* 0 if the current thread may use vmm at all (a jail needs allow.vmm), and
 * devices of the host's for a guest (a jail needs allow.vmm_ppt, and the user
 * privilege); else HOST_EPERM. */
int	host_priv_vmm(void);
int	host_priv_ppt(void);

enum host_cdev_kind {
	HOST_CDEV_CTL,		/* vmmctl: vmm_rs_ctl_ioctl */
	HOST_CDEV_VM,		/* vmm/NAME: vmm_rs_vm_*; holds the module */
	HOST_CDEV_MEM		/* vmm.io/NAME.SEG: vmm_rs_devmem_mmap */
};
struct host_cdev;
/* Makes /dev/<path>, mode 0600, owned by cred's effective user and visible in
 * its jail and those around it; without cred by root, and everywhere.  arg is
 * what the vmm_rs_* functions get; they may be called before this returns. */
int	host_cdev_create(const char *path, enum host_cdev_kind kind, void *arg,
	    const struct host_cred *cred, struct host_cdev **cdevp);
/* Removes the node; when it returns no operation on it is running, and later
 * ones on descriptors still open fail with ENXIO (ioctl(2) with ENOTTY on
 * FreeBSD, whose devfs revokes the node).  An operation that sleeps must have
 * been woken before: this waits for it. */
void	host_cdev_destroy(struct host_cdev *cdev);

/* A boot-time setting (kenv on FreeBSD, module parameter on Linux) by its
 * name under hw.vmm, or dflt.  */
int64_t	host_tunable(const char *name, int64_t dflt);

/* ---- What the shim calls in the core ------------------------------------
 * All in thread context unless marked.  Each returns 0 or an enum host_error value. */

/* Module load, once; undoes everything itself when it fails. */
int	vmm_rs_load(void);
/* Module unload; HOST_EBUSY, and nothing changed, while a VM exists. */
int	vmm_rs_unload(void);

/* For one CPU that stops for a while (the machine sleeps, or the host takes the
 * CPU offline) and comes back, called there between vmm_rs_load() and
 * vmm_rs_unload(); no thread is in the core on that CPU meanwhile.  When
 * vmm_rs_cpu_resume() fails the log says why, and no guest runs any more on
 * any CPU until the module has been loaded anew.  Context: spin. */
void	vmm_rs_cpu_suspend(void);
int	vmm_rs_cpu_resume(void);

/* hw.vmm.create and hw.vmm.destroy, written with a name. */
int	vmm_rs_create(const char *name);
int	vmm_rs_destroy(const char *name);

/* hw.vmm.*: number index of the values; false past the last.
 * The types are the stock module's: programs read them by their size. */
enum vmm_rs_info_type { VMM_RS_INT, VMM_RS_UINT, VMM_RS_ULONG };
struct vmm_rs_info {
	const char	*name;		/* below hw.vmm, e.g. "vmx.initialized" */
	const char	*descr;
	enum vmm_rs_info_type type;
	uint64_t	 value;		/* of an INT its sign-extension */
	bool		 writable;	/* by the host's root; only a UINT is */
};
bool	vmm_rs_info(uint32_t index, struct vmm_rs_info *out);
int	vmm_rs_info_set(uint32_t index, uint64_t value);

/* ioctl(2): data is a kernel buffer of IOCPARM_LEN(cmd) bytes, copied in by
 * the shim for _IOW and copied out for _IOR when the answer is 0; for _IO it
 * holds nothing, for _IOWINT the int. */
struct host_file;	/* what was opened once, by its address; never read */
int	vmm_rs_ctl_ioctl(struct host_file *file, uint64_t cmd, void *data);
int	vmm_rs_vm_ioctl(void *arg, uint64_t cmd, void *data);
/* The last descriptor of an open vmmctl was closed, in whichever process, or
 * the node is being destroyed: no ioctl on the file runs, and none will.  Ends
 * the VMs that go with it, and waits for that. */
void	vmm_rs_ctl_close(struct host_file *file);
/* read(2)/write(2) of guest memory at gpa; stops early only with an error. */
int	vmm_rs_vm_rw(void *arg, struct host_uio *uio, uint64_t gpa, uint64_t len,
	    bool write);
/* mmap(2) of len bytes at offset; prot has PROT_READ 1, WRITE 2, EXEC 4.  On
 * success *objp has a hold for the mapping, which starts at *objoff in it. */
int	vmm_rs_vm_mmap(void *arg, uint64_t offset, uint64_t len, int prot,
	    struct host_memobj **objp, uint64_t *objoff);
int	vmm_rs_devmem_mmap(void *arg, uint64_t offset, uint64_t len, int prot,
	    struct host_memobj **objp, uint64_t *objoff);

#endif /* !_VMM_RS_HOST_H_ */
