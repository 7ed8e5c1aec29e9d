//! Interrupt controllers and timers of the kernel, with a few instructions of guest around
//! them: interrupts arrive when they may, in the order of their priorities, from each of
//! their sources.
//!
//! Every handler is `out PORT, al; iret`, so that an exit says which interrupt came.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use vmmapi::devices::{Trigger, X2apicState};
use vmmapi::{Capability, Exit, Gpa, Reg, VcpuId};

use crate::abi::refused;
use crate::machine::Machine;

crate::tests! {
    an_interrupt_ends_hlt,
    an_interrupt_waits_for_if,
    the_task_priority_holds_back,
    the_higher_vector_comes_first_and_the_lower_after_eoi,
    an_msi_arrives,
    an_edge_at_the_io_apic_arrives_once,
    a_level_at_the_io_apic_comes_again_after_eoi,
    an_isa_interrupt_comes_through_the_8259s,
    the_8254_interrupts_through_the_8259s,
    the_local_apic_timer_goes_off,
    a_local_nmi_arrives,
    init_and_start_up_ipis_come_to_userland,
    bad_interrupts_are_refused,
    registers_of_kernel_devices,
    the_real_time_clock,
}

const APIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;
/// The local APIC's registers, by their offsets.
const TPR: u64 = 0x80;
const EOI: u64 = 0xb0;
const SVR: u64 = 0xf0;
const LVT_TIMER: u64 = 0x320;
const LVT_LINT0: u64 = 0x350;
const LVT_LINT1: u64 = 0x360;
const INITIAL_COUNT: u64 = 0x380;
const DIVIDE: u64 = 0x3e0;

/// Where the guest's code goes on after HLT or STI.
const DONE: u16 = 0x99;

/// Lower ports are devices' of the kernel.
const PORT: u8 = 0x80;

/// A guest in real mode: the code, handlers for vectors 30H to 6FH, the APIC enabled.
/// Vector V's handler writes to port V + [`PORT`].
fn guest(code: &[u8]) -> Machine {
    let m = Machine::real(code);
    for vector in 0x30..0x70u8 {
        let at = 0x2000 + u16::from(vector) * 4;
        let [low, high] = at.to_le_bytes();
        m.load(u64::from(vector) * 4, &[low, high, 0, 0]);
        m.load(at.into(), &[0xe6, vector + PORT, 0xcf]); // out VECTOR + PORT, al; iret
    }
    // FreeBSD's kernel spins in HLT otherwise.
    m.cpu.set_capability(Capability::HaltExit, 1).unwrap();
    apic(&m, SVR, 0x1ff);
    m
}

/// sti; hlt; out DONE, al; jmp back to hlt
const HLT_LOOP: [u8; 6] = [0xfb, 0xf4, 0xe6, DONE as u8, 0xeb, 0xfb];

fn apic(m: &Machine, register: u64, value: u32) {
    m.cpu
        .write_kernemu_device(Gpa(APIC + register), 4, value.into())
        .unwrap();
}

fn apic_read(m: &Machine, register: u64) -> u32 {
    m.cpu.read_kernemu_device(Gpa(APIC + register), 4).unwrap() as u32
}

/// Points a pin of the I/O APIC at vcpu 0.
fn redirect(m: &Machine, pin: u64, low: u32) {
    for (register, value) in [(0x11 + 2 * pin, 0), (0x10 + 2 * pin, low)] {
        let write = |offset, value| {
            let gpa = Gpa(IOAPIC + offset);
            m.cpu.write_kernemu_device(gpa, 4, value).unwrap();
        };
        write(0, register);
        write(0x10, value.into());
    }
}

/// The port that the vector's handler writes to.
fn interrupt(vector: u8) -> u16 {
    u16::from(vector + PORT)
}

/// The port of the next OUT.
fn next_port(m: &Machine) -> u16 {
    match m.run().exit {
        Exit::Inout(io) if !io.input => io.port,
        other => panic!("{other:?} instead of an OUT"),
    }
}

/// The same, of a guest that has time only until then.
fn next_port_soon(m: &Machine) -> u16 {
    let (send, receive) = mpsc::channel();
    let cpu = m.cpu.clone();
    thread::spawn(move || {
        let port = loop {
            match cpu.run().map(|exit| exit.exit) {
                Ok(Exit::Bogus | Exit::Reqidle) => {}
                Ok(Exit::Inout(io)) if !io.input => break Ok(io.port),
                other => break Err(other),
            }
        };
        let _ = send.send(port);
    });
    let port = receive.recv_timeout(Duration::from_secs(30));
    port.expect("no interrupt came")
        .unwrap_or_else(|other| panic!("{other:?}"))
}

fn an_interrupt_ends_hlt() {
    let m = guest(&HLT_LOOP);
    let cpu = m.cpu.clone();
    let sender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        cpu.lapic_irq(0x40).unwrap();
    });
    assert_eq!(next_port_soon(&m), interrupt(0x40));
    sender.join().unwrap();
    assert_eq!(next_port(&m), DONE);
}

fn an_interrupt_waits_for_if() {
    // out 98h, al; sti; nop; nop; out DONE, al
    let m = guest(&[0xe6, 0x98, 0xfb, 0x90, 0x90, 0xe6, DONE as u8]);
    m.cpu.lapic_irq(0x40).unwrap();
    assert_eq!(next_port(&m), 0x98);
    assert_eq!(m.reg(Reg::Rflags) & 0x200, 0);
    assert_eq!(next_port(&m), interrupt(0x40));
    // One instruction behind STI, and no earlier.
    let ip = m.vm.memory().read::<u16>(Gpa(m.reg(Reg::Rsp))).unwrap();
    assert_eq!(u64::from(ip), crate::machine::CODE + 4);
    assert_eq!(next_port(&m), DONE);
}

fn the_task_priority_holds_back() {
    // sti; nop; out DONE, al; jmp to the OUT
    let m = guest(&[0xfb, 0x90, 0xe6, DONE as u8, 0xeb, 0xfc]);
    apic(&m, TPR, 0x50);
    m.cpu.lapic_irq(0x5f).unwrap();
    m.cpu.lapic_irq(0x60).unwrap();
    assert_eq!(next_port(&m), interrupt(0x60));
    apic(&m, EOI, 0);
    assert_eq!(next_port(&m), DONE);
    assert_eq!(m.reg(Reg::Tpr), 5);
    apic(&m, TPR, 0x4f);
    assert_eq!(next_port(&m), interrupt(0x5f));
}

fn the_higher_vector_comes_first_and_the_lower_after_eoi() {
    let m = guest(&[0xfb, 0x90, 0xe6, DONE as u8, 0xeb, 0xfc]);
    for vector in [0x40, 0x60, 0x48] {
        m.cpu.lapic_irq(vector).unwrap();
    }
    assert_eq!(next_port(&m), interrupt(0x60));
    assert_eq!(apic_read(&m, 0x130), 1, "60H is in service");
    assert_eq!(
        next_port(&m),
        DONE,
        "nothing below its class comes before the EOI"
    );
    apic(&m, EOI, 0);
    assert_eq!(next_port(&m), interrupt(0x48));
    apic(&m, EOI, 0);
    assert_eq!(next_port(&m), interrupt(0x40));
}

fn an_msi_arrives() {
    let m = guest(&HLT_LOOP);
    m.vm.lapic_msi(APIC, 0x42).unwrap();
    assert_eq!(next_port_soon(&m), interrupt(0x42));
}

fn an_edge_at_the_io_apic_arrives_once() {
    let m = guest(&[0xfb, 0x90, 0xe6, DONE as u8, 0xeb, 0xfc]);
    redirect(&m, 20, 0x45);
    m.vm.ioapic_assert_irq(20).unwrap();
    assert_eq!(next_port(&m), interrupt(0x45));
    apic(&m, EOI, 0);
    assert_eq!(
        next_port(&m),
        DONE,
        "the line is still high, but there was one edge"
    );
    m.vm.ioapic_deassert_irq(20).unwrap();
    m.vm.ioapic_assert_irq(20).unwrap();
    assert_eq!(next_port(&m), interrupt(0x45));
}

fn a_level_at_the_io_apic_comes_again_after_eoi() {
    let m = guest(&[0xfb, 0x90, 0xe6, DONE as u8, 0xeb, 0xfc]);
    redirect(&m, 21, 0x46 | 1 << 15);
    m.vm.ioapic_assert_irq(21).unwrap();
    assert_eq!(next_port(&m), interrupt(0x46));
    assert_eq!(next_port(&m), DONE);
    apic(&m, EOI, 0);
    assert_eq!(next_port(&m), interrupt(0x46), "the line is still high");
    m.vm.ioapic_deassert_irq(21).unwrap();
    apic(&m, EOI, 0);
    assert_eq!(next_port(&m), DONE);
    assert_eq!(next_port(&m), DONE);
}

/// The start of a guest that uses the 8259s: vectors from 30H, all masked but `irq`, and
/// automatic EOI.
fn init_8259(irq: u8) -> Vec<u8> {
    let mut code = Vec::new();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, 3),
        (0x21, !(1 << irq)),
    ] {
        code.extend([0xb0, value, 0xe6, port]); // mov al, VALUE; out PORT, al
    }
    code
}

fn an_isa_interrupt_comes_through_the_8259s() {
    let mut code = init_8259(4);
    code.extend([0xe6, 0x98]); // out 98h, al
    code.extend(HLT_LOOP);
    let m = guest(&code);
    apic(&m, LVT_LINT0, 0x700);
    assert_eq!(next_port(&m), 0x98, "the 8259s' ports are the kernel's");
    m.vm.isa_pulse_irq(4, None).unwrap();
    assert_eq!(next_port_soon(&m), interrupt(0x34));
    assert_eq!(next_port(&m), DONE);
    m.vm.isa_pulse_irq(5, None).unwrap(); // masked
    m.vm.isa_pulse_irq(4, None).unwrap();
    assert_eq!(next_port_soon(&m), interrupt(0x34));
}

fn the_8254_interrupts_through_the_8259s() {
    let mut code = init_8259(0);
    // Counter 0, low and high byte, mode 0: 1193 ticks are a millisecond.
    for (port, value) in [(0x43, 0x30), (0x40, 0xa9), (0x40, 0x04)] {
        code.extend([0xb0, value, 0xe6, port]);
    }
    code.extend(HLT_LOOP);
    let m = guest(&code);
    apic(&m, LVT_LINT0, 0x700);
    assert_eq!(next_port_soon(&m), interrupt(0x30));
}

fn the_local_apic_timer_goes_off() {
    let m = guest(&HLT_LOOP);
    apic(&m, DIVIDE, 0xb); // by 1
    apic(&m, LVT_TIMER, 0x4a);
    apic(&m, INITIAL_COUNT, 100_000);
    assert_eq!(next_port_soon(&m), interrupt(0x4a));
    assert_eq!(apic_read(&m, 0x390), 0, "one-shot: the count has ended");
    assert_eq!(next_port(&m), DONE);
    apic(&m, EOI, 0);
    apic(&m, LVT_TIMER, 0x2_004b); // periodic
    apic(&m, INITIAL_COUNT, 100_000);
    let mut ticks = 0;
    while ticks < 3 {
        if next_port_soon(&m) == interrupt(0x4b) {
            ticks += 1;
            apic(&m, EOI, 0);
        }
    }
}

fn a_local_nmi_arrives() {
    crate::machine::on_one_cpu(|| {
        let m = guest(&HLT_LOOP);
        m.load(2 * 4, &[0x00, 0x30, 0x00, 0x00]);
        m.load(0x3000, &[0xe6, 0x82, 0xcf]); // out 82h, al; iret
        apic(&m, LVT_LINT1, 0x400);
        m.cpu.lapic_local_irq(1).unwrap();
        assert_eq!(next_port_soon(&m), 0x82);
        // The handler's IRET unblocks NMIs, which Bochs keeps with the CPU.
        m.cpu.lapic_irq(0x50).unwrap();
        assert_eq!(next_port_soon(&m), interrupt(0x50));
    });
}

fn init_and_start_up_ipis_come_to_userland() {
    // Into x2APIC mode, then INIT and start-up at 2000H for APIC id 1.
    let mut code = vec![0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32]; // mov ecx, 1bh; rdmsr
    code.extend([0x66, 0x0d, 0x00, 0x0c, 0, 0, 0x0f, 0x30]); // or eax, 0c00h; wrmsr
    code.extend([0x66, 0xb9, 0x30, 8, 0, 0, 0x66, 0xba, 1, 0, 0, 0]); // mov ecx, 830h; mov edx, 1
    code.extend([0x66, 0xb8, 0x00, 0x45, 0, 0, 0x0f, 0x30]); // mov eax, 4500h; wrmsr
    code.extend([0x66, 0xb8, 0x02, 0x46, 0, 0, 0x0f, 0x30]); // mov eax, 4602h; wrmsr
    code.extend([0x0f, 0x30, 0xe6, DONE as u8]); // wrmsr; out DONE, al
    let m = Machine::real(&code);
    if m.vm.topology().unwrap().maxcpus < 2 {
        println!("skipped: a VM has one vcpu at most here (hw.vmm.maxcpu)");
        return;
    }
    m.cpu.set_x2apic_state(X2apicState::Enabled).unwrap();
    m.cpu.set_capability(Capability::IpiExit, 1).unwrap();
    let ap = m.vm.vcpu(VcpuId(1));
    ap.activate().unwrap();
    for (expected_mode, expected_vector) in [(0x500, 0), (0x600, 2)] {
        match m.run().exit {
            Exit::Ipi { mode, vector, dest } => {
                assert_eq!((mode, vector), (expected_mode, expected_vector));
                assert_eq!(dest.iter().collect::<Vec<_>>(), [VcpuId(1)]);
            }
            other => panic!("{other:?} instead of an IPI"),
        }
    }
    // The second start-up IPI finds no processor that waits for one.
    assert_eq!(next_port(&m), DONE);
}

fn bad_interrupts_are_refused() {
    let m = Machine::new();
    refused(m.cpu.lapic_irq(15), libc::EINVAL, "vector 15");
    refused(m.cpu.lapic_local_irq(7), libc::EINVAL, "LVT entry 7");
    refused(m.cpu.lapic_local_irq(-1), libc::EINVAL, "LVT entry -1");
    let pins = m.vm.ioapic_pincount().unwrap();
    assert!(pins >= 24, "{pins}");
    for pin in [-1, pins, i32::MAX, i32::MIN] {
        refused(m.vm.ioapic_assert_irq(pin), libc::EINVAL, "a pin");
        refused(m.vm.ioapic_deassert_irq(pin), libc::EINVAL, "a pin");
        refused(m.vm.ioapic_pulse_irq(pin), libc::EINVAL, "a pin");
    }
    for irq in [-1, 16, i32::MAX] {
        refused(
            m.vm.isa_assert_irq(irq, None),
            libc::EINVAL,
            "an ISA interrupt",
        );
        refused(
            m.vm.isa_deassert_irq(irq, None),
            libc::EINVAL,
            "an ISA interrupt",
        );
        refused(
            m.vm.isa_pulse_irq(irq, None),
            libc::EINVAL,
            "an ISA interrupt",
        );
        let trigger = m.vm.isa_set_irq_trigger(irq, Trigger::Level);
        refused(trigger, libc::EINVAL, "an ISA interrupt's trigger");
    }
    refused(
        m.vm.isa_assert_irq(4, Some(pins)),
        libc::EINVAL,
        "a pin for IRQ 4",
    );
    for irq in [0, 1, 2, 8, 13] {
        let trigger = m.vm.isa_set_irq_trigger(irq, Trigger::Level);
        refused(trigger, libc::EINVAL, "the timer's trigger");
    }
    m.vm.isa_set_irq_trigger(5, Trigger::Level).unwrap();
}

fn registers_of_kernel_devices() {
    let m = Machine::new();
    assert_eq!(apic_read(&m, 0x20), 0, "the bootstrap processor's id");
    assert_eq!(apic_read(&m, 0x30) & 0xf0, 0x10, "an integrated local APIC");
    assert_eq!(apic_read(&m, SVR), 0xff);
    let hpet = m.cpu.read_kernemu_device(Gpa(0xfed0_0000), 4).unwrap();
    assert_eq!(hpet as u32, m.vm.hpet_capabilities().unwrap());
    assert_eq!(hpet >> 16, 0x8086);
    let nobody = m.cpu.read_kernemu_device(Gpa(0xfed4_0000), 4);
    refused(nobody, libc::EINVAL, "a register of nobody");
    let narrow = m.cpu.write_kernemu_device(Gpa(APIC + TPR), 2, 0);
    refused(narrow, libc::EINVAL, "half a register");
    let between = m.cpu.read_kernemu_device(Gpa(APIC + 0x84), 4);
    refused(between, libc::EINVAL, "between two registers");
}

fn the_real_time_clock() {
    let m = Machine::new();
    // The last second of a leap day.
    let time = UNIX_EPOCH + Duration::from_secs(1_709_251_199);
    m.vm.rtc_settime(time).unwrap();
    let passed = m.vm.rtc_time().unwrap().duration_since(time).unwrap();
    assert!(passed <= Duration::from_secs(20), "{passed:?}");
    m.vm.rtc_write(0x34, 0xa5).unwrap();
    assert_eq!(m.vm.rtc_read(0x34).unwrap(), 0xa5);
    refused(m.vm.rtc_write(0, 1), libc::EINVAL, "the seconds");
    refused(m.vm.rtc_read(128), libc::EINVAL, "byte 128");
}
