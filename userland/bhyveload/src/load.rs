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

/// Creates the VM (or resets the one of that name) and carries the plan out. A VM that was
/// created here is destroyed again if something fails.
pub fn load(options: &Options, plan: &Plan<'_>) -> Result<(), Error> {
    match Vm::create(&options.vm) {
        Ok(vm) => {
            let result = carry_out(&vm, options, plan);
            if result.is_err() {
                // What failed first is the error to report.
                let _ = vm.destroy();
            }
            result
        }
        Err(error) if error.is(libc::EEXIST) => {
            let flags = OpenFlags {
                create: false,
                reinit: true,
            };
            carry_out(&Vm::open_with(&options.vm, flags)?, options, plan)
        }
        Err(error) => Err(error),
    }
}

fn carry_out(vm: &Vm, options: &Options, plan: &Plan<'_>) -> Result<(), Error> {
    let mut flags = MemFlags::empty();
    flags.set(MemFlags::WIRED, options.wired);
    flags.set(MemFlags::INCORE, options.in_core);
    vm.set_memflags(flags);
    vm.setup_memory(options.memory, MmapStyle::All)?;
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
