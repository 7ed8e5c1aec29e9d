//! The local APIC of this CPU, in whichever mode it is (SDM vol. 3A, chapter 11).

use crate::cpu;

pub const ID: u16 = 0x20;
pub const VERSION: u16 = 0x30;
pub const TPR: u16 = 0x80;
pub const PPR: u16 = 0xa0;
pub const EOI: u16 = 0xb0;
pub const LDR: u16 = 0xd0;
pub const SVR: u16 = 0xf0;
pub const ISR: u16 = 0x100;
pub const IRR: u16 = 0x200;
pub const ESR: u16 = 0x280;
pub const ICR: u16 = 0x300;
pub const LVT_TIMER: u16 = 0x320;
pub const LVT_LINT0: u16 = 0x350;
pub const INITIAL_COUNT: u16 = 0x380;
pub const CURRENT_COUNT: u16 = 0x390;
pub const DIVIDE: u16 = 0x3e0;
pub const SELF_IPI: u16 = 0x3f0;

const APIC_BASE: u32 = 0x1b;
const EXTD: u64 = 1 << 10;
const EN: u64 = 1 << 11;
const MMIO: u64 = 0xfee0_0000;

/// What IA32_APIC_BASE says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Disabled,
    Xapic,
    X2apic,
}

pub fn base() -> u64 {
    // SAFETY: every CPU with an APIC has the MSR.
    unsafe { cpu::rdmsr(APIC_BASE) }
}

pub fn mode() -> Mode {
    match base() & (EN | EXTD) {
        EN => Mode::Xapic,
        0 => Mode::Disabled,
        _ => Mode::X2apic,
    }
}

/// Whether CPUID shows x2APIC mode.
pub fn has_x2apic() -> bool {
    cpu::cpuid(1, 0)[2] & 1 << 21 != 0
}

/// Enters a mode, through the disabled one where that is the way.
pub fn enter(to: Mode) {
    let rest = base() & !(EN | EXTD);
    let set = |bits| {
        // SAFETY: a mode change that the SDM allows.
        unsafe { cpu::wrmsr(APIC_BASE, rest | bits) }
    };
    match (mode(), to) {
        (from, to) if from == to => {}
        (_, Mode::Disabled) => set(0),
        (Mode::X2apic, Mode::Xapic) => {
            set(0);
            set(EN);
        }
        (_, Mode::Xapic) => set(EN),
        (_, Mode::X2apic) => {
            set(EN);
            set(EN | EXTD);
        }
    }
}

pub const fn msr(register: u16) -> u32 {
    0x800 + register as u32 / 16
}

/// The register's address in xAPIC mode.
pub const fn address(register: u16) -> *mut u32 {
    (MMIO + register as u64) as *mut u32
}

pub fn read(register: u16) -> u32 {
    // SAFETY: a register of the local APIC, which has no effect on memory.
    unsafe {
        match mode() {
            Mode::X2apic => cpu::rdmsr(msr(register)) as u32,
            _ => address(register).read_volatile(),
        }
    }
}

pub fn write(register: u16, value: u32) {
    // SAFETY: as read.
    unsafe {
        match mode() {
            Mode::X2apic => cpu::wrmsr(msr(register), value.into()),
            _ => address(register).write_volatile(value),
        }
    }
}

/// This CPU's id.
pub fn id() -> u32 {
    match mode() {
        Mode::X2apic => read(ID),
        _ => read(ID) >> 24,
    }
}

/// An IPI by id.
pub fn send(to: u32, low: u32) {
    match mode() {
        // SAFETY: the ICR in x2APIC mode.
        Mode::X2apic => unsafe { cpu::wrmsr(msr(ICR), u64::from(to) << 32 | u64::from(low)) },
        _ => {
            write(ICR + 16, to << 24);
            write(ICR, low);
        }
    }
}

/// A fixed interrupt to this CPU by the shorthand.
pub fn send_self(vector: u8) {
    send(0, 1 << 18 | 1 << 14 | u32::from(vector));
}

fn bit(base: u16, vector: u8) -> bool {
    read(base + u16::from(vector / 32) * 16) & 1 << (vector % 32) != 0
}

pub fn in_service(vector: u8) -> bool {
    bit(ISR, vector)
}

pub fn requested(vector: u8) -> bool {
    bit(IRR, vector)
}

/// Software enable; spurious interrupts have vector 0xff.
pub fn enable() {
    write(SVR, 1 << 8 | 0xff);
}
