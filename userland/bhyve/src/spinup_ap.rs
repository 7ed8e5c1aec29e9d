//! The start of an application processor: in real mode at the page that the startup IPI's
//! vector names (SDM vol. 3A, 9.4.4).

#![forbid(unsafe_code)]

use vmmapi::{Error, Reg, SegDesc, SegReg, VcpuId};

use crate::machine::Machine;
use crate::vmexit::Answer;

/// Starts a vcpu at a physical address below 1 MiB on a page boundary.
pub fn spinup_ap(machine: &Machine, id: VcpuId, rip: u64) -> Result<Answer, Error> {
    let Some(cpu) = machine.cpu(id) else {
        return Ok(Answer::Abort(format!(
            "the guest starts vcpu {}, but has {} (see -c)",
            id.0,
            machine.cpus.len()
        )));
    };
    let vcpu = &cpu.vcpu;
    vcpu.reset()?;
    let base = rip & 0xf_f000;
    let desc = vcpu.desc(SegReg::Cs)?;
    vcpu.set_desc(SegReg::Cs, SegDesc { base, ..desc })?;
    vcpu.set_register(Reg::Cs, base >> 4)?;
    vcpu.set_register(Reg::Rip, 0)?;
    match vcpu.resume() {
        // It wasn't stopped: the kernel let it run from power-on.
        Err(error) if !error.is(libc::EINVAL) => return Err(error),
        _ => {}
    }
    cpu.gate.open();
    Ok(Answer::Continue)
}
