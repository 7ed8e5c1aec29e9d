//! Names and numbers of the HBA's registers (AHCI 1.3.1, 3) and of the ATA registers that a
//! port shows.

#![forbid(unsafe_code)]

/// The most ports of an HBA, and commands of a port.
pub const MAX_PORTS: usize = 32;
pub const SLOTS: u8 = 32;

/// Generic host control (3.1): offsets in BAR 5.
pub mod host {
    pub const CAP: u64 = 0x00;
    pub const GHC: u64 = 0x04;
    pub const IS: u64 = 0x08;
    pub const PI: u64 = 0x0c;
    pub const VS: u64 = 0x10;
    pub const CAP2: u64 = 0x24;
    /// Where the ports' registers begin, and how many bytes each port has.
    pub const PORTS: u64 = 0x100;
    pub const PORT_LEN: u64 = 0x80;

    pub const GHC_HR: u32 = 1 << 0;
    pub const GHC_IE: u32 = 1 << 1;
    pub const GHC_AE: u32 = 1 << 31;

    /// Version 1.3.
    pub const VERSION: u32 = 0x1_0300;
    /// Automatic partial to slumber transitions.
    pub const CAP2_VALUE: u32 = 1 << 2;
    /// What bhyve(8) has: 64-bit addresses, NCQ, SNotification, mechanical presence switch,
    /// staggered spin-up, aggressive link power management, activity LED, command list
    /// override, 6 Gbit/s, PIO multiple DRQ, slumber and partial, 32 commands, external
    /// ports. The number of ports less one is added.
    pub const CAP_VALUE: u32 = 1 << 31
        | 1 << 30
        | 1 << 29
        | 1 << 28
        | 1 << 27
        | 1 << 26
        | 1 << 25
        | 1 << 24
        | 3 << 20
        | 1 << 15
        | 1 << 14
        | 1 << 13
        | 31 << 8
        | 1 << 5;
}

/// Registers of a port (3.3): offsets from the port's first one.
pub mod port {
    pub const CLB: u64 = 0x00;
    pub const CLBU: u64 = 0x04;
    pub const FB: u64 = 0x08;
    pub const FBU: u64 = 0x0c;
    pub const IS: u64 = 0x10;
    pub const IE: u64 = 0x14;
    pub const CMD: u64 = 0x18;
    pub const TFD: u64 = 0x20;
    pub const SIG: u64 = 0x24;
    pub const SSTS: u64 = 0x28;
    pub const SCTL: u64 = 0x2c;
    pub const SERR: u64 = 0x30;
    pub const SACT: u64 = 0x34;
    pub const CI: u64 = 0x38;
}

/// Interrupts of a port (3.3.5).
pub mod interrupt {
    /// A D2H register FIS, a PIO setup FIS, a set device bits FIS with the interrupt bit.
    pub const D2H: u32 = 1 << 0;
    pub const PIO_SETUP: u32 = 1 << 1;
    pub const SET_BITS: u32 = 1 << 3;
    /// More data than the PRDT has room for.
    pub const OVERFLOW: u32 = 1 << 24;
    /// Not what can be sent to the device.
    pub const INTERFACE_FATAL: u32 = 1 << 27;
    /// An address where there is no memory.
    pub const BUS_FATAL: u32 = 1 << 29;
    pub const TASK_FILE: u32 = 1 << 30;
    /// All there are.
    pub const ALL: u32 = 0xfdc0_00ff;
}

/// PxCMD (3.3.7).
pub mod command {
    pub const ST: u32 = 1 << 0;
    pub const SUD: u32 = 1 << 1;
    pub const POD: u32 = 1 << 2;
    pub const CLO: u32 = 1 << 3;
    pub const FRE: u32 = 1 << 4;
    pub const CCS_SHIFT: u32 = 8;
    pub const CCS: u32 = 0x1f << CCS_SHIFT;
    pub const FR: u32 = 1 << 14;
    pub const CR: u32 = 1 << 15;
    pub const CPS: u32 = 1 << 16;
    /// Kept as it is written: ST, SUD, POD, FRE, APSTE, ATAPI, DLAE, ALPE, ASP. What
    /// software writes to ICC is done at once.
    pub const WRITABLE: u32 = ST | SUD | POD | FRE | 0x0f80_0000;
}

/// PxSCTL.DET (3.3.11) and PxSSTS (3.3.10).
pub mod link {
    pub const DET: u32 = 0xf;
    /// SCTL: perform COMRESET; switch the link off.
    pub const DET_RESET: u32 = 1;
    pub const DET_OFF: u32 = 4;
    pub const SPEED: u32 = 0xf0;
    pub const SPEED_SHIFT: u32 = 4;
    /// 6 Gbit/s.
    pub const FASTEST: u32 = 3;
    /// SSTS: a device that communicates, interface active.
    pub const UP: u32 = 0x103;
    /// SSTS: the link is off.
    pub const OFF: u32 = 4;
}

/// ATA status (ATA8-ACS, 6.2) and error bits (6.1).
pub mod ata {
    pub const ERR: u8 = 1 << 0;
    pub const DRQ: u8 = 1 << 3;
    /// Seek complete.
    pub const DSC: u8 = 1 << 4;
    pub const DRDY: u8 = 1 << 6;
    pub const BSY: u8 = 1 << 7;
    /// A command has ended well, or badly.
    pub const GOOD: u8 = DRDY | DSC;
    pub const BAD: u8 = DRDY | ERR;

    /// Command aborted; no such address; data that can't be read.
    pub const ABRT: u8 = 1 << 2;
    pub const IDNF: u8 = 1 << 4;
    pub const UNC: u8 = 1 << 6;
}
