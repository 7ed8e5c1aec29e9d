// SPDX-License-Identifier: BSD-2-Clause
/*
 * cpu.c: the host's CPUs: staying on one, interrupting others, and the host
 * state that running a guest disturbs.
 */
#include <linux/cpu.h>
#include <linux/entry-kvm.h>
#include <linux/irqflags.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/fsgsbase.h>
#include <asm/msr.h>
#include <asm/pkru.h>
#include <asm/processor.h>
#include <asm/segment.h>
#include <asm/tlbflush.h>

#include "shim.h"

uint32_t host_ncpus(void)
{
	return nr_cpu_ids;
}

uint32_t host_curcpu(void)
{
	return raw_smp_processor_id();
}

void host_critical_enter(void)
{
	preempt_disable();
}

void host_critical_exit(void)
{
	preempt_enable();
}

uint64_t host_spin_enter(void)
{
	unsigned long flags;

	local_irq_save(flags);
	preempt_disable();
	return flags;
}

void host_spin_exit(uint64_t cookie)
{
	const unsigned long flags = cookie;

	local_irq_restore(flags);
	preempt_enable();
}

void host_run_on_all_cpus(void (*fn)(void *), void *arg)
{
	on_each_cpu(fn, arg, 1);
}

void host_kick_cpu(uint32_t cpu)
{
	smp_send_reschedule(cpu);
}

void host_cr4_change(uint64_t set, uint64_t clear)
{
	cr4_update_irqsoff(set, clear);
}

bool host_mitigations_off(void)
{
	return cpu_mitigations_off();
}

bool host_should_yield(void)
{
	return __xfer_to_guest_mode_work_pending();
}

int host_yield(void)
{
	cond_resched();
	if (read_thread_flags() & XFER_TO_GUEST_MODE_WORK & ~_TIF_NEED_RESCHED)
		return HOST_EINTR;
	return 0;
}

void host_relinquish(void)
{
	yield();
}

/* What this CPU's thread has in registers that guests use too. */
struct world {
	u16 ds;
	u16 es;
	u32 pkru;
};
static DEFINE_PER_CPU(struct world, worlds);

void host_world_begin(void)
{
	struct world *world = this_cpu_ptr(&worlds);

	current_save_fsgs();
	savesegment(ds, world->ds);
	savesegment(es, world->es);
	world->pkru = read_pkru();
	kernel_fpu_begin();
}

/*
 * Linux has userland's segments in registers while in the kernel, all but GS's
 * base, which is in MSR_KERNEL_GS_BASE. Where the FSGSBASE instructions are
 * off a base that isn't the descriptor's belongs to selector 0.
 */
static void restore_fsgs(void)
{
	const struct thread_struct *thread = &current->thread;
	u16 selector;

	savesegment(fs, selector);
	if (selector != thread->fsindex)
		loadsegment(fs, thread->fsindex);
	if (!thread->fsindex || boot_cpu_has(X86_FEATURE_FSGSBASE))
		x86_fsbase_write_cpu(thread->fsbase);

	savesegment(gs, selector);
	if (selector != thread->gsindex)
		load_gs_index(thread->gsindex);
	if (!thread->gsindex || boot_cpu_has(X86_FEATURE_FSGSBASE))
		wrmsrl(MSR_KERNEL_GS_BASE, thread->gsbase);
}

void host_world_end(void)
{
	const struct world *world = this_cpu_ptr(&worlds);
	u16 selector;

	kernel_fpu_end();
	write_pkru(world->pkru);

	savesegment(ds, selector);
	if (selector != world->ds)
		loadsegment(ds, world->ds);
	savesegment(es, selector);
	if (selector != world->es)
		loadsegment(es, world->es);
	restore_fsgs();

	/* A VM exit leaves a limit without the I/O bitmap (SDM 28.5.2). */
	invalidate_tss_limit();
}
