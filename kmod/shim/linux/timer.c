// SPDX-License-Identifier: BSD-2-Clause
/*
 * timer.c: clocks, and one-shot timers over hrtimers, whose functions run in
 * the clock interrupt.
 */
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include <asm/tsc.h>

#include "shim.h"

struct host_timer {
	struct hrtimer timer;
	void (*fn)(void *);
	void *arg;
};

uint64_t host_uptime_ns(void)
{
	return ktime_get_ns();
}

uint64_t host_wallclock_ns(void)
{
	return ktime_get_real_ns();
}

uint64_t host_tsc_hz(void)
{
	return (u64)tsc_khz * 1000;
}

static enum hrtimer_restart timer_fire(struct hrtimer *timer)
{
	struct host_timer *t = container_of(timer, struct host_timer, timer);

	t->fn(t->arg);
	return HRTIMER_NORESTART;
}

struct host_timer *host_timer_create(void (*fn)(void *), void *arg)
{
	struct host_timer *t;

	t = kzalloc(sizeof(*t), GFP_KERNEL_ACCOUNT);
	if (!t)
		return NULL;
	hrtimer_init(&t->timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	t->timer.function = timer_fire;
	t->fn = fn;
	t->arg = arg;
	return t;
}

void host_timer_arm(struct host_timer *t, uint64_t deadline_ns)
{
	hrtimer_start(&t->timer, min_t(u64, deadline_ns, KTIME_MAX),
		      HRTIMER_MODE_ABS_HARD);
}

void host_timer_cancel(struct host_timer *t)
{
	hrtimer_try_to_cancel(&t->timer);
}

void host_timer_destroy(struct host_timer *t)
{
	hrtimer_cancel(&t->timer);
	kfree(t);
}
