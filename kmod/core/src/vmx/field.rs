//! VMCS fields as types (SDM vol. 3D, appendix B; the encoding is 25.11.2).
//!
//! Each field is a `Field<W>`, `W` being its width: `u16`, `u32`, `u64` or [`Natural`].
//! What VMREAD gives and VMWRITE takes has the type `W::Value`, so that a 32-bit field
//! can't be written with 64 bits. [`VmcsField`] is a field without its width, for tables
//! and for tools that dump a VMCS.

use core::fmt;
use core::marker::PhantomData;

/// Width of a field (bits 14:13 of the encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Bits16 = 0,
    Bits64 = 1,
    Bits32 = 2,
    /// 64 bits on a CPU with Intel 64, in any mode.
    Natural = 3,
}

/// What a field is for (bits 11:10 of the encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Control = 0,
    /// VM-exit information; read-only on most CPUs.
    ExitInfo = 1,
    Guest = 2,
    Host = 3,
}

/// A field's encoding, as VMREAD and VMWRITE take it. Only fields of [`VmcsField::ALL`]
/// exist as values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmcsField(u16);

impl VmcsField {
    /// The operand of VMREAD and VMWRITE.
    pub const fn encoding(self) -> u64 {
        self.0 as u64
    }

    pub const fn width(self) -> Width {
        match self.0 >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    pub const fn kind(self) -> Kind {
        match self.0 >> 10 & 3 {
            0 => Kind::Control,
            1 => Kind::ExitInfo,
            2 => Kind::Guest,
            _ => Kind::Host,
        }
    }

    /// Bits 9:1, the number within its width and kind (what IA32_VMX_VMCS_ENUM bounds).
    pub const fn index(self) -> u16 {
        self.0 >> 1 & 0x1ff
    }

    /// The field with that encoding, if appendix B has it.
    pub fn from_encoding(encoding: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|f| f.encoding() == encoding)
    }

    /// Its name here, which is the SDM's in capitals: "GUEST_CS_SELECTOR".
    pub fn name(self) -> &'static str {
        match NAMES.binary_search_by_key(&self.0, |n| n.0) {
            Ok(i) => NAMES[i].1,
            Err(_) => "(no VMCS field)",
        }
    }
}

impl fmt::Debug for VmcsField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The natural width: 64 bits here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Natural {}

/// A width as a type: `u16`, `u32`, `u64` and [`Natural`], no others.
pub trait FieldWidth: sealed::Sealed {
    /// What a field of that width holds.
    type Value: Copy + Into<u64> + fmt::LowerHex;
    const WIDTH: Width;
    /// The value in the low bits of what VMREAD put into its 64-bit destination.
    fn from_vmread(raw: u64) -> Self::Value;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for super::Natural {}
}

impl FieldWidth for u16 {
    type Value = u16;
    const WIDTH: Width = Width::Bits16;
    fn from_vmread(raw: u64) -> u16 {
        raw as u16
    }
}
impl FieldWidth for u32 {
    type Value = u32;
    const WIDTH: Width = Width::Bits32;
    fn from_vmread(raw: u64) -> u32 {
        raw as u32
    }
}
impl FieldWidth for u64 {
    type Value = u64;
    const WIDTH: Width = Width::Bits64;
    fn from_vmread(raw: u64) -> u64 {
        raw
    }
}
impl FieldWidth for Natural {
    type Value = u64;
    const WIDTH: Width = Width::Natural;
    fn from_vmread(raw: u64) -> u64 {
        raw
    }
}

/// A VMCS field of width `W`.
pub struct Field<W: FieldWidth> {
    field: VmcsField,
    width: PhantomData<W>,
}

impl<W: FieldWidth> Field<W> {
    const fn new(encoding: u16) -> Self {
        Self {
            field: VmcsField(encoding),
            width: PhantomData,
        }
    }

    /// The same field without its width.
    pub const fn field(self) -> VmcsField {
        self.field
    }

    /// The operand of VMREAD and VMWRITE.
    pub const fn encoding(self) -> u64 {
        self.field.encoding()
    }

    pub fn name(self) -> &'static str {
        self.field.name()
    }
}

impl<W: FieldWidth> Clone for Field<W> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<W: FieldWidth> Copy for Field<W> {}
impl<W: FieldWidth> From<Field<W>> for VmcsField {
    fn from(f: Field<W>) -> Self {
        f.field
    }
}
impl<W: FieldWidth> fmt::Debug for Field<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.field.fmt(f)
    }
}

macro_rules! fields {
    ($($width:ty { $($name:ident = $encoding:literal)* })*) => {
        $($(pub const $name: Field<$width> = Field::new($encoding);)*)*

        const NAMES: &[(u16, &str)] = &[$($(($encoding, stringify!($name)),)*)*];

        impl VmcsField {
            /// All fields of appendix B, by ascending encoding.
            pub const ALL: &[Self] = &[$($(Self($encoding),)*)*];
        }

        #[cfg(test)]
        const DECLARED_WIDTHS: &[(VmcsField, Width)] =
            &[$($((VmcsField($encoding), <$width as FieldWidth>::WIDTH),)*)*];
    };
}

// By ascending encoding: the order is the SDM's (tables B-1 to B-17), and name() searches it.
fields! {
    u16 {
        VIRTUAL_PROCESSOR_ID = 0x0000
        POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x0002
        EPTP_INDEX = 0x0004
        HLAT_PREFIX_SIZE = 0x0006
        LAST_PID_POINTER_INDEX = 0x0008

        GUEST_ES_SELECTOR = 0x0800
        GUEST_CS_SELECTOR = 0x0802
        GUEST_SS_SELECTOR = 0x0804
        GUEST_DS_SELECTOR = 0x0806
        GUEST_FS_SELECTOR = 0x0808
        GUEST_GS_SELECTOR = 0x080a
        GUEST_LDTR_SELECTOR = 0x080c
        GUEST_TR_SELECTOR = 0x080e
        GUEST_INTERRUPT_STATUS = 0x0810
        PML_INDEX = 0x0812
        GUEST_UINV = 0x0814

        HOST_ES_SELECTOR = 0x0c00
        HOST_CS_SELECTOR = 0x0c02
        HOST_SS_SELECTOR = 0x0c04
        HOST_DS_SELECTOR = 0x0c06
        HOST_FS_SELECTOR = 0x0c08
        HOST_GS_SELECTOR = 0x0c0a
        HOST_TR_SELECTOR = 0x0c0c
    }
    u64 {
        IO_BITMAP_A_ADDRESS = 0x2000
        IO_BITMAP_B_ADDRESS = 0x2002
        MSR_BITMAPS_ADDRESS = 0x2004
        EXIT_MSR_STORE_ADDRESS = 0x2006
        EXIT_MSR_LOAD_ADDRESS = 0x2008
        ENTRY_MSR_LOAD_ADDRESS = 0x200a
        EXECUTIVE_VMCS_POINTER = 0x200c
        PML_ADDRESS = 0x200e
        TSC_OFFSET = 0x2010
        VIRTUAL_APIC_ADDRESS = 0x2012
        APIC_ACCESS_ADDRESS = 0x2014
        POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0x2016
        VM_FUNCTION_CONTROLS = 0x2018
        EPT_POINTER = 0x201a
        EOI_EXIT_BITMAP_0 = 0x201c
        EOI_EXIT_BITMAP_1 = 0x201e
        EOI_EXIT_BITMAP_2 = 0x2020
        EOI_EXIT_BITMAP_3 = 0x2022
        EPTP_LIST_ADDRESS = 0x2024
        VMREAD_BITMAP_ADDRESS = 0x2026
        VMWRITE_BITMAP_ADDRESS = 0x2028
        VIRTUALIZATION_EXCEPTION_INFO_ADDRESS = 0x202a
        XSS_EXITING_BITMAP = 0x202c
        ENCLS_EXITING_BITMAP = 0x202e
        SPP_TABLE_POINTER = 0x2030
        TSC_MULTIPLIER = 0x2032
        TERTIARY_PROCESSOR_BASED_CONTROLS = 0x2034
        ENCLV_EXITING_BITMAP = 0x2036
        LOW_PASID_DIRECTORY_ADDRESS = 0x2038
        HIGH_PASID_DIRECTORY_ADDRESS = 0x203a
        SHARED_EPT_POINTER = 0x203c
        PCONFIG_EXITING_BITMAP = 0x203e
        HLAT_POINTER = 0x2040
        PID_POINTER_TABLE_ADDRESS = 0x2042
        SECONDARY_EXIT_CONTROLS = 0x2044
        SPEC_CTRL_MASK = 0x204a
        SPEC_CTRL_SHADOW = 0x204c
        INJECTED_EVENT_DATA = 0x2052

        GUEST_PHYSICAL_ADDRESS = 0x2400
        ORIGINAL_EVENT_DATA = 0x2404

        VMCS_LINK_POINTER = 0x2800
        GUEST_IA32_DEBUGCTL = 0x2802
        GUEST_IA32_PAT = 0x2804
        GUEST_IA32_EFER = 0x2806
        GUEST_IA32_PERF_GLOBAL_CTRL = 0x2808
        GUEST_PDPTE0 = 0x280a
        GUEST_PDPTE1 = 0x280c
        GUEST_PDPTE2 = 0x280e
        GUEST_PDPTE3 = 0x2810
        GUEST_IA32_BNDCFGS = 0x2812
        GUEST_IA32_RTIT_CTL = 0x2814
        GUEST_IA32_LBR_CTL = 0x2816
        GUEST_IA32_PKRS = 0x2818
        GUEST_IA32_FRED_CONFIG = 0x281a
        GUEST_IA32_FRED_RSP1 = 0x281c
        GUEST_IA32_FRED_RSP2 = 0x281e
        GUEST_IA32_FRED_RSP3 = 0x2820
        GUEST_IA32_FRED_STKLVLS = 0x2822
        GUEST_IA32_FRED_SSP1 = 0x2824
        GUEST_IA32_FRED_SSP2 = 0x2826
        GUEST_IA32_FRED_SSP3 = 0x2828

        HOST_IA32_PAT = 0x2c00
        HOST_IA32_EFER = 0x2c02
        HOST_IA32_PERF_GLOBAL_CTRL = 0x2c04
        HOST_IA32_PKRS = 0x2c06
        HOST_IA32_FRED_CONFIG = 0x2c08
        HOST_IA32_FRED_RSP1 = 0x2c0a
        HOST_IA32_FRED_RSP2 = 0x2c0c
        HOST_IA32_FRED_RSP3 = 0x2c0e
        HOST_IA32_FRED_STKLVLS = 0x2c10
        HOST_IA32_FRED_SSP1 = 0x2c12
        HOST_IA32_FRED_SSP2 = 0x2c14
        HOST_IA32_FRED_SSP3 = 0x2c16
    }
    u32 {
        PIN_BASED_CONTROLS = 0x4000
        PRIMARY_PROCESSOR_BASED_CONTROLS = 0x4002
        EXCEPTION_BITMAP = 0x4004
        PAGE_FAULT_ERROR_CODE_MASK = 0x4006
        PAGE_FAULT_ERROR_CODE_MATCH = 0x4008
        CR3_TARGET_COUNT = 0x400a
        PRIMARY_EXIT_CONTROLS = 0x400c
        EXIT_MSR_STORE_COUNT = 0x400e
        EXIT_MSR_LOAD_COUNT = 0x4010
        ENTRY_CONTROLS = 0x4012
        ENTRY_MSR_LOAD_COUNT = 0x4014
        ENTRY_INTERRUPTION_INFO = 0x4016
        ENTRY_EXCEPTION_ERROR_CODE = 0x4018
        ENTRY_INSTRUCTION_LENGTH = 0x401a
        TPR_THRESHOLD = 0x401c
        SECONDARY_PROCESSOR_BASED_CONTROLS = 0x401e
        PLE_GAP = 0x4020
        PLE_WINDOW = 0x4022
        INSTRUCTION_TIMEOUT_CONTROL = 0x4024

        VM_INSTRUCTION_ERROR = 0x4400
        EXIT_REASON = 0x4402
        EXIT_INTERRUPTION_INFO = 0x4404
        EXIT_INTERRUPTION_ERROR_CODE = 0x4406
        IDT_VECTORING_INFO = 0x4408
        IDT_VECTORING_ERROR_CODE = 0x440a
        EXIT_INSTRUCTION_LENGTH = 0x440c
        EXIT_INSTRUCTION_INFO = 0x440e

        GUEST_ES_LIMIT = 0x4800
        GUEST_CS_LIMIT = 0x4802
        GUEST_SS_LIMIT = 0x4804
        GUEST_DS_LIMIT = 0x4806
        GUEST_FS_LIMIT = 0x4808
        GUEST_GS_LIMIT = 0x480a
        GUEST_LDTR_LIMIT = 0x480c
        GUEST_TR_LIMIT = 0x480e
        GUEST_GDTR_LIMIT = 0x4810
        GUEST_IDTR_LIMIT = 0x4812
        GUEST_ES_ACCESS_RIGHTS = 0x4814
        GUEST_CS_ACCESS_RIGHTS = 0x4816
        GUEST_SS_ACCESS_RIGHTS = 0x4818
        GUEST_DS_ACCESS_RIGHTS = 0x481a
        GUEST_FS_ACCESS_RIGHTS = 0x481c
        GUEST_GS_ACCESS_RIGHTS = 0x481e
        GUEST_LDTR_ACCESS_RIGHTS = 0x4820
        GUEST_TR_ACCESS_RIGHTS = 0x4822
        GUEST_INTERRUPTIBILITY_STATE = 0x4824
        GUEST_ACTIVITY_STATE = 0x4826
        GUEST_SMBASE = 0x4828
        GUEST_IA32_SYSENTER_CS = 0x482a
        VMX_PREEMPTION_TIMER_VALUE = 0x482e

        HOST_IA32_SYSENTER_CS = 0x4c00
    }
    Natural {
        CR0_GUEST_HOST_MASK = 0x6000
        CR4_GUEST_HOST_MASK = 0x6002
        CR0_READ_SHADOW = 0x6004
        CR4_READ_SHADOW = 0x6006
        CR3_TARGET_VALUE_0 = 0x6008
        CR3_TARGET_VALUE_1 = 0x600a
        CR3_TARGET_VALUE_2 = 0x600c
        CR3_TARGET_VALUE_3 = 0x600e

        EXIT_QUALIFICATION = 0x6400
        IO_RCX = 0x6402
        IO_RSI = 0x6404
        IO_RDI = 0x6406
        IO_RIP = 0x6408
        GUEST_LINEAR_ADDRESS = 0x640a

        GUEST_CR0 = 0x6800
        GUEST_CR3 = 0x6802
        GUEST_CR4 = 0x6804
        GUEST_ES_BASE = 0x6806
        GUEST_CS_BASE = 0x6808
        GUEST_SS_BASE = 0x680a
        GUEST_DS_BASE = 0x680c
        GUEST_FS_BASE = 0x680e
        GUEST_GS_BASE = 0x6810
        GUEST_LDTR_BASE = 0x6812
        GUEST_TR_BASE = 0x6814
        GUEST_GDTR_BASE = 0x6816
        GUEST_IDTR_BASE = 0x6818
        GUEST_DR7 = 0x681a
        GUEST_RSP = 0x681c
        GUEST_RIP = 0x681e
        GUEST_RFLAGS = 0x6820
        GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822
        GUEST_IA32_SYSENTER_ESP = 0x6824
        GUEST_IA32_SYSENTER_EIP = 0x6826
        GUEST_IA32_S_CET = 0x6828
        GUEST_SSP = 0x682a
        GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR = 0x682c

        HOST_CR0 = 0x6c00
        HOST_CR3 = 0x6c02
        HOST_CR4 = 0x6c04
        HOST_FS_BASE = 0x6c06
        HOST_GS_BASE = 0x6c08
        HOST_TR_BASE = 0x6c0a
        HOST_GDTR_BASE = 0x6c0c
        HOST_IDTR_BASE = 0x6c0e
        HOST_IA32_SYSENTER_ESP = 0x6c10
        HOST_IA32_SYSENTER_EIP = 0x6c12
        HOST_RSP = 0x6c14
        HOST_RIP = 0x6c16
        HOST_IA32_S_CET = 0x6c18
        HOST_SSP = 0x6c1a
        HOST_IA32_INTERRUPT_SSP_TABLE_ADDR = 0x6c1c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_ascend_and_fit_the_declared_width() {
        for pair in VmcsField::ALL.windows(2) {
            assert!(pair[0] < pair[1], "{:?} before {:?}", pair[0], pair[1]);
        }
        for &(field, width) in DECLARED_WIDTHS {
            assert_eq!(field.width(), width, "{field:?}");
            // Bit 0 is the access type (low half of a 64-bit field), 12 and 15 are reserved.
            assert_eq!(field.encoding() & !0x6ffe, 0, "{field:?}");
        }
    }

    #[test]
    fn kind_agrees_with_the_name() {
        for &field in VmcsField::ALL {
            let name = field.name();
            if name.starts_with("HOST_") {
                assert_eq!(field.kind(), Kind::Host, "{name}");
            } else if name.starts_with("GUEST_")
                && !["GUEST_PHYSICAL_ADDRESS", "GUEST_LINEAR_ADDRESS"].contains(&name)
            {
                assert_eq!(field.kind(), Kind::Guest, "{name}");
            } else {
                assert_ne!(field.kind(), Kind::Host, "{name}");
            }
        }
    }

    #[test]
    fn a_field_is_found_by_its_encoding() {
        assert_eq!(VmcsField::from_encoding(0x681e), Some(GUEST_RIP.field()));
        assert_eq!(GUEST_RIP.name(), "GUEST_RIP");
        assert_eq!(VmcsField::from_encoding(0x681f), None);
        assert_eq!(GUEST_CS_ACCESS_RIGHTS.encoding(), 0x4816);
        assert_eq!(IO_RCX.field().kind(), Kind::ExitInfo);
    }
}
