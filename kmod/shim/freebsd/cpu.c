/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * cpu.c: the host's CPUs: staying on one, interrupting others, and the host
 * state that running a guest disturbs.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/bus.h>
#include <sys/lock.h>
#include <sys/mutex.h>
#include <sys/pcpu.h>
#include <sys/proc.h>
#include <sys/smp.h>
#include <sys/sysctl.h>

#include <vm/vm.h>
#include <vm/pmap.h>

#include <machine/cpu.h>
#include <machine/cpufunc.h>
#include <machine/fpu.h>
#include <machine/intr_machdep.h>
#include <machine/md_var.h>
#include <machine/pcb.h>
#include <machine/segments.h>
#include <machine/smp.h>
#include <machine/specialreg.h>
#include <machine/tss.h>
#include <x86/apicvar.h>

#include "../host.h"
#include "shim.h"

SYSCTL_DECL(_hw_vmm);

static int kick_vector;
SYSCTL_INT(_hw_vmm, OID_AUTO, ipinum, CTLFLAG_RD, &kick_vector, 0,
    "IPI vector used for vcpu notifications");

/*
 * The kick's handler only acknowledges: reaching the CPU is all that is wanted.
 * When every dynamic vector is taken IPI_AST does it, at a higher price.
 */
void
shim_cpu_init(void)
{
	kick_vector = lapic_ipi_alloc(pti ? &IDTVEC(justreturn1_pti) :
	    &IDTVEC(justreturn));
	if (kick_vector < 0)
		kick_vector = IPI_AST;
}

void
shim_cpu_fini(void)
{
	if (kick_vector != IPI_AST)
		lapic_ipi_free(kick_vector);
}

/* Called on each CPU, with all others' threads stopped (acpi(4), S3). */
static void
cpu_resumed(void)
{
#if __FreeBSD_version < 1500000
	/* Nobody was told before the sleep, so CR4.VMXE has come back. */
	load_cr4(rcr4() & ~CR4_VMXE);
#endif
	/* The core has said in the log why not, and refuses guests. */
	(void)vmm_rs_cpu_resume();
}

void
shim_sleep_start(void)
{
#if __FreeBSD_version >= 1500000
	vmm_suspend_p = vmm_rs_cpu_suspend;
#endif
	vmm_resume_p = cpu_resumed;
}

void
shim_sleep_stop(void)
{
#if __FreeBSD_version >= 1500000
	vmm_suspend_p = NULL;
#endif
	vmm_resume_p = NULL;
}

uint32_t
host_ncpus(void)
{
	return (mp_maxid + 1);
}

uint32_t
host_curcpu(void)
{
	return (curcpu);
}

void
host_critical_enter(void)
{
	critical_enter();
}

void
host_critical_exit(void)
{
	critical_exit();
}

/* spinlock_enter(9) keeps the interrupt state in the thread. */
uint64_t
host_spin_enter(void)
{
	spinlock_enter();
	return (0);
}

void
host_spin_exit(uint64_t cookie __unused)
{
	spinlock_exit();
}

void
host_run_on_all_cpus(void (*fn)(void *), void *arg)
{
	smp_rendezvous(smp_no_rendezvous_barrier, fn,
	    smp_no_rendezvous_barrier, arg);
}

void
host_kick_cpu(uint32_t cpu)
{
	ipi_cpu(cpu, kick_vector);
}

void
host_cr4_change(uint64_t set, uint64_t clear)
{
	load_cr4((rcr4() | set) & ~clear);
}

bool
host_mitigations_off(void)
{
	return (false);
}

bool
host_should_yield(void)
{
	struct thread *td;

	td = curthread;
	return (td->td_ast != 0 || td->td_owepreempt != 0);
}

/* All but the scheduler's AST is handled on the way to userland only. */
int
host_yield(void)
{
	struct thread *td;

	td = curthread;
	if ((td->td_ast & ~TDAI(TDA_SCHED)) != 0)
		return (HOST_EINTR);
	if (td->td_ast != 0)
		kern_yield(PRI_USER);
	return (0);
}

void
host_relinquish(void)
{
	kern_yield(PRI_USER);
}

/* The protection keys of the thread that is in a world on a CPU. */
static uint32_t world_pkru[MAXCPU];

static bool
pku_enabled(void)
{
	return ((cpu_stdext_feature2 & CPUID_STDEXT2_PKU) != 0);
}

void
host_world_begin(void)
{
	CRITICAL_ASSERT(curthread);

	/*
	 * Also what makes the segment bases, now in the pcb, come back before
	 * the thread sees userland again.
	 */
	set_pcb_flags(curthread->td_pcb, PCB_FULL_IRET);
	if (pku_enabled())
		world_pkru[curcpu] = rdpkru();
	fpuexit(curthread);
	clts();
}

void
host_world_end(void)
{
	struct system_segment_descriptor *tss;

	/* The thread's FPU state is in its pcb; the next use faults it in. */
	load_cr0(rcr0() | CR0_TS);
	/* PKRU matters before that, though: to each access to user memory. */
	if (pku_enabled())
		wrpkru(world_pkru[curcpu]);

	/*
	 * A VM exit leaves a task register whose limit excludes the I/O bitmap
	 * (SDM 28.5.2).  Only threads with a TSS of their own have a bitmap,
	 * and a switch to another one of these loads the register anyway.
	 */
	if (curthread->td_pcb->pcb_tssp != NULL) {
		tss = PCPU_GET(tss);
		tss->sd_type = SDT_SYSTSS;
		ltr(GSEL(GPROC0_SEL, SEL_KPL));
	}
}
