//! `bench_kvm PROGRAM [MEGABYTES]`: runs one of the guest programs (a multiboot1 ELF of
//! tests/guests) on one vcpu of Linux's KVM, with the console on stdout. It plays the same
//! userland as bhyve for what these programs do, and nothing else: COM1, PCI's address port,
//! the window to PCI's configuration space, poweroff.

#[cfg(target_os = "linux")]
mod elf;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod memory;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (program, megabytes) = match arguments.as_slice() {
        [program] => (program, Ok(128)),
        [program, megabytes] => (program, megabytes.parse()),
        _ => {
            eprintln!("usage: bench_kvm PROGRAM [MEGABYTES]");
            return ExitCode::from(2);
        }
    };
    let result = megabytes
        .map_err(|e| format!("{}: {e}", arguments[1]))
        .and_then(|megabytes| machine::run(program.as_ref(), megabytes));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_kvm: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("bench_kvm: KVM is Linux's");
    std::process::exit(2);
}
