//! Every request of machine/vmm_dev.h, of /dev/vmmctl, and the forms that FreeBSD 12, 13
//! and 14 had of requests that were changed since, as typed constants. The encoding is sys/ioccom.h's; on Linux
//! the numbers are the same 32-bit values.
//!
//! tests/layout.rs compares each with what the C compiler computes, and fails when the
//! header has one that this list lacks.

use core::ffi::c_int;

use crate as sys;

/// One ioctl request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ioctl {
    /// `b'v'` for a VM's device, `b'V'` for /dev/vmmctl.
    pub group: u8,
    pub number: u8,
    pub dir: Dir,
    /// Bytes of the parameter structure; 0 to 8191.
    pub size: usize,
}

/// Which way the parameter structure is copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dir {
    /// No parameter (`_IO`).
    Void,
    /// From the kernel to the program (`_IOR`).
    Out,
    /// From the program to the kernel (`_IOW`).
    In,
    /// Both ways (`_IOWR`).
    InOut,
}

impl Dir {
    const fn bits(self) -> u32 {
        match self {
            Self::Void => 0x2000_0000,
            Self::Out => 0x4000_0000,
            Self::In => 0x8000_0000,
            Self::InOut => 0xc000_0000,
        }
    }

    /// Whether the kernel reads the caller's structure.
    pub const fn copies_in(self) -> bool {
        matches!(self, Self::In | Self::InOut)
    }

    /// Whether the kernel writes the caller's structure.
    pub const fn copies_out(self) -> bool {
        matches!(self, Self::Out | Self::InOut)
    }
}

impl Ioctl {
    /// The number that ioctl(2) takes.
    pub const fn code(self) -> u32 {
        assert!(self.size < 1 << 13, "sys/ioccom.h has 13 bits for the size");
        self.dir.bits() | (self.size as u32) << 16 | (self.group as u32) << 8 | self.number as u32
    }

    /// The request behind a number, known to this module or not; `None` when the bits
    /// for the direction are no direction.
    pub const fn from_code(code: u32) -> Option<Self> {
        let dir = match code & 0xe000_0000 {
            0x2000_0000 => Dir::Void,
            0x4000_0000 => Dir::Out,
            0x8000_0000 => Dir::In,
            0xc000_0000 => Dir::InOut,
            _ => return None,
        };
        Some(Self {
            group: (code >> 8) as u8,
            number: code as u8,
            dir,
            size: (code >> 16 & 0x1fff) as usize,
        })
    }

    /// Its name in the header, if it is one of [`ALL`].
    pub fn name(self) -> Option<&'static str> {
        ALL.iter()
            .find(|(_, request)| *request == self)
            .map(|(name, _)| *name)
    }
}

macro_rules! requests {
    ($($name:ident = $dir:ident $group:literal $number:literal $(: $ty:ty)?;)*) => {
        $(pub const $name: Ioctl = Ioctl {
            group: $group,
            number: $number,
            dir: Dir::$dir,
            size: 0 $(+ size_of::<$ty>())?,
        };)*

        /// Each request with its name.
        pub const ALL: &[(&str, Ioctl)] = &[$((stringify!($name), $name),)*];
    };
}

requests! {
    // General.
    VM_RUN = In b'v' 1: sys::vm_run;
    VM_SET_CAPABILITY = In b'v' 2: sys::vm_capability;
    VM_GET_CAPABILITY = InOut b'v' 3: sys::vm_capability;
    VM_SUSPEND = In b'v' 4: sys::vm_suspend;
    VM_REINIT = Void b'v' 5;
    // Memory.
    VM_GET_GPA_PMAP = InOut b'v' 12: sys::vm_gpa_pte;
    VM_GLA2GPA = InOut b'v' 13: sys::vm_gla2gpa;
    VM_ALLOC_MEMSEG = In b'v' 14: sys::vm_memseg;
    VM_GET_MEMSEG = InOut b'v' 15: sys::vm_memseg;
    VM_MMAP_MEMSEG = In b'v' 16: sys::vm_memmap;
    VM_MMAP_GETNEXT = InOut b'v' 17: sys::vm_memmap;
    VM_GLA2GPA_NOFAULT = InOut b'v' 18: sys::vm_gla2gpa;
    VM_MUNMAP_MEMSEG = In b'v' 19: sys::vm_munmap;
    // Registers and state.
    VM_SET_REGISTER = In b'v' 20: sys::vm_register;
    VM_GET_REGISTER = InOut b'v' 21: sys::vm_register;
    VM_SET_SEGMENT_DESCRIPTOR = In b'v' 22: sys::vm_seg_desc;
    VM_GET_SEGMENT_DESCRIPTOR = InOut b'v' 23: sys::vm_seg_desc;
    VM_SET_REGISTER_SET = In b'v' 24: sys::vm_register_set;
    VM_GET_REGISTER_SET = InOut b'v' 25: sys::vm_register_set;
    VM_GET_KERNEMU_DEV = InOut b'v' 26: sys::vm_readwrite_kernemu_device;
    VM_SET_KERNEMU_DEV = In b'v' 27: sys::vm_readwrite_kernemu_device;
    // Events and interrupts.
    VM_GET_INTINFO = InOut b'v' 28: sys::vm_intinfo;
    VM_SET_INTINFO = In b'v' 29: sys::vm_intinfo;
    VM_INJECT_EXCEPTION = In b'v' 30: sys::vm_exception;
    VM_LAPIC_IRQ = In b'v' 31: sys::vm_lapic_irq;
    VM_INJECT_NMI = In b'v' 32: sys::vm_nmi;
    VM_IOAPIC_ASSERT_IRQ = In b'v' 33: sys::vm_ioapic_irq;
    VM_IOAPIC_DEASSERT_IRQ = In b'v' 34: sys::vm_ioapic_irq;
    VM_IOAPIC_PULSE_IRQ = In b'v' 35: sys::vm_ioapic_irq;
    VM_LAPIC_MSI = In b'v' 36: sys::vm_lapic_msi;
    VM_LAPIC_LOCAL_IRQ = In b'v' 37: sys::vm_lapic_irq;
    VM_IOAPIC_PINCOUNT = Out b'v' 38: c_int;
    VM_RESTART_INSTRUCTION = In b'v' 39: c_int;
    // PCI passthrough.
    VM_BIND_PPTDEV = In b'v' 40: sys::vm_pptdev;
    VM_UNBIND_PPTDEV = In b'v' 41: sys::vm_pptdev;
    VM_MAP_PPTDEV_MMIO = In b'v' 42: sys::vm_pptdev_mmio;
    VM_PPTDEV_MSI = In b'v' 43: sys::vm_pptdev_msi;
    VM_PPTDEV_MSIX = In b'v' 44: sys::vm_pptdev_msix;
    VM_PPTDEV_DISABLE_MSIX = In b'v' 45: sys::vm_pptdev;
    VM_UNMAP_PPTDEV_MMIO = In b'v' 46: sys::vm_pptdev_mmio;
    // Statistics.
    VM_STATS = InOut b'v' 50: sys::vm_stats;
    VM_STAT_DESC = InOut b'v' 51: sys::vm_stat_desc;
    // State of devices in the kernel.
    VM_SET_X2APIC_STATE = In b'v' 60: sys::vm_x2apic;
    VM_GET_X2APIC_STATE = InOut b'v' 61: sys::vm_x2apic;
    VM_GET_HPET_CAPABILITIES = Out b'v' 62: sys::vm_hpet_cap;
    // CPU topology.
    VM_SET_TOPOLOGY = In b'v' 63: sys::vm_cpu_topology;
    VM_GET_TOPOLOGY = Out b'v' 64: sys::vm_cpu_topology;
    // ISA interrupts.
    VM_ISA_ASSERT_IRQ = In b'v' 80: sys::vm_isa_irq;
    VM_ISA_DEASSERT_IRQ = In b'v' 81: sys::vm_isa_irq;
    VM_ISA_PULSE_IRQ = In b'v' 82: sys::vm_isa_irq;
    VM_ISA_SET_IRQ_TRIGGER = In b'v' 83: sys::vm_isa_irq_trigger;
    // Sets of vcpus.
    VM_ACTIVATE_CPU = In b'v' 90: sys::vm_activate_cpu;
    VM_GET_CPUS = In b'v' 91: sys::vm_cpuset;
    VM_SUSPEND_CPU = In b'v' 92: sys::vm_activate_cpu;
    VM_RESUME_CPU = In b'v' 93: sys::vm_activate_cpu;
    // RTC.
    VM_RTC_READ = InOut b'v' 100: sys::vm_rtc_data;
    VM_RTC_WRITE = In b'v' 101: sys::vm_rtc_data;
    VM_RTC_SETTIME = In b'v' 102: sys::vm_rtc_time;
    VM_RTC_GETTIME = Out b'v' 103: sys::vm_rtc_time;
    // Checkpoints.
    VM_SNAPSHOT_REQ = InOut b'v' 113: sys::vm_snapshot_meta;
    VM_RESTORE_TIME = InOut b'v' 115: c_int;
    // /dev/vmmctl.
    VMMCTL_VM_CREATE = InOut b'V' 0: sys::vmmctl_vm_create;
    VMMCTL_VM_DESTROY = InOut b'V' 1: sys::vmmctl_vm_destroy;
    // The forms of FreeBSD 12, 13 and 14.
    VM_ALLOC_MEMSEG_12 = In b'v' 14: sys::vm_memseg_12;
    VM_GET_MEMSEG_12 = InOut b'v' 15: sys::vm_memseg_12;
    VM_RUN_13 = InOut b'v' 1: sys::vm_run_13;
    VM_STATS_13 = InOut b'v' 50: sys::vm_stats_13;
    VM_ALLOC_MEMSEG_14 = In b'v' 14: sys::vm_memseg_14;
    VM_GET_MEMSEG_14 = InOut b'v' 15: sys::vm_memseg_14;
}
