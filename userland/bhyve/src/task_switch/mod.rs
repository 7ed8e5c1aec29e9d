//! A hardware task switch (SDM vol. 3A, chapter 8), which VMX non-root operation leaves to
//! the hypervisor: the state of the old task goes into its TSS, that of the new one comes
//! from its own. In order: the checks of the new TSS, in the old task (8.3, steps 1 to
//! 7); saving and loading (steps 8 to 13); and, in the new task, the checks of its segments
//! ([`segments`]) and the error code of the event that began it.
//!
//! [`descriptor`] and [`tss`] are the formats in memory; [`TaskCpu`] is what this needs of
//! the processor.

#![forbid(unsafe_code)]

pub mod cpu;
pub mod descriptor;
mod segments;
pub mod tss;

use vmm_core::exit::TaskSwitch;
use vmm_core::regs::PagingMode;
use vmmapi::{Gla, Gpa, GuestPaging, Reg, SegDesc, SegReg, TaskSwitchReason};

use self::descriptor::{Descriptor, Selector, TssFormat, tss_format, usable};
use self::tss::{LINK, MAX_LEN, Task};

const DEBUG: u8 = 1;
const INVALID_TSS: u8 = 10;
const NOT_PRESENT: u8 = 11;
const STACK: u8 = 12;
const GENERAL_PROTECTION: u8 = 13;
const ALIGNMENT: u8 = 17;

const CR0_TS: u64 = 1 << 3;
const FLAG_FIXED: u32 = 1 << 1;
const FLAG_NESTED: u32 = 1 << 14;
const FLAG_VIRTUAL_8086: u32 = 1 << 17;
/// The flags that exist, up to ID.
const FLAGS: u32 = 0x003f_7fd7;
/// The local breakpoints and LE: they are the old task's (SDM vol. 3B, 18.2.4).
const DR7_LOCAL: u64 = 0x155;
/// DR6.BT: the T flag of a TSS.
const DR6_TASK_SWITCH: u64 = 1 << 15;
/// Bits of a PDPTE that must be 0, below the physical address width (4.4.1).
const PDPTE_RESERVED: u64 = 0x1e6;
/// The widest physical address.
const PDPTE_ADDRESS: u64 = (1 << 52) - 1;

/// In the order of a TSS.
const SEGMENTS: [(SegReg, Reg); 6] = [
    (SegReg::Es, Reg::Es),
    (SegReg::Cs, Reg::Cs),
    (SegReg::Ss, Reg::Ss),
    (SegReg::Ds, Reg::Ds),
    (SegReg::Fs, Reg::Fs),
    (SegReg::Gs, Reg::Gs),
];

/// An exception of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    pub vector: u8,
    pub error_code: Option<u32>,
    /// A fault of the old task, at the instruction that asked for the switch. The others
    /// come at the instruction pointer of the new one.
    pub in_old_task: bool,
}

/// The processor in the middle of the switch.
pub trait TaskCpu {
    type Error;
    /// Translated memory.
    type Place;

    fn register(&mut self, reg: Reg) -> Result<u64, Self::Error>;
    fn set_register(&mut self, reg: Reg, value: u64) -> Result<(), Self::Error>;
    fn desc(&mut self, seg: SegReg) -> Result<SegDesc, Self::Error>;
    fn set_desc(&mut self, seg: SegReg, desc: SegDesc) -> Result<(), Self::Error>;
    /// Translates linear memory. `None`: the page fault is injected.
    fn translate(
        &mut self,
        paging: &GuestPaging,
        gla: Gla,
        len: usize,
        write: bool,
    ) -> Result<Option<Self::Place>, Self::Error>;
    fn load(&mut self, place: &Self::Place, bytes: &mut [u8]) -> Result<(), Self::Error>;
    fn store(&mut self, place: &Self::Place, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Reads physical memory. `None`: there is none.
    fn physical(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<Option<()>, Self::Error>;
    fn inject(&mut self, exception: Exception) -> Result<(), Self::Error>;
    /// The event that came through the task gate is delivered.
    fn event_delivered(&mut self) -> Result<(), Self::Error>;
}

/// Why the switch ends before its end.
enum Stop<E> {
    Exception(Exception),
    /// A page fault, which is injected.
    PageFault,
    Cpu(E),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Cpu(error)
    }
}

/// Does it. `next_ip` is where the old task goes on.
pub fn task_switch<C: TaskCpu>(
    cpu: &mut C,
    request: &TaskSwitch,
    next_ip: u32,
) -> Result<(), C::Error> {
    let mut switch = Switch {
        cpu,
        request,
        supervisor: GuestPaging {
            cpl: 0,
            ..request.paging
        },
        in_old_task: true,
    };
    match switch.run(next_ip) {
        Ok(()) | Err(Stop::PageFault) => Ok(()),
        Err(Stop::Exception(exception)) => cpu.inject(exception),
        Err(Stop::Cpu(error)) => Err(error),
    }
}

struct Switch<'a, C: TaskCpu> {
    cpu: &'a mut C,
    request: &'a TaskSwitch,
    /// Tables and TSS are accessed with supervisor rights (4.6.1).
    supervisor: GuestPaging,
    in_old_task: bool,
}

/// A TSS with its descriptor, all translated.
struct Tss<P> {
    selector: Selector,
    format: TssFormat,
    descriptor: Descriptor,
    descriptor_place: P,
    image: P,
}

type Step<C, T> = Result<T, Stop<<C as TaskCpu>::Error>>;

impl<C: TaskCpu> Switch<'_, C> {
    fn run(&mut self, next_ip: u32) -> Step<C, ()> {
        let reason = self.request.reason;
        let new = self.new_tss()?;
        let old = self.old_tss()?;

        if matches!(reason, TaskSwitchReason::Iret | TaskSwitchReason::Jmp) {
            let free = old.descriptor.with_busy(false);
            self.cpu
                .store(&old.descriptor_place, &free.0.to_le_bytes())?;
        }
        self.save(&old, next_ip)?;
        let nested = matches!(reason, TaskSwitchReason::Call | TaskSwitchReason::IdtGate);
        let mut image = self.image(&new)?;
        if nested {
            image[LINK].copy_from_slice(&old.selector.0.to_le_bytes());
            self.cpu.store(&new.image, &image[..new.format.size()])?;
        }
        let busy = new.descriptor.with_busy(true);
        if reason != TaskSwitchReason::Iret {
            self.cpu
                .store(&new.descriptor_place, &busy.0.to_le_bytes())?;
        }
        self.cpu.set_register(Reg::Tr, new.selector.0.into())?;
        self.cpu.set_desc(SegReg::Tr, busy.seg_desc())?;
        let cr0 = self.cpu.register(Reg::Cr0)?;
        self.cpu.set_register(Reg::Cr0, cr0 | CR0_TS)?;

        // From here on whatever is wrong is the new task's.
        self.in_old_task = false;
        if reason == TaskSwitchReason::IdtGate {
            self.cpu.event_delivered()?;
        }
        let mut task = Task::load(new.format, &image);
        if nested {
            task.flags |= FLAG_NESTED;
        }
        self.load(&task)?;
        let stack = self.load_segments(&task)?;
        if let Some(code) = self.request.error_code {
            self.push_error_code(&task, stack, new.format, code)?;
        }
        if task.trap {
            let dr6 = self.cpu.register(Reg::Dr6)?;
            self.cpu.set_register(Reg::Dr6, dr6 | DR6_TASK_SWITCH)?;
            return Err(self.exception(DEBUG, None));
        }
        Ok(())
    }

    /// The TSS to go to, checked (8.3, steps 1 to 6).
    fn new_tss(&mut self) -> Step<C, Tss<C::Place>> {
        let selector = Selector(self.request.tss_selector);
        let returning = self.request.reason == TaskSwitchReason::Iret;
        let unfit = if returning {
            INVALID_TSS
        } else {
            GENERAL_PROTECTION
        };
        if selector.is_null() || selector.is_local() {
            return Err(self.about(unfit, selector));
        }
        let gdt = self.cpu.desc(SegReg::Gdtr)?;
        let (descriptor, descriptor_place) = self.descriptor(&gdt, selector, true, unfit)?;
        let Some(format) = descriptor.tss().filter(|_| descriptor.busy() == returning) else {
            return Err(self.about(unfit, selector));
        };
        if !descriptor.present() {
            return Err(self.about(NOT_PRESENT, selector));
        }
        if (descriptor.limit() as usize) < format.size() - 1 {
            return Err(self.about(INVALID_TSS, selector));
        }
        let image = self.place(Gla(descriptor.base()), format.size(), true)?;
        Ok(Tss {
            selector,
            format,
            descriptor,
            descriptor_place,
            image,
        })
    }

    /// The TSS that the task register has.
    fn old_tss(&mut self) -> Step<C, Tss<C::Place>> {
        let selector = Selector(self.cpu.register(Reg::Tr)? as u16);
        let register = self.cpu.desc(SegReg::Tr)?;
        // LTR was never executed.
        if selector.is_null() || selector.is_local() || !usable(&register) {
            return Err(self.about(INVALID_TSS, selector));
        }
        let Some(format) = tss_format(&register) else {
            return Err(self.about(INVALID_TSS, selector));
        };
        if (register.limit as usize) < format.saved().end - 1 {
            return Err(self.about(INVALID_TSS, selector));
        }
        let gdt = self.cpu.desc(SegReg::Gdtr)?;
        let (descriptor, descriptor_place) = self.descriptor(&gdt, selector, true, INVALID_TSS)?;
        let image = self.place(Gla(register.base), format.saved().end, true)?;
        Ok(Tss {
            selector,
            format,
            descriptor,
            descriptor_place,
            image,
        })
    }

    /// A descriptor and where it is, if its table is long enough.
    fn descriptor(
        &mut self,
        table: &SegDesc,
        selector: Selector,
        write: bool,
        unfit: u8,
    ) -> Step<C, (Descriptor, C::Place)> {
        if table.limit < selector.offset() + 7 {
            return Err(self.about(unfit, selector));
        }
        let gla = table.base.wrapping_add(selector.offset().into()) & u64::from(u32::MAX);
        let place = self.place(Gla(gla), 8, write)?;
        let mut bytes = [0; 8];
        self.cpu.load(&place, &mut bytes)?;
        Ok((Descriptor(u64::from_le_bytes(bytes)), place))
    }

    /// Step 8. The flags of a task that is left for good are no longer nested.
    fn save(&mut self, old: &Tss<C::Place>, next_ip: u32) -> Step<C, ()> {
        let mut task = Task {
            ip: next_ip,
            flags: self.cpu.register(Reg::Rflags)? as u32,
            ..Task::default()
        };
        if self.request.reason == TaskSwitchReason::Iret {
            task.flags &= !FLAG_NESTED;
        }
        for (value, reg) in task.general.iter_mut().zip(Reg::GENERAL) {
            *value = self.cpu.register(reg)? as u32;
        }
        for (value, (_, reg)) in task.selectors.iter_mut().zip(SEGMENTS) {
            *value = self.cpu.register(reg)? as u16;
        }
        let mut image = [0; MAX_LEN];
        let end = old.format.saved().end;
        self.cpu.load(&old.image, &mut image[..end])?;
        task.save(old.format, &mut image);
        Ok(self.cpu.store(&old.image, &image[..end])?)
    }

    /// The new task's TSS, after the old one was saved: they may be the same.
    fn image(&mut self, new: &Tss<C::Place>) -> Step<C, [u8; MAX_LEN]> {
        let mut image = [0; MAX_LEN];
        self.cpu.load(&new.image, &mut image[..new.format.size()])?;
        Ok(image)
    }

    /// Registers of the new task (step 12), but for what its segments are.
    fn load(&mut self, task: &Task) -> Step<C, ()> {
        let flags = task.flags & FLAGS | FLAG_FIXED;
        self.cpu.set_register(Reg::Rip, task.ip.into())?;
        self.cpu.set_register(Reg::Rflags, flags.into())?;
        for (value, reg) in task.general.into_iter().zip(Reg::GENERAL) {
            self.cpu.set_register(reg, value.into())?;
        }
        for (value, (_, reg)) in task.selectors.into_iter().zip(SEGMENTS) {
            self.cpu.set_register(reg, value.into())?;
        }
        self.cpu.set_register(Reg::Ldtr, task.ldt.into())?;
        let dr7 = self.cpu.register(Reg::Dr7)?;
        self.cpu.set_register(Reg::Dr7, dr7 & !DR7_LOCAL)?;
        match task.cr3 {
            Some(cr3) if self.supervisor.paging_mode != PagingMode::Flat => self.load_cr3(cr3),
            _ => Ok(()),
        }
    }

    fn load_cr3(&mut self, cr3: u32) -> Step<C, ()> {
        if self.supervisor.paging_mode == PagingMode::Pae {
            let mut bytes = [0; 32];
            let table = Gpa(u64::from(cr3 & !31));
            if self.cpu.physical(table, &mut bytes)?.is_none() {
                return Err(self.exception(GENERAL_PROTECTION, Some(0)));
            }
            let mut pdptes = [0; 4];
            for (pdpte, bytes) in pdptes.iter_mut().zip(bytes.chunks_exact(8)) {
                *pdpte = bytes
                    .iter()
                    .rev()
                    .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
                let reserved = PDPTE_RESERVED | !PDPTE_ADDRESS;
                if *pdpte & 1 != 0 && *pdpte & reserved != 0 {
                    return Err(self.exception(GENERAL_PROTECTION, Some(0)));
                }
            }
            let registers = [Reg::Pdpte0, Reg::Pdpte1, Reg::Pdpte2, Reg::Pdpte3];
            for (pdpte, reg) in pdptes.into_iter().zip(registers) {
                self.cpu.set_register(reg, pdpte)?;
            }
        }
        self.cpu.set_register(Reg::Cr3, cr3.into())?;
        self.supervisor.cr3 = cr3.into();
        Ok(())
    }

    fn place(&mut self, gla: Gla, len: usize, write: bool) -> Step<C, C::Place> {
        let place = self.cpu.translate(&self.supervisor, gla, len, write)?;
        place.ok_or(Stop::PageFault)
    }

    /// An exception about a selector.
    fn about(&self, vector: u8, selector: Selector) -> Stop<C::Error> {
        self.exception(vector, Some(selector.error_code(self.request.ext)))
    }

    fn exception(&self, vector: u8, error_code: Option<u32>) -> Stop<C::Error> {
        Stop::Exception(Exception {
            vector,
            error_code,
            in_old_task: self.in_old_task,
        })
    }
}

#[cfg(test)]
mod tests;
