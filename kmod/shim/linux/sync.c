// SPDX-License-Identifier: BSD-2-Clause
/*
 * sync.c: wait queues and sleepable locks.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "shim.h"

struct host_waitq {
	struct wait_queue_head head;
};

struct host_sx {
	struct rw_semaphore sem;
};

struct host_waitq *host_waitq_create(const char *name)
{
	struct host_waitq *wq;

	wq = kzalloc(sizeof(*wq), GFP_KERNEL_ACCOUNT);
	if (wq)
		init_waitqueue_head(&wq->head);
	return wq;
}

void host_waitq_destroy(struct host_waitq *wq)
{
	kfree(wq);
}

/*
 * The thread is on the queue, in its sleeping state, before it looks: a wake
 * after the look makes it runnable again and schedule() returns at once.
 */
int host_waitq_wait(struct host_waitq *wq, bool (*ready)(void *), void *arg,
		    uint64_t timeout_ns, bool interruptible)
{
	const int state = interruptible ? TASK_INTERRUPTIBLE : TASK_IDLE;
	ktime_t deadline = KTIME_MAX;
	DEFINE_WAIT(wait);
	int error = 0;

	if (timeout_ns)
		deadline = ktime_add_safe(ktime_get(),
				min_t(u64, timeout_ns, KTIME_MAX));
	for (;;) {
		prepare_to_wait(&wq->head, &wait, state);
		if (ready(arg)) {
			error = 0;
			break;
		}
		if (error)
			break;
		if (interruptible && signal_pending(current))
			error = HOST_EINTR;
		else if (!schedule_hrtimeout_range(&deadline, 0,
						   HRTIMER_MODE_ABS))
			error = HOST_ETIMEDOUT;
	}
	finish_wait(&wq->head, &wait);
	return error;
}

void host_waitq_wake(struct host_waitq *wq)
{
	wake_up_all(&wq->head);
}

struct host_sx *host_sx_create(const char *name)
{
	struct host_sx *sx;

	sx = kzalloc(sizeof(*sx), GFP_KERNEL_ACCOUNT);
	if (sx)
		init_rwsem(&sx->sem);
	return sx;
}

void host_sx_destroy(struct host_sx *sx)
{
	kfree(sx);
}

void host_sx_xlock(struct host_sx *sx)
{
	down_write(&sx->sem);
}

void host_sx_xunlock(struct host_sx *sx)
{
	up_write(&sx->sem);
}

void host_sx_slock(struct host_sx *sx)
{
	down_read(&sx->sem);
}

void host_sx_sunlock(struct host_sx *sx)
{
	up_read(&sx->sem);
}
