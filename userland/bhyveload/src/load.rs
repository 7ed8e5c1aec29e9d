//! A plan carried out on a VM: memory, its contents, the vcpu's state.

#![forbid(unsafe_code)]

use vmmapi::{Capability, Error, Gpa, MemFlags, MmapStyle, OpenFlags, Vcpu, VcpuId, Vm};

use crate::options::{FileArg, Options};
use crate::plan::{File, Plan, Request, Start};

/// Reads the files that the options name beside the kernel, and that.
pub fn read_files(options: &Options, kernel: &FileArg) -> Result<Request, String> {
    let read = |arg: &FileArg| {
        let bytes =
            std::fs::read(&arg.path).map_err(|e| format!("{}: {}", arg.path, cli::io_error(&e)))?;
        Ok(File {
            path: arg.path.clone(),
            arguments: arg.arguments.clone(),
            bytes,
        })
    };
    Ok(Request {
        kernel: read(kernel)?,
        modules: options
            .modules
            .iter()
            .map(read)
            .collect::<Result<_, String>>()?,
        initrd: options.initrd.as_ref().map(read).transpose()?,
        format: options.format,
        load_address: options.load_address,
        entry: options.entry,
        memory: options.memory,
    })
}

/// A VM with its memory.
pub struct Opened {
    pub vm: Vm,
    /// It was not there before.
    is_new: bool,
}

impl Opened {
    /// Creates the VM, or resets the one of that name.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let opened = match Vm::create(&options.vm) {
            Ok(vm) => Self { vm, is_new: true },
            Err(error) if error.is(libc::EEXIST) => {
                let flags = OpenFlags {
                    reinit: true,
                    ..OpenFlags::default()
                };
                let vm = Vm::open_with(&options.vm, flags)?;
                Self { vm, is_new: false }
            }
            Err(error) => return Err(error),
        };
        let mut flags = MemFlags::empty();
        flags.set(MemFlags::WIRED, options.wired);
        flags.set(MemFlags::INCORE, options.in_core);
        opened.vm.set_memflags(flags);
        match opened.vm.setup_memory(options.memory, MmapStyle::All) {
            Ok(()) => Ok(opened),
            Err(error) => {
                opened.discard();
                Err(error)
            }
        }
    }

    /// Destroys a VM that was created here: what failed is the error to report, whatever
    /// comes of that.
    pub fn discard(self) {
        if self.is_new {
            let _ = self.vm.destroy();
        }
    }
}

/// Carries the plan out on the VM.
pub fn load(options: &Options, plan: &Plan<'_>) -> Result<(), Error> {
    let opened = Opened::open(options)?;
    let result = carry_out(&opened.vm, plan);
    if result.is_err() {
        opened.discard();
    }
    result
}

fn carry_out(vm: &Vm, plan: &Plan<'_>) -> Result<(), Error> {
    for piece in &plan.pieces {
        // A size beyond usize is beyond the guest's memory, which map_gpa() finds.
        let len = usize::try_from(piece.len).unwrap_or(usize::MAX);
        let range = vm.map_gpa(Gpa(piece.gpa), len)?;
        range.copy_to(0, &piece.data)?;
        range.fill(piece.data.len(), len - piece.data.len(), 0)?;
    }
    set_state(&vm.vcpu(VcpuId::BSP), &plan.start)
}

fn set_state(vcpu: &Vcpu, start: &Start) -> Result<(), Error> {
    let state = match start {
        Start::State(state) => state,
        Start::FreeBsd {
            entry,
            page_tables,
            gdt,
            stack,
        } => return vcpu.setup_freebsd_registers(*entry, *page_tables, *gdt, *stack),
    };
    // Real mode and protected mode without paging need it.
    vcpu.set_capability(Capability::UnrestrictedGuest, 1)?;
    for (seg, desc) in &state.descriptors {
        vcpu.set_desc(*seg, *desc)?;
    }
    for (reg, value) in &state.registers {
        vcpu.set_register(*reg, *value)?;
    }
    Ok(())
}
