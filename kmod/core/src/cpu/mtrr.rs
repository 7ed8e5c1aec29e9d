//! The memory type range registers (SDM vol. 3A, 12.11), kept so that a guest reads back
//! what it wrote. They have no effect: EPT gives the memory type.

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

/// One vcpu's MTRRs; after reset all of them are off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mtrrs {
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

impl Mtrrs {
    pub fn read(&self, code: u32) -> Result<u64, Refused> {
        Ok(match register(code)? {
            // WC, fixed ranges, and the count of variable ones.
            Register::Cap => 1 << 10 | 1 << 8 | VARIABLE as u64,
            Register::DefType => self.def_type,
            Register::Fixed(i) => self.fixed[i],
            Register::Base(i) | Register::Mask(i) => self.variable[i],
        })
    }

    /// `maxphyaddr`: bits of a physical address.
    pub fn write(&mut self, code: u32, value: u64, maxphyaddr: u8) -> Result<(), Refused> {
        // What neither an address nor a type has: bits from MAXPHYADDR up, and 11:8.
        let too_high = u64::MAX.checked_shl(maxphyaddr.into()).unwrap_or(0);
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
        let mut mtrrs = Mtrrs::default();
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
            assert_eq!(mtrrs.read(code), Ok(0), "{code:#x} after reset");
            mtrrs.write(code, value(i, code), BITS).unwrap();
        }
        for (i, &code) in all.iter().enumerate() {
            assert_eq!(mtrrs.read(code), Ok(value(i, code)), "{code:#x}");
        }
    }

    #[test]
    fn what_is_refused() {
        let mut mtrrs = Mtrrs::default();
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
            assert_eq!(
                mtrrs.write(code, value, BITS),
                Err(Refused),
                "{code:#x} {value:#x}"
            );
        }
        assert_eq!(mtrrs, Mtrrs::default());
        assert!(
            mtrrs
                .write(PHYSMASK9, (1 << BITS) - 0x1000 + 0x800, BITS)
                .is_ok()
        );
    }
}
