//! A small VM for one test: 4 MiB of memory, one active vcpu, and code at a known place in
//! the mode the test wants. It is destroyed when it goes out of scope.

use std::sync::atomic::{AtomicU32, Ordering};

use vmmapi::{Capability, Exit, Gpa, MmapStyle, Reg, SegDesc, SegReg, Vcpu, VcpuId, Vm, VmExit};

pub const MEMORY: u64 = 4 << 20;
/// Where the code is, in each mode.
pub const CODE: u64 = 0x1000;
/// The stack grows down from here.
pub const STACK: u64 = 0x8000;
/// Page tables of long mode: PML4, PDPT, two PDs.
const PML4: u64 = 0x10_0000;
pub const PDPT: u64 = 0x10_1000;
/// The page directory of the fourth GiB.
pub const HOLES_PD: u64 = 0x10_3000;
/// A GDT: null, code, data, as the segment registers say.
const GDT: u64 = 0x9000;
/// Above the memory: an access there is for a device.
pub const HOLE: u64 = 0xd000_0000;

pub struct Machine {
    pub vm: Vm,
    pub cpu: Vcpu,
}

/// A name that no other test of this run has.
pub fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "vmmtest{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

impl Machine {
    /// Memory and vcpu 0, in its power-on state.
    pub fn new() -> Self {
        Self::on(Vm::create(&fresh_name()).expect("VM_CREATE"))
    }

    /// The same on a VM that may have its segment of memory already.
    pub fn on(vm: Vm) -> Self {
        vm.setup_memory(MEMORY, MmapStyle::All).expect("memory");
        let cpu = vm.vcpu(VcpuId::BSP);
        cpu.activate().expect("VM_ACTIVATE_CPU");
        // The stock module wants to be asked before real mode.
        cpu.set_capability(Capability::UnrestrictedGuest, 1)
            .expect("unrestricted guest");
        Self { vm, cpu }
    }

    /// Real mode, all segments at 0.
    pub fn real(code: &[u8]) -> Self {
        Self::new().in_real_mode(code)
    }

    pub fn in_real_mode(self, code: &[u8]) -> Self {
        let m = self;
        m.load(CODE, code);
        m.cpu.reset().expect("vcpu reset");
        for seg in [SegReg::Cs, SegReg::Ds, SegReg::Es, SegReg::Ss] {
            let access = if seg == SegReg::Cs { 0x9b } else { 0x93 };
            m.cpu
                .set_desc(
                    seg,
                    SegDesc {
                        base: 0,
                        limit: 0xffff,
                        access,
                    },
                )
                .expect("segment");
        }
        let selectors = [(Reg::Cs, 0), (Reg::Ds, 0), (Reg::Es, 0), (Reg::Ss, 0)];
        m.cpu.set_registers(&selectors).expect("selectors");
        m.start()
    }

    /// 32-bit protected mode without paging, flat segments.
    pub fn protected(code: &[u8]) -> Self {
        let m = Self::new();
        m.load(CODE, code);
        m.cpu.reset().expect("vcpu reset");
        m.flat_segments(0xc09b);
        m.cpu.set_register(Reg::Cr0, 0x31).expect("CR0");
        m.start()
    }

    /// 64-bit mode, the first and the fourth GiB, which has the hole, mapped one to one. In
    /// pages of 2 MiB: Sandy Bridge has no larger ones.
    pub fn long(code: &[u8]) -> Self {
        let m = Self::new();
        m.load(CODE, code);
        m.cpu.reset().expect("vcpu reset");
        let memory = m.vm.memory();
        memory.write(Gpa(PML4), PDPT | 3).expect("PML4");
        for (gib, pd) in [(0, PML4 + 0x2000), (HOLE >> 30, HOLES_PD)] {
            memory.write(Gpa(PDPT + 8 * gib), pd | 3).expect("PDPT");
            for i in 0..512 {
                let page = gib << 30 | i << 21 | 0x83;
                memory.write(Gpa(pd + 8 * i), page).expect("PD");
            }
        }
        m.flat_segments(0xa09b);
        let control = [
            (Reg::Cr3, PML4),
            (Reg::Cr4, 0x20),
            (Reg::Efer, 0x500),
            (Reg::Cr0, 0x8001_0031),
        ];
        m.cpu.set_registers(&control).expect("control registers");
        m.start()
    }

    fn flat_segments(&self, code_access: u32) {
        let memory = self.vm.memory();
        memory
            .write(Gpa(GDT + 8), 0x00cf_9b00_0000_ffffu64)
            .expect("GDT");
        memory
            .write(Gpa(GDT + 16), 0x00cf_9300_0000_ffffu64)
            .expect("GDT");
        let set = |seg, desc| self.cpu.set_desc(seg, desc).expect("segment");
        set(
            SegReg::Gdtr,
            SegDesc {
                base: GDT,
                limit: 23,
                access: 0,
            },
        );
        set(
            SegReg::Cs,
            SegDesc {
                base: 0,
                limit: 0xffff_ffff,
                access: code_access,
            },
        );
        for seg in [SegReg::Ds, SegReg::Es, SegReg::Ss, SegReg::Fs, SegReg::Gs] {
            set(
                seg,
                SegDesc {
                    base: 0,
                    limit: 0xffff_ffff,
                    access: 0xc093,
                },
            );
        }
        set(
            SegReg::Tr,
            SegDesc {
                base: 0,
                limit: 0xffff,
                access: 0x8b,
            },
        );
        let selectors = [
            (Reg::Cs, 8),
            (Reg::Ds, 16),
            (Reg::Es, 16),
            (Reg::Ss, 16),
            (Reg::Fs, 16),
            (Reg::Gs, 16),
        ];
        self.cpu.set_registers(&selectors).expect("selectors");
    }

    fn start(self) -> Self {
        let registers = [(Reg::Rip, CODE), (Reg::Rsp, STACK), (Reg::Rflags, 2)];
        self.cpu
            .set_registers(&registers)
            .expect("RIP, RSP, RFLAGS");
        self
    }

    pub fn load(&self, at: u64, bytes: &[u8]) {
        self.vm
            .memory()
            .copy_to(Gpa(at), bytes)
            .expect("guest memory");
    }

    /// Runs to the next exit that is not about the host (BOGUS).
    pub fn run(&self) -> VmExit {
        loop {
            let exit = self.cpu.run().expect("VM_RUN");
            if exit.exit != Exit::Bogus {
                return exit;
            }
        }
    }

    pub fn reg(&self, reg: Reg) -> u64 {
        self.cpu.register(reg).expect("register")
    }

    /// The value of a statistic by its description.
    pub fn stat(&self, desc: &str) -> u64 {
        let stats = self.cpu.stats().expect("VM_STATS");
        (0..stats.values.len())
            .find(|i| self.vm.stat_desc(*i).expect("VM_STAT_DESC").as_deref() == Some(desc))
            .map(|i| stats.values[i])
            .unwrap_or_else(|| panic!("no statistic {desc:?}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let destroyed = vmmapi::vm::destroy(self.vm.name());
        // A test may have destroyed it itself.
        if !std::thread::panicking() {
            destroyed.unwrap_or_else(|e| panic!("destroy: {e}"));
        }
    }
}

/// Runs a test of NMIs on CPU 0, in a thread of its own; threads that it starts stay there
/// too. Bochs 2.7 keeps "blocking by NMI" with the CPU instead of the VMCS: an IRET on
/// another CPU leaves the first one's on, for every guest that it runs later.
pub fn on_one_cpu(test: fn()) {
    let pinned = std::thread::spawn(move || {
        pin(0);
        test();
    });
    if let Err(panic) = pinned.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Puts the calling thread on one CPU.
#[cfg(target_os = "linux")]
pub fn pin(cpu: usize) {
    // SAFETY: a cpu_set_t of zeros is valid, and the kernel only reads it.
    let failed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(failed, 0, "pinning to CPU {cpu}");
}

#[cfg(target_os = "freebsd")]
pub fn pin(cpu: usize) {
    // SAFETY: a cpuset_t of zeros is valid, and the kernel only reads it.
    let failed = unsafe {
        let mut set: libc::cpuset_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::cpuset_setaffinity(
            libc::CPU_LEVEL_WHICH,
            libc::CPU_WHICH_TID,
            -1,
            size_of::<libc::cpuset_t>(),
            &raw const set,
        )
    };
    assert_eq!(failed, 0, "pinning to CPU {cpu}");
}
