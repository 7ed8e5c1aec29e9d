//! Selectors and segment descriptors as a task switch reads them (SDM vol. 3A, 3.4.2 and
//! 3.4.5), with what may be loaded into which register.

#![forbid(unsafe_code)]

use vmmapi::SegDesc;

/// A segment selector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selector(pub u16);

impl Selector {
    /// Whether it names no descriptor at all.
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    /// Whether it is of the LDT.
    pub const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Where its descriptor begins in the table.
    pub const fn offset(self) -> u32 {
        (self.0 & !7) as u32
    }

    /// The error code of an exception about it (6.13).
    pub const fn error_code(self, external: bool) -> u32 {
        (self.0 & !3) as u32 | external as u32
    }
}

/// Access rights as in SDM table 25-2, the low byte being byte 5 of a descriptor.
mod access {
    pub const TYPE: u32 = 0xf;
    pub const ACCESSED: u32 = 1 << 0;
    pub const READ_WRITE: u32 = 1 << 1;
    pub const BUSY: u32 = 1 << 1;
    pub const CONFORMING: u32 = 1 << 2;
    pub const CODE: u32 = 1 << 3;
    /// A system segment has it clear.
    pub const CODE_OR_DATA: u32 = 1 << 4;
    pub const DPL_SHIFT: u32 = 5;
    pub const PRESENT: u32 = 1 << 7;
    pub const BIG: u32 = 1 << 14;
    pub const GRANULAR: u32 = 1 << 15;
    pub const UNUSABLE: u32 = 1 << 16;
}

const TYPE_LDT: u32 = 2;
const TYPE_TSS16: u32 = 1;
const TYPE_TSS32: u32 = 9;

/// A register that is loaded with no segment.
pub const UNUSABLE: SegDesc = SegDesc {
    base: 0,
    limit: 0,
    access: access::UNUSABLE,
};

/// What a segment is to be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Ldt,
    Code,
    Stack,
    Data,
}

/// The layout of a TSS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TssFormat {
    Bits16,
    Bits32,
}

/// The eight bytes of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Byte 5 and the upper half of byte 6.
    fn access(self) -> u32 {
        (self.0 >> 40) as u32 & 0xf0ff
    }

    pub fn present(self) -> bool {
        self.access() & access::PRESENT != 0
    }

    pub fn dpl(self) -> u8 {
        dpl(self.access())
    }

    /// In bytes, less one.
    pub fn limit(self) -> u32 {
        let limit = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.access() & access::GRANULAR != 0 {
            limit << 12 | 0xfff
        } else {
            limit
        }
    }

    pub fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000
    }

    /// For the hidden part of a segment register.
    pub fn seg_desc(self) -> SegDesc {
        SegDesc {
            base: self.base(),
            limit: self.limit(),
            access: self.access(),
        }
    }

    /// The format, if it is of a TSS.
    pub fn tss(self) -> Option<TssFormat> {
        tss_format(&self.seg_desc())
    }

    /// Of a TSS.
    pub fn busy(self) -> bool {
        self.access() & access::BUSY != 0
    }

    #[must_use]
    pub fn with_busy(self, busy: bool) -> Self {
        let bit = u64::from(access::BUSY) << 40;
        Self(if busy { self.0 | bit } else { self.0 & !bit })
    }

    /// As it is in memory after it was loaded; system segments don't have this bit.
    #[must_use]
    pub fn with_accessed(self) -> Self {
        if self.access() & access::CODE_OR_DATA == 0 {
            return self;
        }
        Self(self.0 | u64::from(access::ACCESSED) << 40)
    }

    /// Whether its type is right for that use.
    pub fn is_for(self, wanted: Use) -> bool {
        let bits = self.access();
        let code = bits & access::CODE != 0;
        let readable_or_writable = bits & access::READ_WRITE != 0;
        if bits & access::CODE_OR_DATA == 0 {
            return wanted == Use::Ldt && bits & access::TYPE == TYPE_LDT;
        }
        match wanted {
            Use::Ldt => false,
            Use::Code => code,
            Use::Stack => !code && readable_or_writable,
            Use::Data => !code || readable_or_writable,
        }
    }

    /// Of a code or data segment: whether any privilege level may use it.
    pub fn conforming(self) -> bool {
        let code = access::CODE_OR_DATA | access::CODE | access::CONFORMING;
        self.access() & code == code
    }
}

/// The format of the TSS whose descriptor that is.
pub fn tss_format(desc: &SegDesc) -> Option<TssFormat> {
    if desc.access & (access::CODE_OR_DATA | access::UNUSABLE) != 0 {
        return None;
    }
    match desc.access & access::TYPE & !access::BUSY {
        TYPE_TSS16 => Some(TssFormat::Bits16),
        TYPE_TSS32 => Some(TssFormat::Bits32),
        _ => None,
    }
}

/// Whether an LDT or segment register has something loaded.
pub fn usable(desc: &SegDesc) -> bool {
    desc.access & access::UNUSABLE == 0 && desc.access & access::PRESENT != 0
}

/// Whether the stack pointer has 32 bits.
pub fn big(desc: &SegDesc) -> bool {
    desc.access & access::BIG != 0
}

/// The descriptor privilege level.
pub fn dpl(access: u32) -> u8 {
    (access >> access::DPL_SHIFT & 3) as u8
}

/// A segment register in virtual-8086 mode (SDM vol. 3B, 21.2.1).
pub fn virtual_8086(selector: Selector) -> SegDesc {
    SegDesc {
        base: u64::from(selector.0) << 4,
        limit: 0xffff,
        // Present, DPL 3, writable and accessed data.
        access: access::PRESENT | 3 << access::DPL_SHIFT | access::CODE_OR_DATA | 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flat 4 GiB code segment.
    const CODE: Descriptor = Descriptor(0x00cf_9a00_0000_ffff);

    #[test]
    fn fields_are_gathered() {
        assert_eq!((CODE.base(), CODE.limit(), CODE.dpl()), (0, u32::MAX, 0));
        let tss = Descriptor(0x1200_8934_5678_0067);
        assert_eq!((tss.base(), tss.limit()), (0x1234_5678, 0x67));
        assert_eq!(tss.tss(), Some(TssFormat::Bits32));
        assert!(!tss.busy() && tss.with_busy(true).busy());
        assert_eq!(tss.with_busy(true).with_busy(false), tss);
        assert_eq!(tss.with_accessed(), tss);
        assert_eq!(CODE.with_accessed().0, 0x00cf_9b00_0000_ffff);
        assert_eq!(
            Descriptor(0x0000_8300_0000_002b).tss(),
            Some(TssFormat::Bits16)
        );
        assert_eq!(CODE.tss(), None);
    }

    #[test]
    fn types_fit_their_uses() {
        let of_type = |kind: u64| Descriptor((0x90 | kind) << 40);
        let uses =
            |kind| [Use::Code, Use::Stack, Use::Data].map(|wanted| of_type(kind).is_for(wanted));
        assert_eq!(uses(0x0), [false, false, true], "read-only data");
        assert_eq!(uses(0x2), [false, true, true], "writable data");
        assert_eq!(uses(0x8), [true, false, false], "execute-only code");
        assert_eq!(uses(0xa), [true, false, true], "readable code");
        let ldt = Descriptor(0x82 << 40);
        assert!(ldt.is_for(Use::Ldt) && !ldt.is_for(Use::Data));
        assert!(!of_type(0x2).is_for(Use::Ldt));
        assert!(of_type(0xe).conforming() && !of_type(0xa).conforming());
        assert!(!of_type(0x6).conforming(), "that is expand-down data");
    }

    #[test]
    fn selectors_name_table_and_entry() {
        let selector = Selector(0x2f);
        assert!(selector.is_local() && !selector.is_null());
        assert_eq!((selector.offset(), selector.rpl()), (0x28, 3));
        assert_eq!(selector.error_code(false), 0x2c);
        assert_eq!(selector.error_code(true), 0x2d);
        assert!(Selector(3).is_null() && !Selector(4).is_null());
    }
}
