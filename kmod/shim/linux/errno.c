// SPDX-License-Identifier: BSD-2-Clause
/*
 * errno.c: FreeBSD's error numbers, which the core speaks, and Linux's.
 */
#include <linux/errno.h>
#include <linux/kernel.h>

#include "shim.h"

static const struct {
	int host;
	int native;
} errors[] = {
	{ HOST_EPERM, EPERM },
	{ HOST_ENOENT, ENOENT },
	{ HOST_EINTR, EINTR },
	{ HOST_EIO, EIO },
	{ HOST_ENXIO, ENXIO },
	{ HOST_E2BIG, E2BIG },
	{ HOST_EDEADLK, EDEADLK },
	{ HOST_ENOMEM, ENOMEM },
	{ HOST_EACCES, EACCES },
	{ HOST_EFAULT, EFAULT },
	{ HOST_EBUSY, EBUSY },
	{ HOST_EEXIST, EEXIST },
	{ HOST_ENODEV, ENODEV },
	{ HOST_EINVAL, EINVAL },
	{ HOST_ENOTTY, ENOTTY },
	{ HOST_ENOSPC, ENOSPC },
	{ HOST_ERANGE, ERANGE },
	{ HOST_EAGAIN, EAGAIN },
	{ HOST_EALREADY, EALREADY },
	{ HOST_EOPNOTSUPP, EOPNOTSUPP },
	{ HOST_ETIMEDOUT, ETIMEDOUT },
	{ HOST_ENAMETOOLONG, ENAMETOOLONG },
};

int shim_errno(int host_error)
{
	int i;

	if (host_error == 0)
		return 0;
	for (i = 0; i < ARRAY_SIZE(errors); i++)
		if (errors[i].host == host_error)
			return -errors[i].native;
	return -EIO;
}

int shim_host_error(int error)
{
	int i;

	if (error == 0)
		return HOST_OK;
	for (i = 0; i < ARRAY_SIZE(errors); i++)
		if (errors[i].native == -error)
			return errors[i].host;
	return HOST_EIO;
}
