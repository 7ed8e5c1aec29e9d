/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * timer.c: clocks, and one-shot timers over callout(9).  The callouts run
 * directly in the clock interrupt (C_DIRECT_EXEC): their functions neither
 * sleep nor allocate, and a guest's timer should not wait for a thread.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/callout.h>
#include <sys/time.h>

#include <machine/atomic.h>
#include <machine/clock.h>

#include "../host.h"
#include "shim.h"

/* Farther than any host runs, and safe to add to. */
#define	DEADLINE_MAX	(INT64_MAX / 16)

struct host_timer {
	struct callout	 callout;
	void		(*fn)(void *);
	void		*arg;
};

uint64_t
host_uptime_ns(void)
{
	return (sbttons(sbinuptime()));
}

uint64_t
host_wallclock_ns(void)
{
	struct timespec ts;

	nanotime(&ts);
	return ((uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec);
}

uint64_t
host_tsc_hz(void)
{
	return (atomic_load_acq_64(&tsc_freq));
}

struct host_timer *
host_timer_create(void (*fn)(void *), void *arg)
{
	struct host_timer *t;

	t = malloc(sizeof(*t), M_VMM_RS, M_WAITOK | M_ZERO);
	callout_init(&t->callout, 1);
	t->fn = fn;
	t->arg = arg;
	return (t);
}

void
host_timer_arm(struct host_timer *t, uint64_t deadline_ns)
{
	sbintime_t deadline;

	/*
	 * Conversions round down by less than a nanosecond each: SBT_1NS keeps
	 * host_uptime_ns() from being below the deadline when fn runs.
	 */
	deadline = nstosbt(MIN(deadline_ns, DEADLINE_MAX)) + SBT_1NS;
	callout_reset_sbt(&t->callout, deadline, 0, t->fn, t->arg,
	    C_ABSOLUTE | C_DIRECT_EXEC);
}

void
host_timer_cancel(struct host_timer *t)
{
	callout_stop(&t->callout);
}

void
host_timer_destroy(struct host_timer *t)
{
	callout_drain(&t->callout);
	free(t, M_VMM_RS);
}
