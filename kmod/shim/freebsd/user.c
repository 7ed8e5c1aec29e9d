/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * user.c: the calling process: its memory, its credential, and whether its
 * jail may use vmm (the jail parameter allow.vmm).
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/jail.h>
#include <sys/limits.h>
#include <sys/proc.h>
#include <sys/ucred.h>
#include <sys/uio.h>

#include "../host.h"
#include "shim.h"

static unsigned int pr_allow_vmm;

void
shim_priv_init(void)
{
	/* The kernel has no way to take it back; a second call finds it. */
	pr_allow_vmm = prison_add_allow(NULL, "vmm", NULL,
	    "Allow use of vmm in a jail");
}

int
host_priv_vmm(void)
{
	struct ucred *cred;

	cred = curthread->td_ucred;
	if (jailed(cred) && !prison_allow(cred, pr_allow_vmm))
		return (EPERM);
	return (0);
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
