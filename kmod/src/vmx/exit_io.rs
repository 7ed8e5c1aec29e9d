//! IN, OUT, INS and OUTS (SDM vol. 3C, tables 28-5 and 28-8): to the devices of the kernel,
//! or described so fully that userland needs no instruction fetch; and the guest's mode,
//! which the description has.

use vmm_core::exit::{ExitKind, Inout, InoutStr};
use vmm_core::regs::{GuestPaging, ModeRegs};
use vmm_core::stats::Stat;
use vmm_core::vmx::caps::Features;
use vmm_core::vmx::cr::Efer;
use vmm_core::vmx::field;
use vmm_core::vmx::qualification::{InsOutsInfo, IoQualification};
use vmm_core::vmx::segment::AccessRights;

use super::cr;
use super::exit::Outcome;
use super::regs::read_desc;
use super::run::Run;

impl Run<'_, '_> {
    /// Every port exits: none of the host's belongs to a guest. What is not the kernel's is
    /// userland's, and so are the string forms.
    pub fn io_instruction(&mut self) -> Outcome {
        self.env.stats.incr(Stat::VmexitInout);
        let Some(io) = IoQualification::from_raw(self.vmcs.read(field::EXIT_QUALIFICATION)) else {
            return self.unexpected();
        };
        let inout = Inout {
            bytes: io.bytes,
            input: io.input,
            string: io.string,
            rep: io.rep,
            port: io.port,
            eax: self.vcpu.ctx.guest_rax as u32,
        };
        if !io.string {
            return self.port_io(inout);
        }
        match self.string_io(inout) {
            Some(inout_str) => Outcome::Leave(ExitKind::InoutStr(inout_str)),
            None => self.unexpected(),
        }
    }

    fn port_io(&mut self, inout: Inout) -> Outcome {
        let Inout {
            port, bytes, eax, ..
        } = inout;
        let platform = self.env.platform;
        let done = if inout.input {
            platform.port_in(port, bytes).map(|value| {
                let rax = &mut self.vcpu.ctx.guest_rax;
                *rax = match bytes {
                    1 => *rax & !0xff | u64::from(value as u8),
                    2 => *rax & !0xffff | u64::from(value as u16),
                    // 32 bits clear the upper half.
                    _ => u64::from(value),
                };
            })
        } else {
            let value = match bytes {
                1 => eax & 0xff,
                2 => eax & 0xffff,
                _ => eax,
            };
            platform.port_out(port, bytes, value).then_some(())
        };
        match done {
            Some(()) => Outcome::Advance,
            None => Outcome::Leave(ExitKind::Inout(inout)),
        }
    }

    /// `None` if the CPU doesn't describe the memory operand.
    fn string_io(&self, inout: Inout) -> Option<InoutStr> {
        if !self.vcpu.vm.backend.caps.has(Features::INS_OUTS_INFO) {
            return None;
        }
        let info =
            InsOutsInfo::from_raw(self.vmcs.read(field::EXIT_INSTRUCTION_INFO), inout.input)?;
        let mask = match info.address_size {
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        };
        let ctx = &self.vcpu.ctx;
        let index = if inout.input {
            ctx.guest_rdi
        } else {
            ctx.guest_rsi
        };
        Some(InoutStr {
            inout,
            paging: self.guest_paging(),
            rflags: self.vmcs.read(field::GUEST_RFLAGS),
            cr0: cr::guest_cr0(&self.vmcs),
            index: index & mask,
            count: if inout.rep { ctx.guest_rcx & mask } else { 1 },
            addrsize: info.address_size,
            seg: info.segment,
            seg_desc: read_desc(&self.vmcs, info.segment),
            cs_d: AccessRights(self.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS)).default_big(),
            cs_base: self.vmcs.read(field::GUEST_CS_BASE),
        })
    }

    /// The guest executes 64-bit code.
    pub fn long64(&self) -> bool {
        self.vmcs.read(field::GUEST_IA32_EFER) & Efer::LMA.bits() != 0
            && AccessRights(self.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS)).long()
    }

    /// What translating one of the guest's linear addresses depends on. PE, PG, PAE and LA57
    /// are the guest's own bits in the real registers.
    pub fn guest_paging(&self) -> GuestPaging {
        GuestPaging::new(&ModeRegs {
            cr0: self.vmcs.read(field::GUEST_CR0),
            cr3: self.vmcs.read(field::GUEST_CR3),
            cr4: self.vmcs.read(field::GUEST_CR4),
            efer: self.vmcs.read(field::GUEST_IA32_EFER),
            rflags: self.vmcs.read(field::GUEST_RFLAGS),
            cs_access: self.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS),
            ss_access: self.vmcs.read(field::GUEST_SS_ACCESS_RIGHTS),
        })
    }
}
