//! The exit-qualification field, decoded by exit reason (SDM vol. 3C, 28.2.1, tables 28-1 to
//! 28-7), and the VM-exit instruction-information field where vmm_rs needs it (28.2.5,
//! tables 28-8 and following).
//!
//! EPT misconfigurations have no qualification, and most instructions have 0.

use bitflags::bitflags;

use crate::exit::TaskSwitchReason;
use crate::regs::{Reg, SegReg};

/// I/O instruction (table 28-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoQualification {
    /// 1, 2 or 4.
    pub bytes: u8,
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    pub rep: bool,
    /// The port is an immediate, not DX.
    pub immediate: bool,
    pub port: u16,
}

impl IoQualification {
    /// `None` for an access size that the table doesn't define.
    pub const fn from_raw(raw: u64) -> Option<Self> {
        let bytes = match raw & 7 {
            0 => 1,
            1 => 2,
            3 => 4,
            _ => return None,
        };
        Some(Self {
            bytes,
            input: raw & 1 << 3 != 0,
            string: raw & 1 << 4 != 0,
            rep: raw & 1 << 5 != 0,
            immediate: raw & 1 << 6 != 0,
            port: (raw >> 16) as u16,
        })
    }
}

/// INS and OUTS: the instruction-information field (table 28-8). Only valid if
/// [`super::caps::Features::INS_OUTS_INFO`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InsOutsInfo {
    /// 2, 4 or 8 bytes.
    pub address_size: u8,
    /// Of the memory operand; for INS it is undefined in the field, and always ES.
    pub segment: SegReg,
}

impl InsOutsInfo {
    /// `input`: the instruction is INS. `None` for a reserved address size or segment.
    pub const fn from_raw(raw: u32, input: bool) -> Option<Self> {
        let address_size = match raw >> 7 & 7 {
            0 => 2,
            1 => 4,
            2 => 8,
            _ => return None,
        };
        let segment = match (input, raw >> 15 & 7) {
            (true, _) | (_, 0) => SegReg::Es,
            (_, 1) => SegReg::Cs,
            (_, 2) => SegReg::Ss,
            (_, 3) => SegReg::Ds,
            (_, 4) => SegReg::Fs,
            (_, 5) => SegReg::Gs,
            _ => return None,
        };
        Some(Self {
            address_size,
            segment,
        })
    }
}

/// The register in bits 11:8, where several qualifications have it.
const fn register_at_8(raw: u64) -> Reg {
    Reg::general((raw >> 8) as u8)
}

/// Control-register access (table 28-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrAccess {
    MovToCr {
        cr: u8,
        reg: Reg,
    },
    MovFromCr {
        cr: u8,
        reg: Reg,
    },
    Clts,
    /// The source as the CPU read it, from a register or from memory. The guest-linear
    /// address field has the address of a memory operand.
    Lmsw {
        source: u16,
        memory: bool,
    },
}

impl CrAccess {
    pub const fn from_raw(raw: u64) -> Self {
        let cr = raw as u8 & 0xf;
        match raw >> 4 & 3 {
            0 => Self::MovToCr {
                cr,
                reg: register_at_8(raw),
            },
            1 => Self::MovFromCr {
                cr,
                reg: register_at_8(raw),
            },
            2 => Self::Clts,
            _ => Self::Lmsw {
                source: (raw >> 16) as u16,
                memory: raw & 1 << 6 != 0,
            },
        }
    }
}

/// MOV DR (table 28-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrAccess {
    /// 0 to 7.
    pub dr: u8,
    /// MOV from the debug register.
    pub read: bool,
    pub reg: Reg,
}

impl DrAccess {
    pub const fn from_raw(raw: u64) -> Self {
        Self {
            dr: raw as u8 & 7,
            read: raw & 1 << 4 != 0,
            reg: register_at_8(raw),
        }
    }
}

bitflags! {
    /// EPT violation (table 28-7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct EptViolation: u64 {
        /// What was tried. A read-modify-write may have READ and WRITE.
        const READ = 1 << 0;
        const WRITE = 1 << 1;
        const FETCH = 1 << 2;
        /// What the entries on the way allow together; none of them if not present.
        const READABLE = 1 << 3;
        const WRITABLE = 1 << 4;
        const EXECUTABLE = 1 << 5;
        const USER_EXECUTABLE = 1 << 6;
        /// The guest-linear address field is valid.
        const LINEAR_VALID = 1 << 7;
        /// The access was to the translation of the linear address. Without it, if
        /// LINEAR_VALID: to a guest paging-structure entry, or to update its A/D bits.
        const FINAL_TRANSLATION = 1 << 8;
        /// These three only with [`super::caps::Features::EPT_ADVANCED_EXIT_INFO`].
        const LINEAR_USER = 1 << 9;
        const LINEAR_WRITABLE = 1 << 10;
        const LINEAR_EXECUTE_DISABLED = 1 << 11;
        /// The exit came with NMI unblocking due to IRET (28.2.3).
        const NMI_UNBLOCKING_DUE_TO_IRET = 1 << 12;
        const SHADOW_STACK = 1 << 13;
        /// Of what else newer CPUs report nothing is used.
        const _ = !0;
    }
}

impl EptViolation {
    /// Something is mapped there that doesn't allow the access.
    pub const fn was_present(self) -> bool {
        self.intersects(Self::READABLE.union(Self::WRITABLE).union(Self::EXECUTABLE))
    }

    /// The access of an instruction, or its fetch: what emulation can answer. Not a walk of
    /// the guest's page tables, and not what has no linear address (a PDPTE load, a trace).
    pub const fn is_instruction_access(self) -> bool {
        self.contains(Self::LINEAR_VALID.union(Self::FINAL_TRANSLATION))
    }
}

bitflags! {
    /// Debug exception (table 28-1): like DR6, but not yet written there. The pending debug
    /// exceptions field has the same bits.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct DebugExceptions: u64 {
        const B0 = 1 << 0;
        const B1 = 1 << 1;
        const B2 = 1 << 2;
        const B3 = 1 << 3;
        /// A bus lock, while the OS asked for it.
        const BUS_LOCK = 1 << 11;
        /// Pending debug exceptions only: an enabled breakpoint was met.
        const ENABLED_BREAKPOINT = 1 << 12;
        const DEBUG_REGISTER_ACCESS = 1 << 13;
        const SINGLE_STEP = 1 << 14;
        /// Pending debug exceptions only: within a transactional region.
        const RTM = 1 << 16;
        const _ = !0;
    }
}

/// APIC access (table 28-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicAccess {
    /// Within the page; undefined for the physical accesses.
    pub offset: u16,
    /// `None` for a reserved type.
    pub kind: Option<ApicAccessType>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicAccessType {
    LinearRead,
    LinearWrite,
    LinearFetch,
    LinearEventDelivery,
    /// By guest-physical address: of page tables, during an event's delivery.
    PhysicalEventDelivery,
    /// The same for an instruction, its fetch or its operands.
    PhysicalOther,
}

impl ApicAccess {
    pub const fn from_raw(raw: u64) -> Self {
        Self {
            offset: raw as u16 & 0xfff,
            kind: match raw >> 12 & 0xf {
                0 => Some(ApicAccessType::LinearRead),
                1 => Some(ApicAccessType::LinearWrite),
                2 => Some(ApicAccessType::LinearFetch),
                3 => Some(ApicAccessType::LinearEventDelivery),
                10 => Some(ApicAccessType::PhysicalEventDelivery),
                15 => Some(ApicAccessType::PhysicalOther),
                _ => None,
            },
        }
    }
}

/// Task switch (table 28-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskSwitchQualification {
    pub tss_selector: u16,
    pub reason: TaskSwitchReason,
}

impl TaskSwitchQualification {
    pub const fn from_raw(raw: u64) -> Self {
        let reason = match raw >> 30 & 3 {
            0 => TaskSwitchReason::Call,
            1 => TaskSwitchReason::Iret,
            2 => TaskSwitchReason::Jmp,
            _ => TaskSwitchReason::IdtGate,
        };
        Self {
            tss_selector: raw as u16,
            reason,
        }
    }
}

/// The memory operand of INVEPT, INVPCID, INVVPID (table 28-9), of the VMX instructions
/// with one operand (table 28-13), and of LGDT and its like (table 28-10), whose address is
/// `segment base + base + (index << scale) + qualification`: for these exits the
/// qualification is the displacement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOperand {
    /// 0 to 3.
    pub scale: u8,
    /// 2, 4 or 8 bytes.
    pub address_size: u8,
    pub segment: SegReg,
    pub index: Option<Reg>,
    pub base: Option<Reg>,
    /// Bits 31:28, Reg2: the type operand of INVEPT, INVPCID and INVVPID.
    pub reg2: Reg,
}

impl MemoryOperand {
    /// `None` for a reserved address size or segment.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        let Some(InsOutsInfo {
            address_size,
            segment,
        }) = InsOutsInfo::from_raw(raw, false)
        else {
            return None;
        };
        Some(Self {
            scale: raw as u8 & 3,
            address_size,
            segment,
            index: register_unless(raw >> 18, raw & 1 << 22 != 0),
            base: register_unless(raw >> 23, raw & 1 << 27 != 0),
            reg2: Reg::general((raw >> 28) as u8),
        })
    }
}

const fn register_unless(bits: u32, invalid: bool) -> Option<Reg> {
    if invalid {
        None
    } else {
        Some(Reg::general(bits as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_dx_al_to_the_serial_port() {
        let io = IoQualification::from_raw(0x03f8_0000).unwrap();
        assert_eq!((io.bytes, io.port), (1, 0x3f8));
        assert!(!io.input && !io.string && !io.rep && !io.immediate);
    }

    #[test]
    fn apic_accesses() {
        let write = ApicAccess::from_raw(0x1390);
        assert_eq!(write.offset, 0x390);
        assert_eq!(write.kind, Some(ApicAccessType::LinearWrite));
        let read = ApicAccess::from_raw(0x0020);
        assert_eq!(read.kind, Some(ApicAccessType::LinearRead));
        let walk = ApicAccess::from_raw(0xf000);
        assert_eq!(walk.kind, Some(ApicAccessType::PhysicalOther));
        assert_eq!(ApicAccess::from_raw(0x4000).kind, None);
    }

    #[test]
    fn rep_insw_and_immediate_in() {
        let io = IoQualification::from_raw(0x01f0_0039).unwrap();
        assert_eq!((io.bytes, io.port), (2, 0x1f0));
        assert!(io.input && io.string && io.rep && !io.immediate);
        let io = IoQualification::from_raw(0x0071_004b).unwrap();
        assert_eq!((io.bytes, io.input, io.immediate), (4, true, true));
        assert_eq!(IoQualification::from_raw(2), None);
    }

    #[test]
    fn string_io_names_segment_and_address_size() {
        let outs = InsOutsInfo::from_raw(1 << 7 | 4 << 15, false).unwrap();
        assert_eq!(
            outs,
            InsOutsInfo {
                address_size: 4,
                segment: SegReg::Fs
            }
        );
        // The segment bits of INS are undefined.
        let ins = InsOutsInfo::from_raw(2 << 7 | 7 << 15, true).unwrap();
        assert_eq!(
            ins,
            InsOutsInfo {
                address_size: 8,
                segment: SegReg::Es
            }
        );
        assert_eq!(InsOutsInfo::from_raw(3 << 7, false), None);
        assert_eq!(InsOutsInfo::from_raw(6 << 15, false), None);
    }

    #[test]
    fn control_register_accesses() {
        assert_eq!(
            CrAccess::from_raw(0x000),
            CrAccess::MovToCr {
                cr: 0,
                reg: Reg::Rax
            }
        );
        assert_eq!(
            CrAccess::from_raw(0x404),
            CrAccess::MovToCr {
                cr: 4,
                reg: Reg::Rsp
            }
        );
        assert_eq!(
            CrAccess::from_raw(0xf18),
            CrAccess::MovFromCr {
                cr: 8,
                reg: Reg::R15
            }
        );
        assert_eq!(CrAccess::from_raw(0x20), CrAccess::Clts);
        let lmsw = CrAccess::Lmsw {
            source: 0xfff1,
            memory: true,
        };
        assert_eq!(CrAccess::from_raw(0xfff1_0070), lmsw);
    }

    #[test]
    fn debug_register_moves() {
        let read = DrAccess::from_raw(0x317);
        assert_eq!(
            read,
            DrAccess {
                dr: 7,
                read: true,
                reg: Reg::Rbx
            }
        );
        assert!(!DrAccess::from_raw(0x006).read);
    }

    #[test]
    fn ept_violations() {
        let write = EptViolation::from_bits_retain(0x182);
        assert!(write.contains(EptViolation::WRITE));
        assert!(write.is_instruction_access() && !write.was_present());
        let walk = EptViolation::from_bits_retain(0x81);
        assert!(!walk.is_instruction_access());
        let read_only = EptViolation::from_bits_retain(0x1aa);
        assert!(read_only.was_present());
    }

    #[test]
    fn task_switches() {
        let gate = TaskSwitchQualification::from_raw(0xc000_0028);
        assert_eq!(gate.tss_selector, 0x28);
        assert_eq!(gate.reason, TaskSwitchReason::IdtGate);
        assert_eq!(
            TaskSwitchQualification::from_raw(0x4000_0000).reason,
            TaskSwitchReason::Iret
        );
    }

    #[test]
    fn invvpid_operand() {
        // invvpid rcx, [rbx + rsi*4] in 64-bit mode: no segment override, DS.
        let raw = 2 | 2 << 7 | 3 << 15 | 6 << 18 | 3 << 23 | 1 << 28;
        let operand = MemoryOperand::from_raw(raw).unwrap();
        assert_eq!(operand.index, Some(Reg::Rsi));
        assert_eq!(operand.base, Some(Reg::Rbx));
        assert_eq!((operand.scale, operand.reg2), (2, Reg::Rcx));
        let absolute = MemoryOperand::from_raw(raw | 1 << 22 | 1 << 27).unwrap();
        assert_eq!((absolute.index, absolute.base), (None, None));
    }
}
