//! The registers of a host's program that a guest has too, all of them at once: on each CPU
//! a thread keeps values in the vector registers, the x87 stack, MXCSR, PKRU and behind the
//! bases of FS and GS, and a process runs with a watchpoint in the debug registers. Guests
//! that use the same registers meanwhile must not be noticed. For Linux and FreeBSD.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::thread;
use std::time::{Duration, Instant};

use crate::platform;
use crate::vectors::{self, SPIN};

/// Default control word with another rounding; MXCSR likewise.
const CONTROL_WORD: u16 = 0x0f7f;
const MXCSR: u32 = 0x1fa0;

pub fn run(seed: u64, seconds: u64) -> Result<String, String> {
    // Before there are threads: it forks.
    let watched = Watched::start()?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let cpus = platform::cpus()?;
    thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .map(|&cpu| scope.spawn(move || keep_on(cpu, seed, end)))
            .collect();
        let hits = watched.check_until(end);
        let mut rounds = Vec::new();
        for thread in threads {
            rounds.push(thread.join().map_err(|_| "state: a thread panicked")??);
        }
        let hits = hits?;
        Ok(format!(
            "state: {}, x87, MXCSR, FS, GS{} kept their values {rounds:?} times on {} CPUs; {}",
            vectors::kind(),
            if has_pkru() { ", PKRU" } else { "" },
            cpus.len(),
            match hits {
                0 => "this CPU has no watchpoints".to_owned(),
                hits => format!("a watchpoint was met {hits} times"),
            }
        ))
    })
}

fn keep_on(cpu: usize, seed: u64, end: Instant) -> Result<u64, String> {
    platform::pin(cpu)?;
    let mut value = (seed + cpu as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut rounds = 0;
    // At least one, also where CPUs are slow and shared.
    while rounds == 0 || Instant::now() < end {
        value = value.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seed);
        vectors::round(value).map_err(|text| format!("CPU {cpu}: {text}"))?;
        keep_x87(value).map_err(|text| format!("CPU {cpu}: {text}"))?;
        keep_bases(value).map_err(|text| format!("CPU {cpu}: {text}"))?;
        if has_pkru() {
            keep_pkru(value as u32).map_err(|text| format!("CPU {cpu}: {text}"))?;
        }
        rounds += 1;
    }
    Ok(rounds)
}

fn keep_x87(value: u64) -> Result<(), String> {
    // Integers below 2^62 are exact in a register.
    let wanted: [u64; 8] = std::array::from_fn(|n| value.rotate_left(n as u32) >> 2);
    let mut found = [0u64; 8];
    let (mut control, mut mxcsr, mut mxcsr_before) = (0u16, 0u32, 0u32);
    // SAFETY: fills the empty x87 stack and empties it again, and leaves both control
    // registers as they were; the pointers are to arrays of eight and to these variables.
    unsafe {
        asm!(
            "stmxcsr [{mxcsr_before}]",
            "fldcw [{wanted_control}]",
            "ldmxcsr [{wanted_mxcsr}]",
            ".irp n, 0,1,2,3,4,5,6,7",
            "fild qword ptr [{wanted} + 8 * \\n]",
            ".endr",
            "2: dec {spin}",
            "jnz 2b",
            ".irp n, 7,6,5,4,3,2,1,0",
            "fistp qword ptr [{found} + 8 * \\n]",
            ".endr",
            "fnstcw [{control}]",
            "stmxcsr [{mxcsr}]",
            "fldcw [{default_control}]",
            "ldmxcsr [{mxcsr_before}]",
            wanted = in(reg) &wanted,
            found = in(reg) &mut found,
            wanted_control = in(reg) &CONTROL_WORD,
            wanted_mxcsr = in(reg) &MXCSR,
            control = in(reg) &mut control,
            mxcsr = in(reg) &mut mxcsr,
            mxcsr_before = in(reg) &mut mxcsr_before,
            default_control = in(reg) &0x037fu16,
            spin = inout(reg) SPIN => _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
    if found != wanted {
        return Err(format!("x87: {found:x?} instead of {wanted:x?}"));
    }
    // Its lower six bits collect exceptions.
    if control != CONTROL_WORD || mxcsr & !0x3f != MXCSR & !0x3f {
        return Err(format!(
            "x87 control word {control:#x} instead of {CONTROL_WORD:#x}, MXCSR {mxcsr:#x} instead of {MXCSR:#x}"
        ));
    }
    Ok(())
}

/// FS is the thread's own: it points to itself. GS nobody uses in 64-bit programs.
fn keep_bases(value: u64) -> Result<(), String> {
    let here = [value];
    platform::set_gs_base(here.as_ptr() as u64)?;
    let (fs_before, fs_after, through_gs): (u64, u64, u64);
    // SAFETY: reads the thread's control block, of which the first word is its address, and
    // `here`, to which the base of GS has been set.
    unsafe {
        asm!(
            "mov {before}, fs:[0]",
            "2: dec {spin}",
            "jnz 2b",
            "mov {after}, fs:[0]",
            "mov {gs}, gs:[0]",
            before = out(reg) fs_before,
            after = out(reg) fs_after,
            gs = out(reg) through_gs,
            spin = inout(reg) SPIN => _,
            options(nostack, readonly),
        );
    }
    platform::set_gs_base(0)?;
    if fs_before != fs_after {
        return Err(format!("fs:[0] is {fs_after:#x} instead of {fs_before:#x}"));
    }
    if through_gs != value {
        return Err(format!("gs:[0] is {through_gs:#x} instead of {value:#x}"));
    }
    Ok(())
}

/// The host uses protection keys, so the program may write PKRU.
fn has_pkru() -> bool {
    const OSPKE: u32 = 1 << 4;
    #[allow(unused_unsafe)] // needed up to Rust 1.92
    // SAFETY: every x86-64 CPU has CPUID.
    unsafe {
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx & OSPKE != 0
    }
}

fn keep_pkru(value: u32) -> Result<(), String> {
    // All memory has key 0, which stays accessible.
    let wanted = value & !3;
    let (found, before): (u32, u32);
    // SAFETY: CPUID shows that it may; the register is left as it was.
    unsafe {
        asm!(
            "xor ecx, ecx",
            "rdpkru",
            "mov {before:e}, eax",
            "mov eax, {wanted:e}",
            "xor edx, edx",
            "wrpkru",
            "2: dec {spin}",
            "jnz 2b",
            "rdpkru",
            "mov {found:e}, eax",
            "mov eax, {before:e}",
            "xor edx, edx",
            "wrpkru",
            wanted = in(reg) wanted,
            before = out(reg) before,
            found = out(reg) found,
            spin = inout(reg) SPIN => _,
            out("eax") _, out("ecx") _, out("edx") _,
            options(nostack),
        );
    }
    let _ = before;
    if found != wanted {
        return Err(format!("PKRU is {found:#x} instead of {wanted:#x}"));
    }
    Ok(())
}

/// A child that writes to one place again and again, with a watchpoint on it, and sends
/// itself a signal in between: the two must alternate.
struct Watched {
    child: libc::pid_t,
}

static mut PLACE: u64 = 0;

impl Watched {
    fn start() -> Result<Self, String> {
        // SAFETY: there is one thread, so the child may do as it likes.
        let child = unsafe { libc::fork() };
        match child {
            -1 => Err(platform::error("fork")),
            0 => write_for_ever(),
            child => {
                let watched = Self { child };
                let signal = watched.wait()?;
                if signal != libc::SIGSTOP {
                    return Err(format!("state: the child stopped with signal {signal}"));
                }
                platform::set_watchpoint(child, (&raw const PLACE) as u64)?;
                Ok(watched)
            }
        }
    }

    /// How often the watchpoint was met. Without any at first the CPU has none: some
    /// emulators don't.
    fn check_until(&self, end: Instant) -> Result<u64, String> {
        let mut hits = 0;
        while Instant::now() < end {
            platform::resume(self.child)?;
            match self.wait()? {
                libc::SIGTRAP => {}
                libc::SIGUSR1 if hits == 0 => return Ok(0),
                signal => return Err(format!("state: signal {signal} instead of a watchpoint")),
            }
            hits += 1;
            platform::resume(self.child)?;
            let signal = self.wait()?;
            if signal != libc::SIGUSR1 {
                return Err(format!("state: signal {signal} after {hits} watchpoints"));
            }
        }
        Ok(hits)
    }

    /// The signal with which the child stops.
    fn wait(&self) -> Result<i32, String> {
        let mut status = 0;
        // SAFETY: a place for the status.
        if unsafe { libc::waitpid(self.child, &raw mut status, 0) } < 0 {
            return Err(platform::error("waitpid"));
        }
        if !libc::WIFSTOPPED(status) {
            return Err(format!("state: the child ended with status {status:#x}"));
        }
        Ok(libc::WSTOPSIG(status))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        platform::kill(self.child);
        // SAFETY: our own child.
        unsafe { libc::waitpid(self.child, std::ptr::null_mut(), 0) };
    }
}

fn write_for_ever() -> ! {
    platform::trace_me();
    // SAFETY: the process' own place and signals.
    unsafe {
        libc::raise(libc::SIGSTOP);
        loop {
            asm!("2: dec {}", "jnz 2b", inout(reg) SPIN => _, options(nostack));
            (&raw mut PLACE).write_volatile(1);
            libc::raise(libc::SIGUSR1);
        }
    }
}
