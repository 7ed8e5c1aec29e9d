//! VM_RUN: runs the guest until something needs userland. The backend handles what it can
//! between two VM entries ([`VcpuOps::run`](super::ops::VcpuOps::run)); what it returns is
//! handled here if it needs guest memory, sleep or the other vcpus.

use core::sync::atomic::Ordering;

use vmm_core::exit::{Access, ExitKind, InstEmul, SuspendHow, VmExit, VmxExit};
use vmm_core::regs::Reg;
use vmm_core::stats::Stat;
use vmm_core::types::{Errno, Gla, Gpa, Vector};
use vmm_core::vcpu::Capability;
use vmm_core::vmx::reason::ExitReason;

use super::mmio::Device;
use super::ops::{RunEnv, ends_hlt};
use super::platform::{self, VcpuPlatform};
use super::vcpu::{Frozen, Halted};
use super::{Vm, emulate, fetch};
use crate::host::{thread, time};
use crate::log_warn;

const RFLAGS_IF: u64 = 1 << 9;

/// Nanoseconds in a tick of FreeBSD's hz (1000), the unit of the idle statistic.
const TICK_NS: u64 = 1_000_000;

/// What became of an exit.
enum Handled {
    /// The guest goes on.
    Continue,
    /// Userland gets it as it is.
    Userlands,
    /// Userland gets this instead.
    Return(VmExit),
}

/// Runs `frozen` of `vm`. EINVAL if the vcpu isn't active or has seen its VM's end.
pub fn run(vm: &Vm, frozen: &mut Frozen<'_>) -> Result<VmExit, Errno> {
    let id = frozen.vcpu.id;
    if !vm.active.contains(id) || vm.suspended.contains(id) {
        return Err(Errno::EINVAL);
    }
    let cpuid = vm.cpuid();
    let exit = 'run: loop {
        while let Some(halted) = frozen.contents.halted {
            if let Handled::Return(exit) = sleep_in_hlt(vm, frozen, halted)? {
                break 'run exit;
            }
        }
        let vcpu = frozen.vcpu;
        let contents = &mut *frozen.contents;
        let platform = VcpuPlatform { vm, vcpu };
        let mut env = RunEnv {
            vcpu_id: id,
            requests: &vcpu.requests,
            events: &mut contents.events,
            stats: &vcpu.stats,
            cpuid: &cpuid,
            msrs: &mut contents.msrs,
            apic: &mut contents.apic,
            inbox: &vcpu.inbox,
            platform: &platform,
            set_running: &|on| Frozen::set_running(vcpu, on),
        };
        let exit = contents.backend.run(contents.next_rip, &mut env);
        contents.next_rip = exit.rip.wrapping_add(u64::from(exit.inst_length));
        match handle(vm, frozen, &exit)? {
            Handled::Continue => {}
            Handled::Userlands => break exit,
            Handled::Return(exit) => break exit,
        }
    };
    frozen.vcpu.stats.incr(Stat::VmexitUserspace);
    Ok(exit)
}

/// `exit` by reference: it is long, and most go on to userland.
fn handle(vm: &Vm, frozen: &mut Frozen<'_>, exit: &VmExit) -> Result<Handled, Errno> {
    match exit.kind {
        ExitKind::Hlt { rflags, .. } => {
            frozen.contents.halted = Some(Halted {
                interrupts_off: rflags & RFLAGS_IF == 0,
            });
            Ok(Handled::Continue)
        }
        ExitKind::Paging { gpa, gla, access } => {
            if vm.memory.fault(gpa, access, &frozen.vcpu.stats)? {
                return Ok(Handled::Continue);
            }
            // The CPU gives no linear address with accesses to the local APIC.
            let data = gla.is_some() || Device::at(gpa).is_some();
            match access {
                Access::Read | Access::Write if data => {
                    inst_emul(vm, frozen, *exit, gpa, gla.unwrap_or(Gla(0)))
                }
                // Code or page tables where there is no memory: no instruction to emulate.
                Access::Read | Access::Write | Access::Execute => Ok(Handled::Return(VmExit {
                    kind: ExitKind::Vmx(no_memory(gpa, access)),
                    ..*exit
                })),
            }
        }
        ExitKind::Suspended(how) => {
            // The first to see a triple fault starts the end of the VM; everyone else finds
            // it under way.
            let how = match vm.suspend(how) {
                Ok(()) => how,
                Err(_) => vm.suspend_request().unwrap_or(how),
            };
            Ok(wait_for_suspend(vm, frozen, *exit, how))
        }
        ExitKind::Monitor | ExitKind::Mwait | ExitKind::Vminsn => {
            // Not offered by CPUID, and VMX is never on in the guest: #UD (SDM vol. 3C, 26.1.2).
            frozen.inject_fault(Vector::UD, None)?;
            Ok(Handled::Continue)
        }
        ExitKind::Bogus => {
            // A reschedule alone is served here; a signal or AST goes back to userland.
            match thread::yield_now() {
                Ok(()) => Ok(Handled::Continue),
                Err(_) => Ok(Handled::Userlands),
            }
        }
        ExitKind::Ipi { .. } => Ok(match platform::ipi(vm, frozen, *exit)? {
            Some(exit) => Handled::Return(exit),
            None => Handled::Continue,
        }),
        ExitKind::Pause => {
            // The guest spins. What it waits for may be a vcpu that waits for this CPU.
            thread::relinquish();
            let backend = &mut frozen.contents.backend;
            Ok(match backend.get_capability(Capability::PauseExit) {
                Ok(true) => Handled::Userlands,
                Ok(false) | Err(_) => Handled::Continue,
            })
        }
        ExitKind::Inout(_)
        | ExitKind::InoutStr(_)
        | ExitKind::Vmx(_)
        | ExitKind::Rdmsr { .. }
        | ExitKind::Wrmsr { .. }
        | ExitKind::Mtrap
        | ExitKind::InstEmul(_)
        | ExitKind::SpinupAp { .. }
        | ExitKind::Rendezvous
        | ExitKind::IoapicEoi { .. }
        | ExitKind::TaskSwitch(_)
        | ExitKind::Reqidle
        | ExitKind::Debug
        | ExitKind::Bpt { .. }
        | ExitKind::Db { .. } => Ok(Handled::Userlands),
    }
}

/// An EPT violation that nothing can be done about, as the CPU reports it (SDM table 28-7).
fn no_memory(gpa: Gpa, access: Access) -> VmxExit {
    log_warn!("the guest's code or page tables are at {gpa:#x}, where it has no memory");
    VmxExit::Exit {
        reason: u32::from(ExitReason::EptViolation.number()),
        qualification: match access {
            Access::Read => 1 << 0,
            Access::Write => 1 << 1,
            Access::Execute => 1 << 2,
        },
    }
}

/// An access to what is not memory: the instruction is fetched here and emulated, by
/// userland if the device isn't the kernel's. A fetch that faults is the guest's page fault.
fn inst_emul(
    vm: &Vm,
    frozen: &mut Frozen<'_>,
    exit: VmExit,
    gpa: Gpa,
    gla: Gla,
) -> Result<Handled, Errno> {
    frozen.vcpu.stats.incr(Stat::VmexitInstEmul);
    let code = fetch::CodeContext::of(frozen, &vm.cpuid());
    match fetch::instruction(&vm.memory, &code, exit.rip) {
        Ok(inst) => {
            let emul = InstEmul {
                gpa,
                gla,
                cs_base: code.cs_base,
                cs_d: code.cs_d,
                paging: code.paging,
                inst,
            };
            let left = emulate::emulate(vm, frozen, exit, emul, &code.regs)?;
            Ok(left.map_or(Handled::Continue, Handled::Return))
        }
        Err(fault) => {
            frozen
                .contents
                .backend
                .set_register(Reg::Cr2, fault.gla.get())?;
            frozen.inject_fault(Vector::PF, Some(fault.error_code))?;
            Ok(Handled::Continue)
        }
    }
}

/// HLT: sleeps until an event for the guest, or until something else needs the thread. In
/// that case the vcpu stays halted, and the next VM_RUN sleeps on.
fn sleep_in_hlt(vm: &Vm, frozen: &mut Frozen<'_>, halted: Halted) -> Result<Handled, Errno> {
    let vcpu = frozen.vcpu;
    let requests = &vcpu.requests;
    frozen.accept_interrupts();
    let contents = &*frozen.contents;
    let interrupts_on = !halted.interrupts_off;
    let pic_pending = || vm.devices.pic_pending();
    if ends_hlt(
        &contents.events,
        requests,
        &contents.apic,
        interrupts_on,
        pic_pending,
    ) {
        frozen.contents.halted = None;
        return Ok(Handled::Continue);
    }
    let takes_extint = interrupts_on && frozen.contents.apic.takes_extint();
    let event = || {
        requests.nmi.load(Ordering::SeqCst)
            || !vcpu.inbox.is_empty()
            || takes_extint && pic_pending()
    };
    let request = || {
        requests.suspend.load(Ordering::SeqCst) != 0
            || requests.reqidle.load(Ordering::SeqCst) != 0
            || requests.debug.load(Ordering::SeqCst)
    };
    if halted.interrupts_off && vm.all_halted(vcpu.id) {
        // Nothing but a reset can wake any vcpu: some systems' way to say "halted".
        // An end that is already under way is as good.
        let _ = vm.suspend(SuspendHow::Halt);
    }
    let start = time::uptime_ns();
    let undisturbed = frozen.sleep_until(&|| event() || request());
    let ticks = time::uptime_ns().saturating_sub(start) / TICK_NS;
    vcpu.stats.add(Stat::VcpuIdleTicks, ticks);
    vm.halted.remove(vcpu.id);

    let kind = if event() {
        // Whether it ends the HLT is looked at next.
        return Ok(Handled::Continue);
    } else if let Some(how) = vm.suspend_request() {
        ExitKind::Suspended(how)
    } else if requests.debug.load(Ordering::SeqCst) {
        ExitKind::Debug
    } else if requests.reqidle.load(Ordering::SeqCst) != 0 {
        vcpu.stats.incr(Stat::VmexitReqidle);
        ExitKind::Reqidle
    } else if undisturbed {
        // What woke us is gone again (an ioctl that got the lock); look once more.
        return Ok(Handled::Continue);
    } else {
        vcpu.stats.incr(Stat::VmexitAstpending);
        ExitKind::Bogus
    };
    // A CPU in HLT is behind the instruction: that is what a look at RIP shows, and the
    // shadow of an STI before HLT is over.
    let contents = &mut *frozen.contents;
    contents.backend.set_register(Reg::Rip, contents.next_rip)?;
    contents.backend.set_register(Reg::IntrShadow, 0)?;
    let exit = VmExit {
        rip: contents.next_rip,
        inst_length: 0,
        kind,
    };
    match kind {
        ExitKind::Suspended(how) => Ok(wait_for_suspend(vm, frozen, exit, how)),
        _ => Ok(Handled::Return(exit)),
    }
}

/// The VM ends: waits until all active vcpus know, so that userland sees the end once
/// nothing of the guest runs any more.
fn wait_for_suspend(vm: &Vm, frozen: &mut Frozen<'_>, exit: VmExit, how: SuspendHow) -> Handled {
    let vcpu = frozen.vcpu;
    let exit = VmExit {
        kind: ExitKind::Suspended(how),
        ..exit
    };
    vm.suspended.insert(vcpu.id);
    vm.notify_active();
    // A VM that is being destroyed waits for nobody.
    let all =
        || vm.suspend_request() == Some(SuspendHow::Destroy) || vm.suspended.same_as(&vm.active);
    let wanted = || vcpu.requests.reqidle.load(Ordering::SeqCst) != 0;
    frozen.sleep_until(&|| all() || wanted());
    if !all() {
        // Interrupted: this vcpu may be run again, and will then wait again.
        vm.suspended.remove(vcpu.id);
        let kind = if wanted() {
            ExitKind::Reqidle
        } else {
            ExitKind::Bogus
        };
        return Handled::Return(VmExit { kind, ..exit });
    }
    vm.notify_active();
    Handled::Return(exit)
}
