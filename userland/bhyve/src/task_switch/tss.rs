//! The task-state segment as it is in memory: 104 bytes for 32-bit tasks, 44 for 16-bit ones
//! (SDM vol. 3A, figures 8-2 and 8-10).

#![forbid(unsafe_code)]

use std::ops::Range;

use super::descriptor::{Selector, TssFormat};

/// The most bytes of it that are of interest.
pub const MAX_LEN: usize = 104;

/// Where the selector of the previous task is, in either format.
pub const LINK: Range<usize> = 0..2;

/// What a task switch loads; all but CR3, LDT and the trap flag it also saves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Task {
    pub ip: u32,
    pub flags: u32,
    /// In the order of their numbers: AX, CX, DX, BX, SP, BP, SI, DI.
    pub general: [u32; 8],
    /// ES, CS, SS, DS, FS, GS. A 16-bit task has no FS and GS.
    pub selectors: [u16; 6],
    pub ldt: u16,
    /// A 16-bit task keeps the page tables.
    pub cr3: Option<u32>,
    /// A debug exception is due when the task begins.
    pub trap: bool,
}

impl TssFormat {
    /// The smallest TSS.
    pub const fn size(self) -> usize {
        match self {
            Self::Bits16 => 44,
            Self::Bits32 => MAX_LEN,
        }
    }

    /// What is saved of the task that is left: IP to the last selector.
    pub const fn saved(self) -> Range<usize> {
        match self {
            Self::Bits16 => 0x0e..0x2a,
            Self::Bits32 => 0x20..0x5e,
        }
    }
}

impl Task {
    /// Puts what is saved into an image of the TSS.
    pub fn save(&self, format: TssFormat, image: &mut [u8; MAX_LEN]) {
        let words = [self.ip, self.flags].into_iter().chain(self.general);
        match format {
            TssFormat::Bits32 => {
                for (n, word) in words.enumerate() {
                    put(image, 0x20 + 4 * n, &word.to_le_bytes());
                }
                for (n, selector) in self.selectors.into_iter().enumerate() {
                    put(image, 0x48 + 4 * n, &selector.to_le_bytes());
                }
            }
            TssFormat::Bits16 => {
                for (n, word) in words.enumerate() {
                    put(image, 0x0e + 2 * n, &(word as u16).to_le_bytes());
                }
                for (n, selector) in self.selectors.into_iter().take(4).enumerate() {
                    put(image, 0x22 + 2 * n, &selector.to_le_bytes());
                }
            }
        }
    }

    /// Takes a task from an image of its TSS.
    pub fn load(format: TssFormat, image: &[u8; MAX_LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let dword = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
        match format {
            TssFormat::Bits32 => Self {
                ip: dword(0x20),
                flags: dword(0x24),
                general: std::array::from_fn(|n| dword(0x28 + 4 * n)),
                selectors: std::array::from_fn(|n| word(0x48 + 4 * n)),
                ldt: word(0x60),
                cr3: Some(dword(0x1c)),
                trap: word(0x64) & 1 != 0,
            },
            TssFormat::Bits16 => Self {
                ip: word(0x0e).into(),
                flags: word(0x10).into(),
                // The upper halves are undefined then; CPUs set them.
                general: std::array::from_fn(|n| 0xffff_0000 | u32::from(word(0x12 + 2 * n))),
                selectors: std::array::from_fn(|n| if n < 4 { word(0x22 + 2 * n) } else { 0 }),
                ldt: word(0x2a),
                cr3: None,
                trap: false,
            },
        }
    }

    /// The selector of CS.
    pub fn cs(&self) -> Selector {
        Selector(self.selectors[1])
    }
}

fn put(image: &mut [u8; MAX_LEN], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task {
            ip: 0x1111_2222,
            flags: 0x0000_3202,
            general: [1, 2, 3, 4, 5, 6, 7, 0x8888_9999],
            selectors: [0x10, 0x18, 0x20, 0x28, 0x30, 0x38],
            ..Task::default()
        }
    }

    #[test]
    fn a_32_bit_task_comes_back_as_it_was_saved() {
        let mut image = [0xff; MAX_LEN];
        task().save(TssFormat::Bits32, &mut image);
        let saved = TssFormat::Bits32.saved();
        assert_eq!(image[..saved.start], [0xff; 0x20]);
        assert_eq!(image[saved.end..], [0xff; MAX_LEN - 0x5e]);
        let loaded = Task::load(TssFormat::Bits32, &image);
        let expected = Task {
            ldt: 0xffff,
            cr3: Some(u32::MAX),
            trap: true,
            ..task()
        };
        assert_eq!(loaded, expected);
    }

    #[test]
    fn a_16_bit_task_has_the_lower_halves() {
        let mut image = [0; MAX_LEN];
        task().save(TssFormat::Bits16, &mut image);
        assert_eq!(image[0x2a..], [0; MAX_LEN - 0x2a]);
        let loaded = Task::load(TssFormat::Bits16, &image);
        assert_eq!((loaded.ip, loaded.flags), (0x2222, 0x3202));
        assert_eq!(
            (loaded.general[0], loaded.general[7]),
            (0xffff_0001, 0xffff_9999)
        );
        assert_eq!(loaded.selectors, [0x10, 0x18, 0x20, 0x28, 0, 0]);
        assert_eq!(loaded.cr3, None);
    }
}
