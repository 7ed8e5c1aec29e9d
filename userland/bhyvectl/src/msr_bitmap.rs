//! The MSR bitmap of the control structure: one bit per MSR and direction, clear when the
//! guest's access causes no exit (SDM vol. 3C, 25.6.9; on AMD's CPUs APM vol. 2, 15.11).

use crate::platform::Vendor;

/// MSRs in each range.
const RANGE: u32 = 0x2000;
const HIGH: u32 = 0xc000_0000;
const AMD_HIGH: u32 = 0xc001_0000;

/// Bytes of the bitmap.
pub fn len(vendor: Vendor) -> usize {
    match vendor {
        Vendor::Intel => 4096,
        Vendor::Amd => 8192,
    }
}

/// A line for each MSR that the guest may read or write itself.
pub fn lines(bitmap: &[u8], vendor: Vendor, vcpu: u16) -> Vec<String> {
    let bases: &[u32] = match vendor {
        Vendor::Intel => &[0, HIGH],
        Vendor::Amd => &[0, HIGH, AMD_HIGH],
    };
    let mut lines = Vec::new();
    for index in 0..RANGE {
        for (range, base) in bases.iter().enumerate() {
            let (read, write) = passed(bitmap, vendor, range, index as usize);
            if read || write {
                let letters = [if read { 'R' } else { '-' }, if write { 'W' } else { '-' }];
                let name = name(base + index);
                lines.push(format!(
                    "{name:<20}[{vcpu}]\t\t{}{}",
                    letters[0], letters[1]
                ));
            }
        }
    }
    lines
}

/// Whether reads and writes pass.
fn passed(bitmap: &[u8], vendor: Vendor, range: usize, index: usize) -> (bool, bool) {
    let clear = |byte: usize, bit: usize| bitmap.get(byte).is_some_and(|b| b >> bit & 1 == 0);
    match vendor {
        // 1 KiB each: reads of the low and high range, then writes.
        Vendor::Intel => {
            let byte = 1024 * range + index / 8;
            (clear(byte, index % 8), clear(2048 + byte, index % 8))
        }
        // 2 KiB each, two bits per MSR: read, write.
        Vendor::Amd => {
            let (byte, bit) = (2048 * range + index / 4, index % 4 * 2);
            (clear(byte, bit), clear(byte, bit + 1))
        }
    }
}

fn name(msr: u32) -> String {
    let name = match msr {
        0x10 => "MSR_TSC",
        0x174 => "MSR_SYSENTER_CS_MSR",
        0x175 => "MSR_SYSENTER_ESP_MSR",
        0x176 => "MSR_SYSENTER_EIP_MSR",
        0x277 => "MSR_PAT",
        0xc000_0080 => "MSR_EFER",
        0xc000_0081 => "MSR_STAR",
        0xc000_0082 => "MSR_LSTAR",
        0xc000_0083 => "MSR_CSTAR",
        0xc000_0084 => "MSR_SF_MASK",
        0xc000_0100 => "MSR_FSBASE",
        0xc000_0101 => "MSR_GSBASE",
        0xc000_0102 => "MSR_KGSBASE",
        // C's %#08x: eight columns with the 0x, which zero goes without.
        0 => return "MSR       00000000".to_owned(),
        _ => return format!("MSR       {msr:#08x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_bits_are_listed_by_name_and_direction() {
        let mut bitmap = vec![0xff; 4096];
        bitmap[0x10 / 8] &= !1;
        bitmap[1024 + 0x80 / 8] &= !1;
        bitmap[3072 + 0x80 / 8] &= !1;
        bitmap[2048 + 0x48 / 8] &= !1;
        assert_eq!(
            lines(&bitmap, Vendor::Intel, 0),
            [
                "MSR_TSC             [0]\t\tR-",
                "MSR       0x000048  [0]\t\t-W",
                "MSR_EFER            [0]\t\tRW",
            ]
        );
        let mut bitmap = vec![0xff; 8192];
        bitmap[4096 + 0x15 / 4] &= !(0b01 << 2);
        assert_eq!(
            lines(&bitmap, Vendor::Amd, 1),
            ["MSR       0xc0010015[1]\t\tR-"]
        );
    }
}
