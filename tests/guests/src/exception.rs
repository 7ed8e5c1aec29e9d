//! Exceptions. An unexpected one ends the program with a line that tells where; an expected
//! one is what [`expect!`] returns. Vectors from 32 on are interrupts, see
//! [`crate::interrupt`].

use core::cell::UnsafeCell;

/// The registers that exception_common pushed (boot.s), then what the CPU pushed.
#[repr(C)]
pub struct Frame {
    pub registers: [u64; 15],
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// An exception that was expected and came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    pub vector: u64,
    pub error_code: u64,
    /// Of the instruction that the CPU blames.
    pub rip: u64,
}

const TRAP_FLAG: u64 = 1 << 8;

/// Where to go on after an expected exception; 0 when none is expected.
#[unsafe(no_mangle)]
static mut KIT_RESUME: u64 = 0;

struct State(UnsafeCell<Option<Exception>>);
// SAFETY: a guest program has one CPU.
unsafe impl Sync for State {}
static CAUGHT: State = State(UnsafeCell::new(None));

#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Gate(u64, u64);
struct Idt(UnsafeCell<[Gate; 256]>);
// SAFETY: written once, before the CPU uses it.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([Gate(0, 0); 256]));

unsafe extern "C" {
    static exception_stubs: [u64; 32];
    static interrupt_stubs: [[u8; 16]; 224];
}

/// Loads an IDT with a gate for each vector (SDM vol. 3A, 6.14.1).
pub fn init() {
    #[repr(C, packed)]
    struct Idtr(u16, u64);
    // SAFETY: runs once before anything uses the table; the stubs are addresses of code.
    unsafe {
        let exceptions = exception_stubs.iter().copied();
        let interrupts = interrupt_stubs.iter().map(|stub| stub.as_ptr() as u64);
        let stubs = exceptions.chain(interrupts);
        for (gate, stub) in (*IDT.0.get()).iter_mut().zip(stubs) {
            let low = stub & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (stub >> 16 & 0xffff) << 48;
            *gate = Gate(low, stub >> 32);
        }
        let idtr = Idtr((size_of::<Idt>() - 1) as u16, IDT.0.get() as u64);
        core::arch::asm!("lidt [{}]", in(reg) &raw const idtr, options(nostack));
    }
}

#[unsafe(no_mangle)]
extern "C" fn kit_exception(frame: &mut Frame) {
    if let Ok(vector @ 32..) = u8::try_from(frame.vector) {
        crate::interrupt::arrived(vector, frame.rip);
        return;
    }
    // SAFETY: one CPU, and an exception interrupts the only writer at a known instruction.
    unsafe {
        if KIT_RESUME == 0 {
            let cr2: u64;
            core::arch::asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack));
            crate::println!(
                "GUEST-FAIL: unexpected exception {} error {:#x} at {:#x}, rsp {:#x}, cr2 {:#x}",
                frame.vector,
                frame.error_code,
                frame.rip,
                frame.rsp,
                cr2
            );
            crate::poweroff();
        }
        *CAUGHT.0.get() = Some(Exception {
            vector: frame.vector,
            error_code: frame.error_code,
            rip: frame.rip,
        });
        frame.rip = KIT_RESUME;
        // After a single step the flags on the stack have TF, which IRET would set again.
        frame.rflags &= !TRAP_FLAG;
        KIT_RESUME = 0;
    }
}

/// The exception that came since the last call.
pub fn take() -> Option<Exception> {
    // SAFETY: one CPU; the exception handler is not running here.
    unsafe { (*CAUGHT.0.get()).take() }
}

/// Executes instructions and returns the exception that they raise, if they do:
/// `expect!("vmcall")`, `expect!("mov cr8, {}", in(reg) 16u64)`. They must not move RSP.
#[macro_export]
macro_rules! expect {
    ($inst:literal $(, $($operand:tt)*)?) => {{
        // SAFETY: the instruction's effects are the test's business; after an exception
        // execution goes on behind it.
        unsafe {
            core::arch::asm!(
                "push rax",
                "lea rax, [rip + 77f]",
                "mov [KIT_RESUME], rax",
                "pop rax",
                $inst,
                "77:",
                "mov qword ptr [KIT_RESUME], 0",
                $($($operand)*)?
            );
        }
        $crate::exception::take()
    }};
}
