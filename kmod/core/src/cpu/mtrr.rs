//! The memory type range registers (SDM vol. 3A, 12.11), kept so that a guest reads back
//! what it wrote. They have no effect: EPT gives the memory type.
//!
//! A CPU's are off after power-on, and firmware sets them. A kernel that bhyveload starts
//! has no firmware before it, and takes MTRRs that are off for a reason not to use PAT;
//! so they begin as firmware would leave them.

/// Variable ranges, as many as FreeBSD's vmm has.
pub const VARIABLE: usize = 10;

pub const MTRRCAP: u32 = 0xfe;
pub const PHYSBASE0: u32 = 0x200;
pub const PHYSMASK9: u32 = PHYSBASE0 + 2 * VARIABLE as u32 - 1;
pub const FIX64K_00000: u32 = 0x250;
pub const FIX16K_80000: u32 = 0x258;
pub const FIX16K_A0000: u32 = 0x259;
pub const FIX4K_C0000: u32 = 0x268;
pub const FIX4K_F8000: u32 = 0x26f;
pub const DEF_TYPE: u32 = 0x2ff;

/// One vcpu's MTRRs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mtrrs {
    /// Bits of a physical address.
    maxphyaddr: u8,
    def_type: u64,
    /// 64K, two 16K, eight 4K.
    fixed: [u64; 11],
    /// PHYSBASEn and PHYSMASKn alternate, as their numbers do.
    variable: [u64; 2 * VARIABLE],
}

/// The MSR is not there, or does not take the value: #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

enum Register {
    Cap,
    DefType,
    Fixed(usize),
    Base(usize),
    Mask(usize),
}

const UC: u64 = 0;
const WB: u64 = 6;
const FIXED_ENABLE: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
/// PHYSMASKn.
const VALID: u64 = 1 << 11;
/// A byte per range.
const ALL_WB: u64 = WB * 0x0101_0101_0101_0101;
/// Memory below 4 GiB ends here at the latest (bhyve's limit); PCI, the I/O APIC, the HPET
/// and the local APICs follow, in a range of 1 GiB.
const DEVICES: u64 = 0xc000_0000;
const DEVICES_SIZE: u64 = 1 << 30;

impl Mtrrs {
    /// As firmware leaves them: all is write-back but VGA's memory, adapters' ROMs and the
    /// devices below 4 GiB. `maxphyaddr`: bits of a physical address.
    pub fn new(maxphyaddr: u8) -> Self {
        let mut mtrrs = Self {
            maxphyaddr,
            def_type: ENABLE | FIXED_ENABLE | WB,
            fixed: [UC; 11],
            variable: [0; 2 * VARIABLE],
        };
        // 640 KiB.
        mtrrs.fixed[0] = ALL_WB;
        mtrrs.fixed[1] = ALL_WB;
        let to_4_gib = !(DEVICES_SIZE - 1) & !mtrrs.too_high();
        mtrrs.variable[0] = DEVICES | UC;
        mtrrs.variable[1] = to_4_gib | VALID;
        mtrrs
    }

    pub const fn maxphyaddr(&self) -> u8 {
        self.maxphyaddr
    }

    /// What an address doesn't have: bits from MAXPHYADDR up.
    fn too_high(&self) -> u64 {
        u64::MAX.checked_shl(self.maxphyaddr.into()).unwrap_or(0)
    }

    pub fn read(&self, code: u32) -> Result<u64, Refused> {
        Ok(match register(code)? {
            // WC, fixed ranges, and the count of variable ones.
            Register::Cap => 1 << 10 | 1 << 8 | VARIABLE as u64,
            Register::DefType => self.def_type,
            Register::Fixed(i) => self.fixed[i],
            Register::Base(i) | Register::Mask(i) => self.variable[i],
        })
    }

    pub fn write(&mut self, code: u32, value: u64) -> Result<(), Refused> {
        let too_high = self.too_high();
        let (slot, valid) = match register(code)? {
            Register::Cap => return Err(Refused),
            // Enable in bit 11, fixed-range enable in 10, type in 7:0.
            Register::DefType => (
                &mut self.def_type,
                value & !0xcff == 0 && is_type(value as u8),
            ),
            Register::Fixed(i) => (
                &mut self.fixed[i],
                value.to_le_bytes().into_iter().all(is_type),
            ),
            Register::Base(i) => {
                // Between address and type there is nothing.
                let valid = value & (too_high | 0xf00) == 0 && is_type(value as u8);
                (&mut self.variable[i], valid)
            }
            // Valid in bit 11.
            Register::Mask(i) => (&mut self.variable[i], value & (too_high | 0x7ff) == 0),
        };
        if !valid {
            return Err(Refused);
        }
        *slot = value;
        Ok(())
    }
}

fn register(code: u32) -> Result<Register, Refused> {
    Ok(match code {
        MTRRCAP => Register::Cap,
        DEF_TYPE => Register::DefType,
        FIX64K_00000 => Register::Fixed(0),
        FIX16K_80000..=FIX16K_A0000 => Register::Fixed(1 + (code - FIX16K_80000) as usize),
        FIX4K_C0000..=FIX4K_F8000 => Register::Fixed(3 + (code - FIX4K_C0000) as usize),
        PHYSBASE0..=PHYSMASK9 if code % 2 == 0 => Register::Base((code - PHYSBASE0) as usize),
        PHYSBASE0..=PHYSMASK9 => Register::Mask((code - PHYSBASE0) as usize),
        _ => return Err(Refused),
    })
}

/// UC, WC, WT, WP, WB (SDM table 12-8).
fn is_type(memory_type: u8) -> bool {
    matches!(memory_type, 0 | 1 | 4 | 5 | 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BITS: u8 = 46;

    #[test]
    fn each_register_keeps_its_own_value() {
        let mut mtrrs = Mtrrs::new(BITS);
        let fixed = [FIX64K_00000, FIX16K_80000, FIX16K_A0000]
            .into_iter()
            .chain(FIX4K_C0000..=FIX4K_F8000);
        let all: alloc::vec::Vec<u32> = fixed
            .chain(PHYSBASE0..=PHYSMASK9)
            .chain([DEF_TYPE])
            .collect();
        // 6 is a type, and in a mask register an address.
        let value = |i: usize, code: u32| match code {
            PHYSBASE0..=PHYSMASK9 if code % 2 == 1 => (i as u64) << 12 | 0x800,
            PHYSBASE0..=PHYSMASK9 => (i as u64) << 12 | 6,
            DEF_TYPE => 0xc06,
            _ => 0x0606_0606_0606_0600 | [0, 1, 4, 5, 6][i % 5],
        };
        for (i, &code) in all.iter().enumerate() {
            mtrrs.write(code, value(i, code)).unwrap();
        }
        for (i, &code) in all.iter().enumerate() {
            assert_eq!(mtrrs.read(code), Ok(value(i, code)), "{code:#x}");
        }
    }

    #[test]
    fn what_is_refused() {
        let mut mtrrs = Mtrrs::new(BITS);
        assert_eq!(mtrrs.read(MTRRCAP), Ok(0x50a));
        let refused = [
            (MTRRCAP, 0x50a),
            (DEF_TYPE, 2),
            (DEF_TYPE, 0x1000),
            (DEF_TYPE, 1 << 63),
            (FIX64K_00000, 0x0606_0306_0606_0606),
            (FIX4K_F8000, 7),
            (PHYSBASE0, 3),
            (PHYSBASE0, 0x106),
            (PHYSBASE0, 1 << BITS),
            (PHYSBASE0 + 1, 0x400),
            (PHYSMASK9, 1 << BITS | 0x800),
            (PHYSMASK9 + 1, 0),
            (0x251, 0),
        ];
        for (code, value) in refused {
            let written = mtrrs.write(code, value);
            assert_eq!(written, Err(Refused), "{code:#x} {value:#x}");
        }
        assert_eq!(mtrrs, Mtrrs::new(BITS));
        assert_eq!(mtrrs.write(PHYSMASK9, (1 << BITS) - 0x1000 + 0x800), Ok(()));
    }

    #[test]
    fn they_begin_as_firmware_leaves_them() {
        for bits in [36, BITS, 52] {
            let mtrrs = Mtrrs::new(bits);
            assert_eq!(mtrrs.read(DEF_TYPE), Ok(0xc06));
            for code in [FIX64K_00000, FIX16K_80000] {
                assert_eq!(mtrrs.read(code), Ok(0x0606_0606_0606_0606));
            }
            for code in (FIX16K_A0000..=FIX16K_A0000).chain(FIX4K_C0000..=FIX4K_F8000) {
                assert_eq!(mtrrs.read(code), Ok(0), "{code:#x}");
            }
            // 0xc0000000 to 0xffffffff uncacheable.
            let mask = mtrrs.read(PHYSBASE0 + 1).unwrap();
            assert_eq!(mtrrs.read(PHYSBASE0), Ok(0xc000_0000));
            assert_eq!(mask, (1 << bits) - (1 << 30) + 0x800);
            for code in PHYSBASE0 + 2..=PHYSMASK9 {
                assert_eq!(mtrrs.read(code), Ok(0), "{code:#x}");
            }
            // A guest may write all of it back.
            let mut other = mtrrs;
            for code in (PHYSBASE0..=PHYSMASK9).chain([FIX64K_00000, DEF_TYPE]) {
                assert_eq!(other.write(code, mtrrs.read(code).unwrap()), Ok(()));
            }
            assert_eq!(other, mtrrs);
        }
    }
}
