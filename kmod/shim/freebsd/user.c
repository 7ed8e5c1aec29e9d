/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * user.c: the calling process: its memory, its credential, and whether its
 * jail may use vmm and pass devices through (the jail parameters allow.vmm and
 * allow.vmm_ppt).
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/jail.h>
#include <sys/limits.h>
#include <sys/priv.h>
#include <sys/proc.h>
#include <sys/ucred.h>
#include <sys/uio.h>

#include "../host.h"
#include "shim.h"

/*
 * The privilege for the pass-through of devices came with 15.1; earlier kernels
 * panic at a number that they don't know.
 */
#ifndef PRIV_VMM_PPTDEV
#define	PRIV_VMM_PPTDEV		710
#endif
#define	HAS_PRIV_VMM_PPTDEV	(osreldate >= 1501000)

static unsigned int pr_allow_vmm, pr_allow_vmm_ppt;

void
shim_priv_init(void)
{
	/* The kernel has no way to take them back; a second call finds them. */
	pr_allow_vmm = prison_add_allow(NULL, "vmm", NULL,
	    "Allow use of vmm in a jail");
	pr_allow_vmm_ppt = prison_add_allow(NULL, "vmm_ppt", NULL,
	    "Allow use of vmm with ppt devices in a jail");
}

static int
check_jail(unsigned int allow)
{
	struct ucred *cred;

	cred = curthread->td_ucred;
	if (jailed(cred) && !prison_allow(cred, allow))
		return (EPERM);
	return (0);
}

int
host_priv_vmm(void)
{
	return (check_jail(pr_allow_vmm));
}

int
host_priv_ppt(void)
{
	int error;

	error = check_jail(pr_allow_vmm_ppt);
	if (error == 0)
		error = priv_check(curthread, HAS_PRIV_VMM_PPTDEV ?
		    PRIV_VMM_PPTDEV : PRIV_DRIVER);
	return (error);
}

struct host_cred *
host_cred_hold_current(void)
{
	return ((struct host_cred *)crhold(curthread->td_ucred));
}

void
host_cred_release(struct host_cred *cred)
{
	crfree((struct ucred *)cred);
}

bool
host_cred_visible(const struct host_cred *cred)
{
	if (cred == NULL)
		return (true);
	return (cr_cansee(curthread->td_ucred,
	    __DECONST(struct ucred *, cred)) == 0);
}

/* The end of another user's VM is like that of its process; a jail's root has
 * the privilege for what is in the jail. */
int
host_cred_may_destroy(const struct host_cred *cred)
{
	const struct ucred *owner, *mine;

	owner = (const struct ucred *)cred;
	mine = curthread->td_ucred;
	if (mine->cr_uid == owner->cr_uid &&
	    mine->cr_prison == owner->cr_prison)
		return (0);
	return (priv_check(curthread, PRIV_SIGNAL_DIFFCRED));
}

uint32_t
host_cred_ruid(const struct host_cred *cred)
{
	return (((const struct ucred *)cred)->cr_ruid);
}

bool
host_cred_is_host_root(const struct host_cred *cred)
{
	return (host_cred_ruid(cred) == 0 &&
	    !jailed(__DECONST(struct ucred *, cred)));
}

int
host_copyin(uint64_t uaddr, void *kaddr, size_t len)
{
	return (copyin((const void *)uaddr, kaddr, len));
}

int
host_copyout(const void *kaddr, uint64_t uaddr, size_t len)
{
	return (copyout(kaddr, (void *)uaddr, len));
}

int
host_uiomove(struct host_uio *uio, void *kaddr, size_t len)
{
	if (len > INT_MAX)
		return (EINVAL);
	return (uiomove(kaddr, len, (struct uio *)uio));
}
