/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * sync.c: wait queues over sleepqueue(9) and sleepable locks over sx(9).
 * A sleep queue's lock is a spin lock, which is why a wake works in every
 * context but an NMI's, and why none gets lost between check and sleep.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/callout.h>
#include <sys/lock.h>
#include <sys/mutex.h>
#include <sys/proc.h>
#include <sys/sleepqueue.h>
#include <sys/sx.h>
#include <sys/time.h>

#include "../host.h"
#include "shim.h"

struct host_waitq {
	const char	*name;
};

struct host_sx {
	struct sx	 sx;
};

static int	waitq_sleep(struct host_waitq *wq, sbintime_t deadline,
		    bool interruptible);

struct host_waitq *
host_waitq_create(const char *name)
{
	struct host_waitq *wq;

	wq = malloc(sizeof(*wq), M_VMM_RS, M_WAITOK | M_ZERO);
	wq->name = name;
	return (wq);
}

void
host_waitq_destroy(struct host_waitq *wq)
{
	free(wq, M_VMM_RS);
}

int
host_waitq_wait(struct host_waitq *wq, bool (*ready)(void *), void *arg,
    uint64_t timeout_ns, bool interruptible)
{
	sbintime_t deadline;
	bool done;
	int error;

	deadline = 0;
	if (timeout_ns != 0)
		deadline = sbinuptime() +
		    nstosbt(MIN(timeout_ns, INT64_MAX / 16)) + 1;
	error = 0;
	DROP_GIANT();		/* a module's events come with it */
	sleepq_lock(wq);
	while (!(done = ready(arg)) && error == 0) {
		error = waitq_sleep(wq, deadline, interruptible);
		sleepq_lock(wq);
	}
	sleepq_release(wq);
	PICKUP_GIANT();

	if (done)
		return (0);
	return (error == EWOULDBLOCK ? HOST_ETIMEDOUT : HOST_EINTR);
}

/* One sleep.  Takes the queue locked, leaves it unlocked. */
static int
waitq_sleep(struct host_waitq *wq, sbintime_t deadline, bool interruptible)
{
	int flags;

	flags = SLEEPQ_SLEEP | (interruptible ? SLEEPQ_INTERRUPTIBLE : 0);
	sleepq_add(wq, NULL, wq->name, flags, 0);
	if (deadline != 0) {
		sleepq_set_timeout_sbt(wq, deadline, 0, C_ABSOLUTE);
		if (interruptible)
			return (sleepq_timedwait_sig(wq, 0));
		return (sleepq_timedwait(wq, 0));
	}
	if (interruptible)
		return (sleepq_wait_sig(wq, 0));
	sleepq_wait(wq, 0);
	return (0);
}

void
host_waitq_wake(struct host_waitq *wq)
{
#if __FreeBSD_version < 1500000
	int swapped;
#endif

	sleepq_lock(wq);
#if __FreeBSD_version < 1500000
	/* Before 15 a sleeper's kernel stack could have been swapped out. */
	swapped = sleepq_broadcast(wq, SLEEPQ_SLEEP, 0, 0);
	sleepq_release(wq);
	if (swapped)
		kick_proc0();
#else
	sleepq_broadcast(wq, SLEEPQ_SLEEP, 0, 0);
	sleepq_release(wq);
#endif
}

struct host_sx *
host_sx_create(const char *name)
{
	struct host_sx *sx;

	sx = malloc(sizeof(*sx), M_VMM_RS, M_WAITOK | M_ZERO);
	/* Locks of one name are taken together, in the core's own order. */
	sx_init_flags(&sx->sx, name, SX_DUPOK);
	return (sx);
}

void
host_sx_destroy(struct host_sx *sx)
{
	sx_destroy(&sx->sx);
	free(sx, M_VMM_RS);
}

void
host_sx_xlock(struct host_sx *sx)
{
	sx_xlock(&sx->sx);
}

void
host_sx_xunlock(struct host_sx *sx)
{
	sx_xunlock(&sx->sx);
}

void
host_sx_slock(struct host_sx *sx)
{
	sx_slock(&sx->sx);
}

void
host_sx_sunlock(struct host_sx *sx)
{
	sx_sunlock(&sx->sx);
}
