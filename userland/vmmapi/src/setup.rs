//! Register states to start from: after power-on or reset (SDM vol. 3A, table 10-1), and
//! those that a loader enters FreeBSD's kernel with.

use crate::{Capability, Error, Gpa, Reg, SegDesc, SegReg, Vcpu};

/// Bits of the access rights in a VMCS (SDM table 25-2).
mod access {
    pub(super) const CODE: u32 = 0x1b; // code or data, execute, read, accessed
    pub(super) const DATA: u32 = 0x13; // code or data, read, write, accessed
    pub(super) const LDT: u32 = 0x02;
    pub(super) const BUSY_TSS: u32 = 0x0b;
    pub(super) const PRESENT: u32 = 1 << 7;
    pub(super) const LONG: u32 = 1 << 13;
    pub(super) const DEF32: u32 = 1 << 14;
    pub(super) const GRANULARITY: u32 = 1 << 15;
    pub(super) const UNUSABLE: u32 = 1 << 16;
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
/// VT-x wants it set in each mode (IA32_VMX_CR0_FIXED0).
const CR0_NE: u64 = 1 << 5;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit that is always set.
const RFLAGS: u64 = 2;

/// Selectors of the GDTs below: entries 1, 2 and 3.
const CODE_SEL: u64 = 8;
const DATA_SEL: u64 = 16;
const TSS_SEL: u64 = 24;

const TSS32_SIZE: u32 = 104;

/// The segment registers for data.
const DATA_SEGS: [SegReg; 5] = [SegReg::Ss, SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs];
const DATA_REGS: [Reg; 5] = [Reg::Ss, Reg::Ds, Reg::Es, Reg::Fs, Reg::Gs];

impl Vcpu {
    /// Power-on state: real mode at F000:FFF0 with CS based at FFFF0000H.
    ///
    /// CR0.NW and CR0.CD, which the table has set, are clear: firmware is what clears them,
    /// and most guests come without one.
    pub fn reset(&self) -> Result<(), Error> {
        use access::{BUSY_TSS, DATA, LDT, PRESENT};

        self.set_all(&[
            (Reg::Rflags, RFLAGS),
            (Reg::Rip, 0xfff0),
            (Reg::Cr0, CR0_ET | CR0_NE),
            (Reg::Cr2, 0),
            (Reg::Cr3, 0),
            (Reg::Cr4, 0),
            (Reg::Efer, 0),
        ])?;
        let real = |base| SegDesc {
            base,
            limit: 0xffff,
            access: PRESENT | DATA,
        };
        self.set_desc(SegReg::Cs, real(0xffff_0000))?;
        for seg in DATA_SEGS {
            self.set_desc(seg, real(0))?;
        }
        for table in [SegReg::Gdtr, SegReg::Idtr] {
            self.set_desc(
                table,
                SegDesc {
                    base: 0,
                    limit: 0xffff,
                    access: 0,
                },
            )?;
        }
        self.set_desc(
            SegReg::Ldtr,
            SegDesc {
                base: 0,
                limit: 0xffff,
                access: PRESENT | LDT,
            },
        )?;
        self.set_desc(
            SegReg::Tr,
            SegDesc {
                base: 0,
                limit: 0xffff,
                access: PRESENT | BUSY_TSS,
            },
        )?;
        self.set_all(&[(Reg::Cs, 0xf000), (Reg::Ldtr, 0), (Reg::Tr, 0)])?;
        self.set_all(&DATA_REGS.map(|reg| (reg, 0)))?;
        self.set_all(&Reg::GENERAL.map(|reg| (reg, if reg == Reg::Rdx { 0xf00 } else { 0 })))?;
        self.set_all(&[
            (Reg::Dr6, 0xffff_0ff0),
            (Reg::Dr7, 0x400),
            (Reg::IntrShadow, 0),
        ])
    }

    /// 64-bit mode at `rip`, with page tables at `cr3` and a GDT at `gdtbase` that has
    /// [`freebsd_gdt`]'s entries (vm_setup_freebsd_registers).
    pub fn setup_freebsd_registers(
        &self,
        rip: u64,
        cr3: u64,
        gdtbase: u64,
        rsp: u64,
    ) -> Result<(), Error> {
        use access::{BUSY_TSS, CODE, DATA, LONG, PRESENT, UNUSABLE};

        self.set_all(&[
            (Reg::Cr0, CR0_PE | CR0_ET | CR0_NE | CR0_PG),
            (Reg::Cr4, CR4_PAE),
            (Reg::Efer, EFER_LME | EFER_LMA),
            (Reg::Rflags, RFLAGS),
        ])?;
        let flat = |access| SegDesc {
            base: 0,
            limit: 0,
            access: PRESENT | access,
        };
        self.set_desc(SegReg::Cs, flat(LONG | CODE))?;
        for seg in DATA_SEGS {
            self.set_desc(seg, flat(DATA))?;
        }
        self.set_desc(SegReg::Tr, flat(BUSY_TSS))?;
        self.set_desc(
            SegReg::Ldtr,
            SegDesc {
                base: 0,
                limit: 0,
                access: UNUSABLE,
            },
        )?;
        let limit = (size_of::<[u64; 3]>() - 1) as u32;
        self.set_desc(
            SegReg::Gdtr,
            SegDesc {
                base: gdtbase,
                limit,
                access: 0,
            },
        )?;
        self.set_selectors(0)?;
        self.set_all(&[(Reg::Rip, rip), (Reg::Cr3, cr3), (Reg::Rsp, rsp)])
    }

    /// 32-bit protected mode without paging at `eip`. A flat GDT is written at `gdtbase`;
    /// the page behind it becomes the TSS (vm_setup_freebsd_registers_i386).
    pub fn setup_freebsd_registers_i386(
        &self,
        eip: u32,
        gdtbase: u32,
        esp: u32,
    ) -> Result<(), Error> {
        use access::{BUSY_TSS, CODE, DATA, DEF32, GRANULARITY, PRESENT, UNUSABLE};

        // Not paged: VT-x runs it as unrestricted guest only.
        self.capability(Capability::UnrestrictedGuest)?;
        self.set_capability(Capability::UnrestrictedGuest, 1)?;
        self.set_all(&[
            (Reg::Cr0, CR0_PE | CR0_ET | CR0_NE),
            (Reg::Cr4, 0),
            (Reg::Efer, 0),
            (Reg::Rflags, RFLAGS),
        ])?;
        let tss = gdtbase.checked_add(0x1000).ok_or(Error::Invalid {
            what: "GDT address",
            value: u64::from(gdtbase),
        })?;
        let gdt = i386_gdt(tss);
        let bytes: Vec<u8> = gdt.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.vm()
            .map_gpa(Gpa(u64::from(gdtbase)), bytes.len())?
            .copy_to(0, &bytes)?;
        let limit = bytes.len() as u32 - 1;
        self.set_desc(
            SegReg::Gdtr,
            SegDesc {
                base: u64::from(gdtbase),
                limit,
                access: 0,
            },
        )?;

        let flat = |access| SegDesc {
            base: 0,
            limit: u32::MAX,
            access: GRANULARITY | DEF32 | PRESENT | access,
        };
        self.set_desc(SegReg::Cs, flat(CODE))?;
        for seg in DATA_SEGS {
            self.set_desc(seg, flat(DATA))?;
        }
        let base = u64::from(tss);
        self.set_desc(
            SegReg::Tr,
            SegDesc {
                base,
                limit: TSS32_SIZE - 1,
                access: PRESENT | BUSY_TSS,
            },
        )?;
        self.set_desc(
            SegReg::Ldtr,
            SegDesc {
                base: 0,
                limit: 0,
                access: UNUSABLE,
            },
        )?;
        self.set_selectors(TSS_SEL)?;
        self.set_all(&[(Reg::Rip, u64::from(eip)), (Reg::Rsp, u64::from(esp))])
    }

    fn set_selectors(&self, tr: u64) -> Result<(), Error> {
        self.set_all(&[(Reg::Cs, CODE_SEL), (Reg::Tr, tr), (Reg::Ldtr, 0)])?;
        self.set_all(&DATA_REGS.map(|reg| (reg, DATA_SEL)))
    }

    /// One call each, so that an error names the register.
    fn set_all(&self, regs: &[(Reg, u64)]) -> Result<(), Error> {
        regs.iter()
            .try_for_each(|(reg, value)| self.set_register(*reg, *value))
    }
}

/// The GDT for [`Vcpu::setup_freebsd_registers`], to be written at its `gdtbase`: null,
/// 64-bit code, data.
pub const fn freebsd_gdt() -> [u64; 3] {
    [
        0,
        descriptor(0, 0, access::PRESENT | access::LONG | access::CODE & !1),
        descriptor(0, 0, access::PRESENT | access::DATA & !1),
    ]
}

/// Null, flat code, flat data, TSS.
const fn i386_gdt(tss: u32) -> [u64; 4] {
    use access::{CODE, DATA, DEF32, GRANULARITY, PRESENT};
    const FLAT: u32 = PRESENT | DEF32 | GRANULARITY;
    [
        0,
        descriptor(0, 0xf_ffff, FLAT | CODE & !1),
        descriptor(0, 0xf_ffff, FLAT | DATA & !1),
        // Available, not busy: type 9.
        descriptor(tss, TSS32_SIZE - 1, PRESENT | 0x9),
    ]
}

/// A segment descriptor in memory (SDM vol. 3A, figure 3-8). `access` has the bits of its
/// second doubleword from bit 8 on, which is how the VMCS lays them out; `limit` has 20 bits.
const fn descriptor(base: u32, limit: u32, access: u32) -> u64 {
    let low = (limit & 0xffff) | base << 16;
    let high = base >> 16 & 0xff | access << 8 | limit & 0xf_0000 | base & 0xff00_0000;
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_the_cpus_layout() {
        // 64-bit code, and data for ring 0, as every long-mode loader has them.
        assert_eq!(
            freebsd_gdt(),
            [0, 0x0020_9a00_0000_0000, 0x0000_9200_0000_0000]
        );
        assert_eq!(
            i386_gdt(0x1234_5000),
            [
                0,
                0x00cf_9a00_0000_ffff,
                0x00cf_9200_0000_ffff,
                0x1200_8934_5000_0067
            ]
        );
    }
}
