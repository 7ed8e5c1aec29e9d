//! What other threads and processes do to a VM that runs: interrupt it, look at it, end it,
//! destroy it, die.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use vmmapi::{Exit, Reg, SuspendHow, VcpuId};

use crate::machine::{CODE, Machine, on_one_cpu, pin};

crate::tests! {
    a_register_of_a_running_vcpu,
    suspend_ends_a_running_vcpu,
    destroy_ends_a_running_vcpu,
    destroy_ends_a_halted_vcpu,
    nmi_wakes_a_halted_vcpu,
    a_halted_vcpu_stays_halted,
    the_vcpu_moves_between_cpus,
}

pub const SPIN: [u8; 2] = [0xeb, 0xfe]; // jmp $

/// Runs the vcpu in a thread of its own until it returns something else than "run again".
pub fn in_background(m: &Machine) -> mpsc::Receiver<Result<Exit, vmmapi::Error>> {
    let (send, receive) = mpsc::channel();
    let cpu = m.cpu.clone();
    thread::spawn(move || {
        let last = loop {
            match cpu.run() {
                Ok(exit) if matches!(exit.exit, Exit::Bogus | Exit::Reqidle) => {}
                other => break other.map(|e| e.exit),
            }
        };
        // The test may have failed and gone.
        let _ = send.send(last);
    });
    thread::sleep(Duration::from_millis(50));
    receive
}

pub fn ended(
    background: &mpsc::Receiver<Result<Exit, vmmapi::Error>>,
) -> Result<Exit, vmmapi::Error> {
    background
        .recv_timeout(Duration::from_secs(60))
        .expect("the vcpu's thread never returned")
}

fn a_register_of_a_running_vcpu() {
    let m = Machine::real(&SPIN);
    let background = in_background(&m);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(m.reg(Reg::Rip), CODE);
    }
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "twenty reads took {:?}",
        start.elapsed()
    );
    // On one CPU the vcpu has made room for this thread before it asks.
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        assert!(m.stat("number of times idle requested at exit") >= 1);
    }
    m.vm.suspend(SuspendHow::Poweroff).unwrap();
    assert_eq!(
        ended(&background),
        Ok(Exit::Suspended(SuspendHow::Poweroff))
    );
}

fn suspend_ends_a_running_vcpu() {
    let m = Machine::real(&SPIN);
    let background = in_background(&m);
    m.vm.suspend(SuspendHow::Reset).unwrap();
    assert_eq!(ended(&background), Ok(Exit::Suspended(SuspendHow::Reset)));
}

fn destroy_ends_a_running_vcpu() {
    let m = Machine::real(&SPIN);
    let background = in_background(&m);
    vmmapi::vm::destroy(m.vm.name()).unwrap();
    let last = ended(&background);
    assert!(
        matches!(&last, Ok(Exit::Suspended(SuspendHow::Destroy)))
            || matches!(&last, Err(e) if e.is(libc::ENXIO)),
        "{last:?}"
    );
    std::mem::forget(m); // nothing is left to destroy
}

fn destroy_ends_a_halted_vcpu() {
    let m = Machine::real(&[0xfb, 0xf4]); // sti; hlt
    m.cpu
        .set_capability(vmmapi::Capability::HaltExit, 1)
        .unwrap();
    let background = in_background(&m);
    vmmapi::vm::destroy(m.vm.name()).unwrap();
    let _ = ended(&background);
    std::mem::forget(m); // nothing is left to destroy
}

fn nmi_wakes_a_halted_vcpu() {
    on_one_cpu(|| {
        let m = Machine::real(&[0xfb, 0xf4, 0xe6, 0x81]); // sti; hlt; out 0x81, al
        m.load(2 * 4, &[0x00, 0x20, 0x00, 0x00]);
        m.load(0x2000, &[0xe6, 0x80, 0xcf]); // out 0x80, al; iret
        m.cpu
            .set_capability(vmmapi::Capability::HaltExit, 1)
            .unwrap();
        let background = in_background(&m);
        m.cpu.inject_nmi().unwrap();
        let port = |exit| match exit {
            Ok(Exit::Inout(io)) => io.port,
            other => panic!("{other:?}"),
        };
        let first = port(ended(&background));
        let counts = [
            "number of NMIs delivered to vcpu",
            "number of times hlt was intercepted",
        ]
        .map(|desc| m.stat(desc));
        // GUEST_INTERRUPTIBILITY_STATE tells what held the NMI back.
        let blocking = m.cpu.control_field(1 << 31 | 0x4824);
        assert_eq!(
            first, 0x80,
            "the handler; NMIs, HLTs: {counts:?}, blocking {blocking:x?}"
        );
        assert_eq!(port(m.cpu.run().map(|e| e.exit)), 0x81, "behind HLT");
    });
}

/// Looking at a halted vcpu must not wake its guest.
fn a_halted_vcpu_stays_halted() {
    let m = Machine::real(&[0xfb, 0xf4, 0xe6, 0x81]); // sti; hlt; out 0x81, al
    m.cpu
        .set_capability(vmmapi::Capability::HaltExit, 1)
        .unwrap();
    let background = in_background(&m);
    for _ in 0..5 {
        assert_eq!(m.reg(Reg::Rip), CODE + 2);
    }
    assert!(
        background.recv_timeout(Duration::from_millis(300)).is_err(),
        "HLT ended by itself"
    );
    m.vm.suspend(SuspendHow::Poweroff).unwrap();
    assert_eq!(
        ended(&background),
        Ok(Exit::Suspended(SuspendHow::Poweroff))
    );
}

/// With two host CPUs the vcpu is run on each in turn, and keeps its state.
fn the_vcpu_moves_between_cpus() {
    let m = Machine::long(&[
        0x48, 0xff, 0xc0, // inc rax
        0xe6, 0x80, // out 0x80, al
        0xeb, 0xf9, // jmp back
    ]);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    for round in 1..=20u64 {
        pin(round as usize % cpus);
        assert!(matches!(m.run().exit, Exit::Inout(_)));
        assert_eq!(m.reg(Reg::Rax), round);
    }
    let migrations = m.stat("vcpu migration across host cpus");
    if cpus > 1 {
        assert!(migrations >= 19, "{migrations} migrations");
    }
    assert!(m.vm.active_cpus().unwrap().contains(VcpuId::BSP));
}
