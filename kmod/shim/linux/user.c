// SPDX-License-Identifier: BSD-2-Clause
/*
 * user.c: the calling process: its memory and its credential. A user
 * namespace stands for what is a jail on FreeBSD.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/user_namespace.h>

#include "shim.h"

int host_priv_vmm(void)
{
	return current_user_ns() == &init_user_ns ? 0 : HOST_EPERM;
}

int host_priv_ppt(void)
{
	return capable(CAP_SYS_RAWIO) ? 0 : HOST_EPERM;
}

struct host_cred *host_cred_hold_current(void)
{
	return (struct host_cred *)get_current_cred();
}

void host_cred_release(struct host_cred *cred)
{
	put_cred((const struct cred *)cred);
}

bool host_cred_visible(const struct host_cred *cred)
{
	const struct cred *owner = (const struct cred *)cred;

	return !owner || owner->user_ns == current_user_ns();
}

int host_cred_may_destroy(const struct host_cred *cred)
{
	const struct cred *owner = (const struct cred *)cred;

	if (uid_eq(owner->euid, current_euid()) &&
	    owner->user_ns == current_user_ns())
		return 0;
	return capable(CAP_SYS_ADMIN) ? 0 : HOST_EPERM;
}

uint32_t host_cred_ruid(const struct host_cred *cred)
{
	return __kuid_val(((const struct cred *)cred)->uid);
}

bool host_cred_is_host_root(const struct host_cred *cred)
{
	return uid_eq(((const struct cred *)cred)->uid, GLOBAL_ROOT_UID);
}

int host_copyin(uint64_t uaddr, void *kaddr, size_t len)
{
	if (copy_from_user(kaddr, (const void __user *)uaddr, len))
		return HOST_EFAULT;
	return 0;
}

int host_copyout(const void *kaddr, uint64_t uaddr, size_t len)
{
	if (copy_to_user((void __user *)uaddr, kaddr, len))
		return HOST_EFAULT;
	return 0;
}

int host_uiomove(struct host_uio *uio, void *kaddr, size_t len)
{
	size_t done;

	if (uio->write)
		done = copy_from_iter(kaddr, len, uio->iter);
	else
		done = copy_to_iter(kaddr, len, uio->iter);
	return done == len ? 0 : HOST_EFAULT;
}
