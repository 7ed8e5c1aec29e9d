//! MSI-X (PCI Local Bus 3.0, 6.8.2): the capability, the table of vectors and the pending
//! bits. Table and pending bits share a BAR, the bits on a page of their own behind the
//! table, as in bhyve.

#![forbid(unsafe_code)]

use super::interrupts::Message;
use crate::ports::Width;

/// Capability ID.
pub const ID: u8 = 0x11;
/// The most vectors of a function.
pub const MAX_VECTORS: u16 = 2048;
/// Of the whole capability.
pub const LEN: usize = 12;

const ENTRY_LEN: usize = 16;
const PAGE: usize = 4096;

const CONTROL_FUNCTION_MASK: u8 = 1 << 6;
const CONTROL_ENABLE: u8 = 1 << 7;
/// Of a table entry's vector control.
const MASKED: u32 = 1;

/// A vector: address low and high, data, vector control.
type Entry = [u32; ENTRY_LEN / 4];

/// State of a function's MSI-X.
#[derive(Clone, Debug)]
pub struct Msix {
    bar: u8,
    /// The upper byte of message control, which has the only bits that can be written.
    control: u8,
    table: Vec<Entry>,
    pending: Vec<u64>,
}

impl Msix {
    /// For 1 to 2048 vectors, in that BAR.
    pub fn new(bar: usize, vectors: u16) -> Self {
        debug_assert!((1..=MAX_VECTORS).contains(&vectors) && bar < super::bar::BARS);
        let vectors = usize::from(vectors);
        Self {
            bar: bar as u8,
            control: 0,
            table: vec![[0, 0, 0, MASKED]; vectors],
            pending: vec![0; vectors.div_ceil(64)],
        }
    }

    /// How much the BAR must hold.
    pub fn bar_size(vectors: u16) -> u64 {
        let vectors = usize::from(vectors);
        (pending_offset(vectors) + vectors.div_ceil(64) * 8) as u64
    }

    /// The byte at an offset behind the capability's two first ones.
    pub fn read(&self, offset: usize) -> u8 {
        let [size_low, size_high] = (self.table.len() as u16 - 1).to_le_bytes();
        let pending = (pending_offset(self.table.len()) as u32 | u32::from(self.bar)).to_le_bytes();
        match offset {
            0 => size_low,
            1 => size_high | self.control,
            // The table begins the BAR.
            2 => self.bar,
            6..=9 => pending[offset - 6],
            _ => 0,
        }
    }

    /// Writes that byte. The answer is what was pending and can be sent now.
    pub fn write(&mut self, offset: usize, value: u8) -> Vec<Message> {
        if offset != 1 {
            return Vec::new();
        }
        self.control = value & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        (0..self.table.len())
            .filter_map(|vector| self.release(vector))
            .collect()
    }

    pub fn enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// The message of a vector. A masked one becomes pending instead.
    pub fn raise(&mut self, vector: u16) -> Option<Message> {
        let vector = usize::from(vector);
        if !self.enabled() || vector >= self.table.len() {
            return None;
        }
        self.pending[vector / 64] |= 1 << (vector % 64);
        self.release(vector)
    }

    /// Reads table or pending bits.
    pub fn bar_read(&self, offset: u64, width: Width) -> u32 {
        (0..u64::from(width.bytes())).rev().fold(0, |value, n| {
            value << 8 | u32::from(self.byte(offset.saturating_add(n)))
        })
    }

    /// Writes the table: whole aligned double words (6.8.2: anything else is undefined).
    /// The answer is a message that was pending until it was unmasked here.
    pub fn bar_write(&mut self, offset: u64, width: Width, value: u32) -> Option<Message> {
        if width != Width::Dword || offset % 4 != 0 {
            return None;
        }
        let word = usize::try_from(offset / 4).ok()?;
        let (vector, register) = (word / 4, word % 4);
        let entry = self.table.get_mut(vector)?;
        entry[register] = match register {
            0 => value & !3,
            3 => value & MASKED,
            _ => value,
        };
        self.release(vector)
    }

    /// Takes a pending vector that nothing masks.
    fn release(&mut self, vector: usize) -> Option<Message> {
        let [address_low, address_high, data, control] = self.table[vector];
        let (word, bit) = (vector / 64, 1 << (vector % 64));
        if !self.enabled()
            || self.control & CONTROL_FUNCTION_MASK != 0
            || control & MASKED != 0
            || self.pending[word] & bit == 0
        {
            return None;
        }
        self.pending[word] &= !bit;
        Some(Message {
            address: u64::from(address_high) << 32 | u64::from(address_low),
            data,
        })
    }

    fn byte(&self, offset: u64) -> u8 {
        let Ok(offset) = usize::try_from(offset) else {
            return 0;
        };
        if let Some(entry) = self.table.get(offset / ENTRY_LEN) {
            return entry[offset % ENTRY_LEN / 4].to_le_bytes()[offset % 4];
        }
        offset
            .checked_sub(pending_offset(self.table.len()))
            .and_then(|offset| Some(self.pending.get(offset / 8)?.to_le_bytes()[offset % 8]))
            .unwrap_or(0)
    }
}

fn pending_offset(vectors: usize) -> usize {
    (vectors * ENTRY_LEN).next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: u64 = 0x2_fee0_3000;

    fn with_vectors(vectors: u16) -> Msix {
        let mut msix = Msix::new(1, vectors);
        for vector in 0..u64::from(vectors) {
            let at = vector * 16;
            msix.bar_write(at, Width::Dword, ADDRESS as u32);
            msix.bar_write(at + 4, Width::Dword, (ADDRESS >> 32) as u32);
            msix.bar_write(at + 8, Width::Dword, 0x4000 + vector as u32);
        }
        msix
    }

    fn message(vector: u32) -> Message {
        Message {
            address: ADDRESS,
            data: 0x4000 + vector,
        }
    }

    #[test]
    fn vectors_start_masked_and_are_sent_when_unmasked() {
        let mut msix = with_vectors(3);
        assert_eq!(msix.raise(0), None, "MSI-X is off");
        assert!(
            msix.write(1, CONTROL_ENABLE).is_empty(),
            "and nothing was kept"
        );
        assert_eq!(msix.raise(2), None, "masked");
        assert_eq!(msix.bar_read(4096, Width::Dword), 1 << 2, "pending");
        assert_eq!(
            msix.bar_write(2 * 16 + 12, Width::Dword, 0),
            Some(message(2))
        );
        assert_eq!(msix.bar_read(4096, Width::Dword), 0);
        assert_eq!(msix.raise(2), Some(message(2)));
        assert_eq!(msix.raise(3), None, "there is no such vector");
    }

    #[test]
    fn the_function_mask_holds_all_vectors_back() {
        let mut msix = with_vectors(66);
        msix.write(1, CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        msix.bar_write(12, Width::Dword, 0);
        msix.bar_write(65 * 16 + 12, Width::Dword, 0);
        for vector in [0, 1, 65] {
            assert_eq!(msix.raise(vector), None);
        }
        assert_eq!(msix.bar_read(4096, Width::Dword), 3);
        assert_eq!(msix.bar_read(4096 + 8, Width::Byte), 2);
        assert_eq!(msix.write(1, CONTROL_ENABLE), [message(0), message(65)]);
        assert_eq!(
            msix.bar_read(4096, Width::Word),
            2,
            "vector 1 has its own mask"
        );
    }

    #[test]
    fn the_capability_names_size_and_places() {
        let msix = Msix::new(1, 300);
        let bytes: Vec<u8> = (0..LEN - 2).map(|n| msix.read(n)).collect();
        assert_eq!(bytes, [43, 1, 1, 0, 0, 0, 1, 0x20, 0, 0]);
        assert_eq!(Msix::bar_size(300), 0x2000 + 5 * 8);
        assert_eq!(Msix::bar_size(1), 0x1000 + 8);
    }

    #[test]
    fn only_aligned_double_words_change_the_table() {
        let mut msix = Msix::new(0, 1);
        msix.bar_write(8, Width::Word, 0x1234);
        msix.bar_write(9, Width::Dword, 0x1234);
        assert_eq!(msix.bar_read(8, Width::Dword), 0);
        msix.bar_write(8, Width::Dword, 0x1234_5678);
        assert_eq!(msix.bar_read(9, Width::Word), 0x3456);
        msix.bar_write(0, Width::Dword, u32::MAX);
        assert_eq!(msix.bar_read(0, Width::Dword), !3);
        assert_eq!(msix.bar_read(12, Width::Byte), 1, "masked from the start");
    }

    proptest! {
        #[test]
        fn no_access_is_out_of_bounds(
            vectors in 1u16..=2048,
            ops in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u16>()), 0..40),
        ) {
            let mut msix = Msix::new(5, vectors);
            for (offset, value, vector) in ops {
                for offset in [offset, offset % 0x9000] {
                    msix.bar_read(offset, Width::Dword);
                    msix.bar_write(offset & !3, Width::Dword, value);
                    msix.write(offset as usize % 16, value as u8);
                    msix.read(offset as usize);
                }
                msix.raise(vector);
            }
        }
    }
}
