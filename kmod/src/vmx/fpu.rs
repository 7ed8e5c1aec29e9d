//! The guest's x87, SSE, AVX and AVX-512 state (SDM vol. 1, chapter 13). The host thread's
//! state is saved by `host_world_begin` and comes back by `host_world_end`; between them
//! the registers are the guest's from the first entry to the last exit, XCR0 included.
//!
//! The components that a guest can have are those of `vmm_core::cpu::xcr0::allowed`; they
//! are saved and restored under the host's XCR0, whatever the guest's own XCR0 is, so that
//! what it turned off is still there when it turns it on again. Components that it can't
//! have (PKRU, say) are left alone and stay the host thread's.

use vmm_core::cpu::xcr0;
use vmm_core::types::{Errno, PAGE_SIZE};

use super::cpu;
use crate::host::mem::Pages;

/// CR4.OSXSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;
/// FCW after FNINIT, in the legacy area's first word.
const FCW_INIT: u16 = 0x37f;
/// MXCSR after a reset.
const MXCSR_INIT: u32 = 0x1f80;

/// The host's XCR0, 0 when it doesn't use XSAVE.
pub fn host_xcr0() -> u64 {
    if cpu::read_cr4() & CR4_OSXSAVE == 0 {
        return 0;
    }
    // SAFETY: CR4.OSXSAVE is set.
    unsafe { cpu::xgetbv0() }
}

/// Where the standard format ends that holds all of `components` (CPUID.(EAX=0DH)).
fn area_size(components: u64) -> u32 {
    (2..63)
        .filter(|i| components & 1 << i != 0)
        .map(|i| cpu::cpuid(0xd, i))
        .map(|c| c.ebx.saturating_add(c.eax))
        .fold(512 + 64, u32::max)
}

/// One vcpu's state, in memory while it doesn't run.
pub struct GuestFpu {
    area: Pages,
    /// The guest's XCR0.
    xcr0: u64,
    /// What it may be; 0 when the host has no XSAVE and FXSAVE has to do.
    allowed: u64,
    host_xcr0: u64,
}

impl GuestFpu {
    /// In the initial state. Context: thread.
    pub fn new() -> Result<Self, Errno> {
        let host_xcr0 = host_xcr0();
        let allowed = xcr0::allowed(host_xcr0);
        let pages = area_size(allowed).div_ceil(PAGE_SIZE as u32);
        let mut fpu = Self {
            area: Pages::new(pages)?,
            xcr0: xcr0::X87,
            allowed,
            host_xcr0,
        };
        fpu.reset();
        Ok(fpu)
    }

    /// Back to the initial state: XSTATE_BV 0 makes XRSTOR initialize every component.
    pub fn reset(&mut self) {
        let bytes = self.area.bytes_mut();
        bytes.fill(0);
        bytes[..2].copy_from_slice(&FCW_INIT.to_le_bytes());
        bytes[24..28].copy_from_slice(&MXCSR_INIT.to_le_bytes());
        self.xcr0 = xcr0::X87;
    }

    /// The guest's XCR0.
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// What the guest may load into XCR0; 0 when it has no XSAVE.
    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    /// XSETBV by the guest, checked by the caller (`xcr0::valid`): between enter and leave.
    pub fn set_xcr0(&mut self, value: u64) {
        debug_assert!(xcr0::valid(value, self.allowed));
        self.xcr0 = value;
        // SAFETY: the host uses XSAVE (allowed is not 0), and its XCR0 has these
        // components; leave() puts the host's value back.
        unsafe { cpu::xsetbv0(value) };
    }

    /// The guest's state into the CPU. Within `World`.
    pub fn enter(&self) {
        let area = self.area.as_mut_ptr().cast_const();
        // SAFETY: within World CR0.TS is clear and the host thread's state is saved; the
        // area is page-aligned, as long as `allowed` needs, and holds an initial state or
        // what leave() stored. The host's XCR0 has every component of `allowed`.
        unsafe {
            if self.allowed == 0 {
                cpu::fxrstor(area);
            } else {
                cpu::xrstor(area, self.allowed);
                if self.xcr0 != self.host_xcr0 {
                    cpu::xsetbv0(self.xcr0);
                }
            }
        }
    }

    /// The guest's state out of the CPU, the host's XCR0 into it. Within `World`.
    pub fn leave(&mut self) {
        let area = self.area.as_mut_ptr();
        // SAFETY: as enter(); the area is ours alone (&mut self).
        unsafe {
            if self.allowed == 0 {
                cpu::fxsave(area);
            } else {
                if self.xcr0 != self.host_xcr0 {
                    cpu::xsetbv0(self.host_xcr0);
                }
                cpu::xsave(area, self.allowed);
            }
        }
    }
}
