//! `kvm_vm COMMAND [ARGUMENT…]`: creates an empty VM under Linux's KVM and runs a command
//! while it exists. For the tests of what our module does next to another hypervisor.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::{Command, ExitCode};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((program, arguments)) = arguments.split_first() else {
        eprintln!("usage: kvm_vm COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let _vm = match create() {
        Ok(vm) => vm,
        Err(error) => {
            eprintln!("kvm_vm: /dev/kvm: {error}");
            return ExitCode::from(2);
        }
    };
    println!("created a VM under KVM");
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kvm_vm: {program}: {error}");
            ExitCode::from(2)
        }
    }
}

/// KVM_CREATE_VM. Its file holds the VM, and is closed in programs that we start.
#[cfg(target_os = "linux")]
fn create() -> std::io::Result<std::os::fd::OwnedFd> {
    use std::fs::File;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    const KVM_CREATE_VM: libc::c_ulong = 0xae01;
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    // SAFETY: the request takes a number and returns a descriptor or -1.
    let vm = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM as _, 0) };
    if vm < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(vm) })
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("kvm_vm: KVM is Linux's");
    std::process::exit(2);
}
