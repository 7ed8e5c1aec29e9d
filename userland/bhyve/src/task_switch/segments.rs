//! The segments of the new task: each is loaded if it passes the checks of SDM vol. 3A,
//! table 8-1. Until then CS and SS keep the old task's segments and the others have none,
//! so that whoever handles the exception can run.

#![forbid(unsafe_code)]

use vmm_core::cpu::segment::{Operation, alignment_fault, linear_address};
use vmmapi::{GuestPaging, Reg, SegDesc, SegReg};

use super::descriptor::{
    Descriptor, Selector, TssFormat, UNUSABLE, Use, big, usable, virtual_8086,
};
use super::tss::Task;
use super::{
    ALIGNMENT, FLAG_VIRTUAL_8086, INVALID_TSS, NOT_PRESENT, SEGMENTS, STACK, Step, Stop, Switch,
    TaskCpu,
};

/// The data segments with their places in a TSS.
const DATA: [(SegReg, usize); 4] = [
    (SegReg::Ds, 3),
    (SegReg::Es, 0),
    (SegReg::Fs, 4),
    (SegReg::Gs, 5),
];
const SS: usize = 2;

impl<C: TaskCpu> Switch<'_, C> {
    /// Loads them. The answer is the stack segment.
    pub(super) fn load_segments(&mut self, task: &Task) -> Step<C, SegDesc> {
        self.cpu.set_desc(SegReg::Ldtr, UNUSABLE)?;
        for (seg, _) in DATA {
            self.cpu.set_desc(seg, UNUSABLE)?;
        }
        let ldt = self.ldt(Selector(task.ldt))?;
        self.cpu.set_desc(SegReg::Ldtr, ldt)?;
        if task.flags & FLAG_VIRTUAL_8086 != 0 {
            for (selector, (seg, _)) in task.selectors.into_iter().zip(SEGMENTS) {
                self.cpu.set_desc(seg, virtual_8086(Selector(selector)))?;
            }
            return Ok(virtual_8086(Selector(task.selectors[SS])));
        }
        // VM entry checks these two against each other, so that they change together.
        let code = self.code(task.cs(), &ldt)?;
        let stack = self.stack(Selector(task.selectors[SS]), task.cs().rpl(), &ldt)?;
        self.cpu.set_desc(SegReg::Cs, code)?;
        self.cpu.set_desc(SegReg::Ss, stack)?;
        for (seg, at) in DATA {
            let data = self.data(Selector(task.selectors[at]), task.cs().rpl(), &ldt)?;
            self.cpu.set_desc(seg, data)?;
        }
        Ok(stack)
    }

    fn ldt(&mut self, selector: Selector) -> Step<C, SegDesc> {
        if selector.is_local() {
            return Err(self.about(INVALID_TSS, selector));
        }
        if selector.is_null() {
            return Ok(UNUSABLE);
        }
        let gdt = self.cpu.desc(SegReg::Gdtr)?;
        let (descriptor, _) = self.descriptor(&gdt, selector, false, INVALID_TSS)?;
        if !descriptor.is_for(Use::Ldt) || !descriptor.present() {
            return Err(self.about(INVALID_TSS, selector));
        }
        Ok(descriptor.seg_desc())
    }

    fn code(&mut self, selector: Selector, ldt: &SegDesc) -> Step<C, SegDesc> {
        let descriptor = self.segment(selector, Use::Code, ldt)?;
        let (dpl, cpl) = (descriptor.dpl(), selector.rpl());
        let allowed = if descriptor.conforming() {
            dpl <= cpl
        } else {
            dpl == cpl
        };
        if !allowed {
            return Err(self.about(INVALID_TSS, selector));
        }
        self.accessed(selector, descriptor, NOT_PRESENT, ldt)
    }

    fn stack(&mut self, selector: Selector, cpl: u8, ldt: &SegDesc) -> Step<C, SegDesc> {
        let descriptor = self.segment(selector, Use::Stack, ldt)?;
        if descriptor.dpl() != cpl || selector.rpl() != cpl {
            return Err(self.about(INVALID_TSS, selector));
        }
        self.accessed(selector, descriptor, STACK, ldt)
    }

    fn data(&mut self, selector: Selector, cpl: u8, ldt: &SegDesc) -> Step<C, SegDesc> {
        if selector.is_null() {
            return Ok(UNUSABLE);
        }
        let descriptor = self.segment(selector, Use::Data, ldt)?;
        if !descriptor.conforming() && descriptor.dpl() < cpl.max(selector.rpl()) {
            return Err(self.about(INVALID_TSS, selector));
        }
        self.accessed(selector, descriptor, NOT_PRESENT, ldt)
    }

    /// A code or data segment's descriptor, if it is one for that use.
    fn segment(&mut self, selector: Selector, wanted: Use, ldt: &SegDesc) -> Step<C, Descriptor> {
        if selector.is_null() {
            return Err(self.about(INVALID_TSS, selector));
        }
        let table = self.table(selector, ldt)?;
        let (descriptor, _) = self.descriptor(&table, selector, false, INVALID_TSS)?;
        if !descriptor.is_for(wanted) {
            return Err(self.about(INVALID_TSS, selector));
        }
        Ok(descriptor)
    }

    /// What is loaded of a present segment, which is marked as accessed.
    fn accessed(
        &mut self,
        selector: Selector,
        descriptor: Descriptor,
        absent: u8,
        ldt: &SegDesc,
    ) -> Step<C, SegDesc> {
        if !descriptor.present() {
            return Err(self.about(absent, selector));
        }
        let accessed = descriptor.with_accessed();
        if accessed != descriptor {
            let table = self.table(selector, ldt)?;
            let (_, place) = self.descriptor(&table, selector, true, INVALID_TSS)?;
            self.cpu.store(&place, &accessed.0.to_le_bytes())?;
        }
        Ok(accessed.seg_desc())
    }

    fn table(&mut self, selector: Selector, ldt: &SegDesc) -> Step<C, SegDesc> {
        if !selector.is_local() {
            return Ok(self.cpu.desc(SegReg::Gdtr)?);
        }
        if !usable(ldt) {
            return Err(self.about(INVALID_TSS, selector));
        }
        Ok(*ldt)
    }

    /// The error code of the exception that came through the task gate, on the new task's
    /// stack (6.13): as wide as the task.
    pub(super) fn push_error_code(
        &mut self,
        task: &Task,
        stack: SegDesc,
        format: TssFormat,
        code: u32,
    ) -> Step<C, ()> {
        let len = match format {
            TssFormat::Bits16 => 2,
            TssFormat::Bits32 => 4,
        };
        let virtual_8086 = task.flags & FLAG_VIRTUAL_8086 != 0;
        let paging = GuestPaging {
            cpl: if virtual_8086 { 3 } else { task.cs().rpl() },
            ..self.supervisor
        };
        let (width, mask) = if big(&stack) {
            (4, u32::MAX)
        } else {
            (2, 0xffff)
        };
        let old = task.general[4];
        let sp = old.wrapping_sub(len) & mask | old & !mask;
        let selector = Selector(task.selectors[SS]);
        let gla = linear_address(
            &paging,
            SegReg::Ss,
            &stack,
            sp.into(),
            len.into(),
            width,
            Operation::Write,
        );
        let Ok(gla) = gla else {
            return Err(self.about(STACK, selector));
        };
        let cr0 = self.cpu.register(Reg::Cr0)?;
        if alignment_fault(paging.cpl, cr0, task.flags.into(), gla, len.into()) {
            return Err(self.exception(ALIGNMENT, Some(u32::from(self.request.ext))));
        }
        let bytes = code.to_le_bytes();
        let len = len as usize;
        let place = self.cpu.translate(&paging, gla, len, true)?;
        let place = place.ok_or(Stop::PageFault)?;
        self.cpu.store(&place, &bytes[..len])?;
        Ok(self.cpu.set_register(Reg::Rsp, sp.into())?)
    }
}
