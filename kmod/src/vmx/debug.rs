//! The debug registers (SDM vol. 3B, chapter 18). VM entry and exit switch DR7 and
//! IA32_DEBUGCTL only. DR0 to DR3 and DR6 would cost twenty instructions per exit, and few
//! guests use them, so they stay the host's until the guest asks: MOV DR exits once, and
//! #DB, which writes DR6, exits too. From then on the run exchanges them around each entry
//! with interrupts off, and neither exits any more. A run begins with the guest's registers
//! loaded if its DR7 enables a breakpoint.

use super::cpu;

/// DR7 after a VM exit (SDM vol. 3C, 28.5.1), and with nothing enabled.
pub const DR7_INIT: u64 = 0x400;
/// DR7: L0 to L3 and G0 to G3.
const DR7_ENABLES: u64 = 0xff;
/// DR7.GD.
pub const DR7_GD: u64 = 1 << 13;
/// DR6 with no condition met.
pub const DR6_INIT: u64 = 0xffff_0ff0;
/// DR6: B0 to B3.
const DR6_B: u64 = 0xf;
/// DR6.BD, DR6.BS.
const DR6_BD: u64 = 1 << 13;
pub const DR6_BS: u64 = 1 << 14;
/// DR6.RTM, which reads 0 when the exception came inside a transaction.
const DR6_RTM: u64 = 1 << 16;

/// DR0 to DR3 and DR6.
#[derive(Clone, Copy)]
pub struct DebugRegs {
    pub dr: [u64; 4],
    pub dr6: u64,
}

impl DebugRegs {
    /// After a reset (SDM vol. 3A, table 10-1).
    pub const RESET: Self = Self {
        dr: [0; 4],
        dr6: DR6_INIT,
    };

    /// A #DB exit left DR6 alone: sets what its exit qualification says (28.2.1 and
    /// table 28-1), as delivery would have.
    pub fn note_db(&mut self, qualification: u64) {
        self.dr6 = self.dr6 & !DR6_B | qualification & (DR6_B | DR6_BD | DR6_BS);
        if qualification & DR6_RTM != 0 {
            self.dr6 &= !DR6_RTM;
        } else {
            self.dr6 |= DR6_RTM;
        }
    }

    #[cold]
    fn read() -> Self {
        Self {
            dr: [
                cpu::read_dr0(),
                cpu::read_dr1(),
                cpu::read_dr2(),
                cpu::read_dr3(),
            ],
            dr6: cpu::read_dr6(),
        }
    }

    /// # Safety
    /// DR7 has no breakpoint enabled, or these are what it was set for.
    #[cold]
    unsafe fn write(&self) {
        // SAFETY: the caller's promise; DR6 has its reserved bits as DR6_INIT has them.
        unsafe {
            cpu::write_dr0(self.dr[0]);
            cpu::write_dr1(self.dr[1]);
            cpu::write_dr2(self.dr[2]);
            cpu::write_dr3(self.dr[3]);
            cpu::write_dr6(self.dr6);
        }
    }
}

/// Whether a run has to begin with the guest's registers loaded.
pub fn wanted(dr7: u64) -> bool {
    dr7 & DR7_ENABLES != 0
}

/// The host's registers while a guest's are loaded.
pub struct HostDebugRegs {
    dr7: u64,
    regs: Option<DebugRegs>,
}

impl HostDebugRegs {
    /// Before an entry, interrupts off. `guest` is given if its registers are to be loaded.
    #[inline(always)]
    pub fn enter(guest: Option<&DebugRegs>) -> Self {
        let dr7 = cpu::read_dr7();
        let regs = guest.map(|guest| {
            let host = DebugRegs::read();
            // SAFETY: DR7 is the host's again in leave(); with nothing enabled the
            // guest's addresses mean nothing to the host's code on the way.
            unsafe {
                cpu::write_dr7(DR7_INIT);
                guest.write();
            }
            host
        });
        Self { dr7, regs }
    }

    /// After the exit, interrupts still off.
    #[inline(always)]
    pub fn leave(self, guest: &mut DebugRegs) {
        if let Some(host) = self.regs {
            *guest = DebugRegs::read();
            // SAFETY: DR7 is DR7_INIT after a VM exit and after enter(); these are the
            // host's values.
            unsafe { host.write() };
        }
        if self.dr7 != DR7_INIT {
            // SAFETY: the host's own value.
            unsafe { cpu::write_dr7(self.dr7) };
        }
    }
}
