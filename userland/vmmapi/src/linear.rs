//! Linear (virtual) addresses of the guest: translated by the kernel through the guest's
//! page tables, and copied from and to page by page. And what EPT maps at a gpa.

use vmm_sys::ioctl as req;
use vmm_sys::ioctl::Ioctl;

use crate::{CpuMode, Error, Gla, Gpa, GuestPaging, PagingMode, Prot, Reg, Vcpu, Vm};

/// What a translation found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    Gpa(Gpa),
    /// The access faults. After [`Vcpu::gla2gpa`] the exception is injected: run again.
    Fault,
}

const PAGE: usize = 4096;

impl Vcpu {
    /// Translates as an access of the guest: a fault is injected, A and D bits are set.
    pub fn gla2gpa(
        &self,
        paging: &GuestPaging,
        gla: Gla,
        prot: Prot,
    ) -> Result<Translation, Error> {
        self.translate(req::VM_GLA2GPA, paging, gla, prot)
    }

    /// Translates without a trace in the guest.
    pub fn gla2gpa_nofault(
        &self,
        paging: &GuestPaging,
        gla: Gla,
        prot: Prot,
    ) -> Result<Translation, Error> {
        self.translate(req::VM_GLA2GPA_NOFAULT, paging, gla, prot)
    }

    fn translate(
        &self,
        request: Ioctl,
        paging: &GuestPaging,
        gla: Gla,
        prot: Prot,
    ) -> Result<Translation, Error> {
        let mut param = vmm_sys::vm_gla2gpa {
            vcpuid: self.raw_id(),
            prot: prot.bits() as i32,
            gla: gla.0,
            paging: raw_paging(paging),
            ..Default::default()
        };
        self.ioctl_on(request, gla, &mut param)?;
        Ok(if param.fault == 0 {
            Translation::Gpa(Gpa(param.gpa))
        } else {
            Translation::Fault
        })
    }

    /// How the guest translates now, from its registers, for an access of that privilege.
    pub fn guest_paging(&self, cpl: u8) -> Result<GuestPaging, Error> {
        let [cr0, cr3, cr4, efer] = self.registers([Reg::Cr0, Reg::Cr3, Reg::Cr4, Reg::Efer])?;
        let cs = self.desc(crate::SegReg::Cs)?;
        Ok(paging_of(cr0, cr3, cr4, efer, cs.access, cpl))
    }

    /// Copies guest bytes at a linear address, as the guest would read them.
    pub fn copyin(&self, paging: &GuestPaging, gla: Gla, to: &mut [u8]) -> Result<(), Error> {
        let mut done = 0;
        while done < to.len() {
            let (gpa, len) = self.step(paging, gla, done, to.len(), Prot::READ)?;
            self.vm()
                .map_gpa(gpa, len)?
                .copy_from(0, &mut to[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    /// Copies bytes to the guest at a linear address, as the guest would write them. All
    /// pages are translated before the first byte is written.
    pub fn copyout(&self, paging: &GuestPaging, gla: Gla, from: &[u8]) -> Result<(), Error> {
        let mut ranges = Vec::new();
        let mut done = 0;
        while done < from.len() {
            let (gpa, len) = self.step(paging, gla, done, from.len(), Prot::WRITE)?;
            ranges.push((self.vm().map_gpa(gpa, len)?, done..done + len));
            done += len;
        }
        ranges
            .into_iter()
            .try_for_each(|(range, part)| range.copy_to(0, &from[part]))
    }

    /// Where the bytes from `done` on are, and how many of them are in that page.
    fn step(
        &self,
        paging: &GuestPaging,
        gla: Gla,
        done: usize,
        len: usize,
        prot: Prot,
    ) -> Result<(Gpa, usize), Error> {
        let gla = gla
            .checked_add(done as u64)
            .ok_or(Error::GuestFault { gla })?;
        match self.gla2gpa(paging, gla, prot)? {
            Translation::Gpa(gpa) => Ok((gpa, (len - done).min(PAGE - gpa.page_offset() as usize))),
            Translation::Fault => Err(Error::GuestFault { gla }),
        }
    }
}

impl Vm {
    /// The EPT entries that lead to `gpa`, from the top on; the last is a leaf or not
    /// present.
    pub fn gpa_pmap(&self, gpa: Gpa) -> Result<Vec<u64>, Error> {
        let mut param = vmm_sys::vm_gpa_pte {
            gpa: gpa.0,
            ..Default::default()
        };
        crate::platform::ioctl(self.device(), req::VM_GET_GPA_PMAP, &mut param)
            .map_err(|e| self.error_of(req::VM_GET_GPA_PMAP, &format!("{gpa:#x}"), e))?;
        let num = usize::try_from(param.ptenum)
            .unwrap_or(0)
            .min(param.pte.len());
        Ok(param.pte[..num].to_vec())
    }
}

/// Which paging mode CR0.PG, CR4.PAE, IA32_EFER.LMA and CR4.LA57 make (SDM vol. 3A, 5.1.1),
/// and which CPU mode CR0.PE, LMA and CS.L make (SDM vol. 3A, 2.2).
fn paging_of(cr0: u64, cr3: u64, cr4: u64, efer: u64, cs_access: u32, cpl: u8) -> GuestPaging {
    let bit = |word: u64, n: u32| word >> n & 1 != 0;
    let long = bit(efer, 10);
    let cpu_mode = match (bit(cr0, 0), long, bit(u64::from(cs_access), 13)) {
        (false, _, _) => CpuMode::Real,
        (true, false, _) => CpuMode::Protected,
        (true, true, false) => CpuMode::Compatibility,
        (true, true, true) => CpuMode::Long64,
    };
    let paging_mode = match (bit(cr0, 31), bit(cr4, 5), long, bit(cr4, 12)) {
        (false, _, _, _) => PagingMode::Flat,
        (true, false, _, _) => PagingMode::Bits32,
        (true, true, false, _) => PagingMode::Pae,
        (true, true, true, false) => PagingMode::Level4,
        (true, true, true, true) => PagingMode::Level5,
    };
    GuestPaging {
        cr3,
        cpl,
        cpu_mode,
        paging_mode,
    }
}

fn raw_paging(paging: &GuestPaging) -> vmm_sys::vm_guest_paging {
    vmm_sys::vm_guest_paging {
        cr3: paging.cr3,
        cpl: i32::from(paging.cpl),
        cpu_mode: paging.cpu_mode as u32,
        paging_mode: paging.paging_mode as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PE: u64 = 1;
    const PG: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const LA57: u64 = 1 << 12;
    const LMA: u64 = 1 << 10;
    const CS_L: u32 = 1 << 13;

    #[test]
    fn modes_follow_from_the_registers() {
        for (cr0, cr4, efer, cs, cpu, paging) in [
            (0, 0, 0, 0, CpuMode::Real, PagingMode::Flat),
            (PE, PAE, 0, 0, CpuMode::Protected, PagingMode::Flat),
            (PE | PG, 0, 0, 0, CpuMode::Protected, PagingMode::Bits32),
            (PE | PG, PAE, 0, 0, CpuMode::Protected, PagingMode::Pae),
            (
                PE | PG,
                PAE,
                LMA,
                0,
                CpuMode::Compatibility,
                PagingMode::Level4,
            ),
            (PE | PG, PAE, LMA, CS_L, CpuMode::Long64, PagingMode::Level4),
            (
                PE | PG,
                PAE | LA57,
                LMA,
                CS_L,
                CpuMode::Long64,
                PagingMode::Level5,
            ),
        ] {
            let is = paging_of(cr0, 0x1000, cr4, efer, cs, 0);
            assert_eq!(
                (is.cpu_mode, is.paging_mode),
                (cpu, paging),
                "{cr0:#x} {cr4:#x} {efer:#x}"
            );
        }
    }

    #[test]
    fn modes_have_the_headers_numbers() {
        assert_eq!(CpuMode::Long64 as u32, vmm_sys::CPU_MODE_64BIT);
        assert_eq!(
            CpuMode::Compatibility as u32,
            vmm_sys::CPU_MODE_COMPATIBILITY
        );
        assert_eq!(PagingMode::Pae as u32, vmm_sys::PAGING_MODE_PAE);
        assert_eq!(PagingMode::Level5 as u32, vmm_sys::PAGING_MODE_64_LA57);
    }
}
