//! The table of requests: for each, what the caller must be, which vcpus are locked while
//! it is served, and whether this module serves it. (The memory layout has a lock of its
//! own, taken after the vcpus'.)

use vmm_sys::ioctl as sys;
use vmm_sys::ioctl::Ioctl;

use crate::types::Errno;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub command: Command,
    pub ioctl: Ioctl,
    pub vcpus: VcpuLock,
    /// Checked before anything is locked or decoded.
    pub privilege: Privilege,
    pub availability: Availability,
}

/// Which vcpus become FROZEN (and exist afterwards) while the request is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VcpuLock {
    None,
    /// The one it names, which is allocated if need be.
    One,
    /// The one it names is allocated if need be but not locked; -1 names none.
    Maybe,
    All,
}

/// What the caller needs beyond an open descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    None,
    /// PRIV_VMM_PPTDEV, and allow.vmm_ppt in a jail; EPERM without.
    PptDev,
}

/// Whether it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Availability {
    Served,
    /// The device or option that it is about does not exist here: [`super::decode`]
    /// fails with this.
    Absent(Errno),
}

/// The entry for a command of ioctl(2); ENOTTY when there is none.
pub fn lookup(cmd: u64) -> Option<&'static Entry> {
    let code = u32::try_from(cmd).ok()?;
    let at = CODES.iter().position(|known| *known == code)?;
    TABLE.get(at)
}

/// The commands of [`TABLE`], side by side: a search of them is a part of what every request
/// costs.
const CODES: [u32; TABLE.len()] = {
    let mut codes = [0; TABLE.len()];
    let mut at = 0;
    while at < TABLE.len() {
        codes[at] = TABLE[at].ioctl.code();
        at += 1;
    }
    codes
};

macro_rules! table {
    ($($(#[doc = $doc:literal])* $command:ident = $ioctl:ident, $vcpus:ident, $privilege:ident, $availability:expr;)*) => {
        /// A request's name: the header's, without VM_.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Command {
            $($(#[doc = $doc])* $command,)*
        }

        /// Every request to a VM's device.
        pub const TABLE: &[Entry] = &[$(Entry {
            command: Command::$command,
            ioctl: sys::$ioctl,
            vcpus: VcpuLock::$vcpus,
            privilege: Privilege::$privilege,
            availability: $availability,
        },)*];
    };
}

const SERVED: Availability = Availability::Served;

/// A request about something that does not exist here.
const fn absent(errno: Errno) -> Availability {
    Availability::Absent(errno)
}

#[rustfmt::skip] // One row, one line.
table! {
    // command           ioctl                      vcpus  privilege
    // General.
    Run                 = VM_RUN                    , One  , None  , SERVED;
    /// FreeBSD 13's layout.
    Run13               = VM_RUN_13                 , One  , None  , SERVED;
    SetCapability       = VM_SET_CAPABILITY         , One  , None  , SERVED;
    GetCapability       = VM_GET_CAPABILITY         , One  , None  , SERVED;
    Suspend             = VM_SUSPEND                , None , None  , SERVED;
    Reinit              = VM_REINIT                 , All  , None  , SERVED;
    // Memory.
    GetGpaPmap          = VM_GET_GPA_PMAP           , None , None  , SERVED;
    Gla2gpa             = VM_GLA2GPA                , One  , None  , SERVED;
    Gla2gpaNofault      = VM_GLA2GPA_NOFAULT        , One  , None  , SERVED;
    AllocMemseg         = VM_ALLOC_MEMSEG           , All  , None  , SERVED;
    /// FreeBSD 12's layout.
    AllocMemseg12       = VM_ALLOC_MEMSEG_12        , All  , None  , SERVED;
    /// FreeBSD 14's layout.
    AllocMemseg14       = VM_ALLOC_MEMSEG_14        , All  , None  , SERVED;
    GetMemseg           = VM_GET_MEMSEG             , None , None  , SERVED;
    /// FreeBSD 12's layout.
    GetMemseg12         = VM_GET_MEMSEG_12          , None , None  , SERVED;
    /// FreeBSD 14's layout.
    GetMemseg14         = VM_GET_MEMSEG_14          , None , None  , SERVED;
    MmapMemseg          = VM_MMAP_MEMSEG            , All  , None  , SERVED;
    MmapGetnext         = VM_MMAP_GETNEXT           , None , None  , SERVED;
    MunmapMemseg        = VM_MUNMAP_MEMSEG          , All  , None  , SERVED;
    // Registers and state.
    SetRegister         = VM_SET_REGISTER           , One  , None  , SERVED;
    GetRegister         = VM_GET_REGISTER           , One  , None  , SERVED;
    SetSegDesc          = VM_SET_SEGMENT_DESCRIPTOR , One  , None  , SERVED;
    GetSegDesc          = VM_GET_SEGMENT_DESCRIPTOR , One  , None  , SERVED;
    SetRegisterSet      = VM_SET_REGISTER_SET       , One  , None  , SERVED;
    GetRegisterSet      = VM_GET_REGISTER_SET       , One  , None  , SERVED;
    GetKernemuDev       = VM_GET_KERNEMU_DEV        , One  , None  , SERVED;
    SetKernemuDev       = VM_SET_KERNEMU_DEV        , One  , None  , SERVED;
    // Events and interrupts.
    GetIntinfo          = VM_GET_INTINFO            , One  , None  , SERVED;
    SetIntinfo          = VM_SET_INTINFO            , One  , None  , SERVED;
    InjectException     = VM_INJECT_EXCEPTION       , One  , None  , SERVED;
    InjectNmi           = VM_INJECT_NMI             , One  , None  , SERVED;
    RestartInstruction  = VM_RESTART_INSTRUCTION    , One  , None  , SERVED;
    LapicIrq            = VM_LAPIC_IRQ              , One  , None  , SERVED;
    LapicLocalIrq       = VM_LAPIC_LOCAL_IRQ        , Maybe, None  , SERVED;
    LapicMsi            = VM_LAPIC_MSI              , None , None  , SERVED;
    IoapicAssertIrq     = VM_IOAPIC_ASSERT_IRQ      , None , None  , SERVED;
    IoapicDeassertIrq   = VM_IOAPIC_DEASSERT_IRQ    , None , None  , SERVED;
    IoapicPulseIrq      = VM_IOAPIC_PULSE_IRQ       , None , None  , SERVED;
    IoapicPincount      = VM_IOAPIC_PINCOUNT        , None , None  , SERVED;
    IsaAssertIrq        = VM_ISA_ASSERT_IRQ         , None , None  , SERVED;
    IsaDeassertIrq      = VM_ISA_DEASSERT_IRQ       , None , None  , SERVED;
    IsaPulseIrq         = VM_ISA_PULSE_IRQ          , None , None  , SERVED;
    IsaSetIrqTrigger    = VM_ISA_SET_IRQ_TRIGGER    , None , None  , SERVED;
    // PCI passthrough: no IOMMU for a first device, and no device for the rest.
    BindPptdev          = VM_BIND_PPTDEV            , All  , PptDev, absent(Errno::ENXIO);
    UnbindPptdev        = VM_UNBIND_PPTDEV          , All  , PptDev, absent(Errno::ENOENT);
    MapPptdevMmio       = VM_MAP_PPTDEV_MMIO        , All  , PptDev, absent(Errno::ENOENT);
    UnmapPptdevMmio     = VM_UNMAP_PPTDEV_MMIO      , All  , PptDev, absent(Errno::ENOENT);
    PptdevMsi           = VM_PPTDEV_MSI             , None , PptDev, absent(Errno::ENOENT);
    PptdevMsix          = VM_PPTDEV_MSIX            , None , PptDev, absent(Errno::ENOENT);
    PptdevDisableMsix   = VM_PPTDEV_DISABLE_MSIX    , None , PptDev, absent(Errno::ENOENT);
    // Statistics.
    Stats               = VM_STATS                  , One  , None  , SERVED;
    /// FreeBSD 13's layout.
    Stats13             = VM_STATS_13               , One  , None  , SERVED;
    StatDesc            = VM_STAT_DESC              , None , None  , SERVED;
    // Devices and topology.
    SetX2apicState      = VM_SET_X2APIC_STATE       , One  , None  , SERVED;
    GetX2apicState      = VM_GET_X2APIC_STATE       , One  , None  , SERVED;
    GetHpetCapabilities = VM_GET_HPET_CAPABILITIES  , None , None  , SERVED;
    SetTopology         = VM_SET_TOPOLOGY           , None , None  , SERVED;
    GetTopology         = VM_GET_TOPOLOGY           , None , None  , SERVED;
    RtcRead             = VM_RTC_READ               , None , None  , SERVED;
    RtcWrite            = VM_RTC_WRITE              , None , None  , SERVED;
    RtcSettime          = VM_RTC_SETTIME            , None , None  , SERVED;
    RtcGettime          = VM_RTC_GETTIME            , None , None  , SERVED;
    // Sets of vcpus.
    ActivateCpu         = VM_ACTIVATE_CPU           , One  , None  , SERVED;
    GetCpus             = VM_GET_CPUS               , None , None  , SERVED;
    SuspendCpu          = VM_SUSPEND_CPU            , Maybe, None  , SERVED;
    ResumeCpu           = VM_RESUME_CPU             , Maybe, None  , SERVED;
    // Checkpoints: a kernel without option BHYVE_SNAPSHOT, such as GENERIC, doesn't know them.
    SnapshotReq         = VM_SNAPSHOT_REQ           , All  , None  , absent(Errno::ENOTTY);
    RestoreTime         = VM_RESTORE_TIME           , All  , None  , absent(Errno::ENOTTY);
}
