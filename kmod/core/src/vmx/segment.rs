//! The guest's segment registers in the VMCS: which fields belong to which register, and
//! the access-rights field (SDM vol. 3C, 25.4.1, table 25-2).

use super::field::{self, Field, Natural};
use crate::regs::SegReg;

/// The four fields of a segment register; GDTR and IDTR have a base and a limit only.
#[derive(Clone, Copy, Debug)]
pub struct SegFields {
    pub selector: Option<Field<u16>>,
    pub base: Field<Natural>,
    pub limit: Field<u32>,
    pub access: Option<Field<u32>>,
}

impl SegFields {
    /// The fields of one register.
    pub const fn of(seg: SegReg) -> Self {
        macro_rules! segment {
            ($selector:ident $base:ident $limit:ident $access:ident) => {
                Self {
                    selector: Some(field::$selector),
                    base: field::$base,
                    limit: field::$limit,
                    access: Some(field::$access),
                }
            };
        }
        match seg {
            SegReg::Es => {
                segment!(GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS)
            }
            SegReg::Cs => {
                segment!(GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS)
            }
            SegReg::Ss => {
                segment!(GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS)
            }
            SegReg::Ds => {
                segment!(GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS)
            }
            SegReg::Fs => {
                segment!(GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS)
            }
            SegReg::Gs => {
                segment!(GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS)
            }
            SegReg::Ldtr => segment!(
                GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_ACCESS_RIGHTS
            ),
            SegReg::Tr => {
                segment!(GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_ACCESS_RIGHTS)
            }
            SegReg::Gdtr => Self {
                selector: None,
                base: field::GUEST_GDTR_BASE,
                limit: field::GUEST_GDTR_LIMIT,
                access: None,
            },
            SegReg::Idtr => Self {
                selector: None,
                base: field::GUEST_IDTR_BASE,
                limit: field::GUEST_IDTR_LIMIT,
                access: None,
            },
        }
    }
}

/// An access-rights field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessRights(pub u32);

impl AccessRights {
    /// Bit 16: loaded with a null selector (or by a VM exit's choice).
    pub const UNUSABLE: Self = Self(1 << 16);
    /// Bits 11:8 and 31:17.
    pub const RESERVED: u32 = 0xf00 | 0xfffe_0000;

    /// Bits 3:0: for code and data the descriptor's type (SDM table 3-1), for LDTR and TR
    /// the system type (table 3-2).
    pub const fn segment_type(self) -> u8 {
        self.0 as u8 & 0xf
    }
    /// Bit 4, S: a code or data segment.
    pub const fn code_or_data(self) -> bool {
        self.0 & 1 << 4 != 0
    }
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5) as u8 & 3
    }
    pub const fn present(self) -> bool {
        self.0 & 1 << 7 != 0
    }
    /// Bit 13, L: 64-bit mode (CS only).
    pub const fn long(self) -> bool {
        self.0 & 1 << 13 != 0
    }
    /// Bit 14, D/B: 32-bit default size.
    pub const fn default_big(self) -> bool {
        self.0 & 1 << 14 != 0
    }
    /// Bit 15, G: the limit counts 4 KiB.
    pub const fn granularity(self) -> bool {
        self.0 & 1 << 15 != 0
    }
    pub const fn unusable(self) -> bool {
        self.0 & Self::UNUSABLE.0 != 0
    }
    /// Type bit 3: code, not data. Of a code or data segment.
    pub const fn is_code(self) -> bool {
        self.0 & 1 << 3 != 0
    }
    /// Type bit 1: readable (code) or writable (data).
    pub const fn is_readable_or_writable(self) -> bool {
        self.0 & 1 << 1 != 0
    }
    /// Type bit 0.
    pub const fn accessed(self) -> bool {
        self.0 & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_table_25_2() {
        let code64 = AccessRights(0xa09b);
        assert!(code64.code_or_data() && code64.is_code() && code64.long() && code64.present());
        assert!(!code64.default_big() && code64.granularity() && !code64.unusable());
        assert_eq!((code64.segment_type(), code64.dpl()), (11, 0));
        let user_data = AccessRights(0xc0f3);
        assert_eq!(user_data.dpl(), 3);
        assert!(!user_data.is_code() && user_data.is_readable_or_writable());
        assert_eq!(code64.0 & AccessRights::RESERVED, 0);
    }

    #[test]
    fn fields_belong_to_their_register() {
        let fs = SegFields::of(SegReg::Fs);
        assert_eq!(fs.base.encoding(), 0x680e);
        assert_eq!(fs.access.map(Field::encoding), Some(0x481c));
        let tr = SegFields::of(SegReg::Tr);
        assert_eq!(tr.selector.map(Field::encoding), Some(0x080e));
        assert_eq!(tr.limit.encoding(), 0x480e);
        assert!(SegFields::of(SegReg::Idtr).access.is_none());
    }
}
