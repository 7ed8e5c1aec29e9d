//! The ACPI tables (acpi_build() of bhyve, step (14)), ACPI 6.5, chapter 5: RSDP, RSDT and
//! XSDT, FADT, FACS, MCFG and DSDT always; SPCR when there is a com1; MADT and HPET when the
//! kernel has what they describe.

#![forbid(unsafe_code)]

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic as IoApicEntry, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;
use vmmapi::Vm;
use vmmapi::address_map::RSDP_BASE;

use super::aml;
use super::ioapic::IoApic;
use super::{Description, FirmwareError, IO_APIC, LOCAL_APIC, SCI, TIMER_PIN};
use crate::devices::pm;
use crate::devices::serial::COM_PORTS;
use crate::pci::Bdf;
use crate::pci::access::{ECAM_BASE, ECAM_SIZE, RESET_PORT};
use crate::pci::bus::{IntxWire, RootBus};
use crate::pci::lpc;

/// The HPET's registers.
pub const HPET_BASE: u32 = 0xfed0_0000;
pub const HPET_LEN: u32 = 0x400;

const NAME: &str = "ACPI tables";
const OEM_ID: [u8; 6] = *b"BHYVE ";
const OEM_REVISION: u32 = 1;
const RSDP_LEN: usize = 36;
const HEADER_LEN: u32 = 36;
const ALIGNMENT: usize = 16;
const FACS_ALIGNMENT: usize = 64;
/// A DSDT with 64-bit integers.
const DSDT_REVISION: u8 = 2;

/// IAPC_BOOT_ARCH (table 5.11).
mod boot_arch {
    pub const LEGACY_DEVICES: u16 = 1 << 0;
    pub const NO_VGA: u16 = 1 << 2;
    pub const NO_MSI: u16 = 1 << 3;
    pub const NO_CMOS_RTC: u16 = 1 << 5;
}

/// Polarity and trigger mode (table 5.26).
const ACTIVE_HIGH_EDGE: u16 = 0b01 | 0b01 << 2;
const ACTIVE_LOW_LEVEL: u16 = 0b11 | 0b11 << 2;

/// The CMOS byte that holds the century, in bhyve's RTC.
const RTC_CENTURY: u8 = 0x32;
/// Bit 1: a hard reset; bit 2: now (PIIX, RCR).
const RESET_VALUE: u8 = 6;

/// What there is to describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hardware {
    pub cpus: u8,
    /// With it come all of the kernel's interrupt controllers and timers but the HPET.
    pub ioapic: Option<IoApic>,
    /// The HPET's capability register, low half.
    pub hpet: Option<u32>,
    /// 0 is com1.
    pub com_ports: Vec<usize>,
    /// Where the PCI-ISA bridge is.
    pub lpc: Option<Bdf>,
    pub buses: Vec<RootBus>,
    pub intx: Vec<IntxWire>,
    /// QEMU's firmware configuration device.
    pub fwcfg: bool,
}

/// Builds all tables.
pub fn acpi_build(vm: &Vm, machine: &Description<'_>) -> Result<(), FirmwareError> {
    let hpet = match vm.hpet_capabilities() {
        Ok(capabilities) => Some(capabilities),
        Err(error) if error.is(libc::ENXIO) => None,
        Err(error) => return Err(FirmwareError::Kernel(error)),
    };
    let pci = machine.pci;
    let hardware = Hardware {
        cpus: super::cpu_count(NAME, machine.cpus)?,
        ioapic: machine.ioapic,
        hpet,
        com_ports: machine.com_ports.to_vec(),
        lpc: pci
            .functions()
            .find(|(_, device)| *device == lpc::NAME)
            .map(|(at, _)| at),
        buses: pci.buses().to_vec(),
        intx: pci.intx_wires().to_vec(),
        fwcfg: machine.fwcfg,
    };
    super::install(vm, NAME, super::ACPI, &tables(&hardware))
}

/// The bytes for [`RSDP_BASE`] and up.
fn tables(hardware: &Hardware) -> Vec<u8> {
    // The RSDP comes first and is made last.
    let mut image = Image(vec![0; RSDP_LEN]);
    let facs = image.place(&aml_bytes(&facs()), FACS_ALIGNMENT);
    let dsdt = image.place(
        &table(*b"DSDT", DSDT_REVISION, &aml::definition_block(hardware)),
        ALIGNMENT,
    );
    // The FADT leads the list, as UEFI wants it.
    let mut listed = vec![image.place(&fadt(hardware, facs, dsdt), ALIGNMENT)];
    if hardware.ioapic.is_some() {
        listed.push(image.place(&madt(hardware.cpus), ALIGNMENT));
    }
    if let Some(capabilities) = hardware.hpet {
        listed.push(image.place(&hpet(capabilities), ALIGNMENT));
    }
    listed.push(image.place(&mcfg(), ALIGNMENT));
    if hardware.com_ports.contains(&0) {
        let spcr = spcr(hardware.ioapic.is_some());
        listed.push(image.place(&spcr, ALIGNMENT));
    }
    let narrow: Vec<u8> = listed.iter().flat_map(|at| at.to_le_bytes()).collect();
    let wide = listed.iter().flat_map(|at| u64::from(*at).to_le_bytes());
    let wide: Vec<u8> = wide.collect();
    let rsdt = image.place(&table(*b"RSDT", 1, &narrow), ALIGNMENT);
    let xsdt = image.place(&table(*b"XSDT", 1, &wide), ALIGNMENT);
    image.0[..RSDP_LEN].copy_from_slice(&rsdp(rsdt, xsdt));
    image.0
}

/// Tables one behind the other.
struct Image(Vec<u8>);

impl Image {
    /// Appends a table and returns its guest-physical address.
    fn place(&mut self, table: &[u8], alignment: usize) -> u32 {
        // RSDP_BASE is a multiple of every alignment here.
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        let at = RSDP_BASE.0 as u32 + self.0.len() as u32;
        self.0.extend(table);
        at
    }
}

/// A table with the common header (5.2.6) and its checksum.
fn table(signature: [u8; 4], revision: u8, contents: &[u8]) -> Vec<u8> {
    let oem_table = oem_table_id(signature);
    let mut sdt = Sdt::new(
        signature,
        HEADER_LEN,
        revision,
        OEM_ID,
        oem_table,
        OEM_REVISION,
    );
    sdt.append_slice(contents);
    sdt.as_slice().to_vec()
}

/// "BVFACP  ".
fn oem_table_id(signature: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = signature;
    [b'B', b'V', a, b, c, d, b' ', b' ']
}

fn aml_bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// 5.2.5.3.
fn rsdp(rsdt: u32, xsdt: u32) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0".to_vec();
    bytes.extend(OEM_ID);
    // Revision 2 is everything since ACPI 2.0.
    bytes.push(2);
    bytes.extend(rsdt.to_le_bytes());
    bytes.extend((RSDP_LEN as u32).to_le_bytes());
    bytes.extend(u64::from(xsdt).to_le_bytes());
    bytes.extend([0; 4]);
    // The first one is that of ACPI 1.0's 20 bytes.
    bytes[8] = super::checksum(&bytes[..20]);
    bytes[32] = super::checksum(&bytes);
    bytes
}

/// 5.2.10. A global lock that nobody contends, and no waking vector.
fn facs() -> FACS {
    let mut facs = FACS::new();
    facs.version = 2;
    facs
}

/// 5.2.9: the fixed hardware, which is devices/pm.rs, and the reset register of PCI.
fn fadt(hardware: &Hardware, facs: u32, dsdt: u32) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM_ID, oem_table_id(*b"FACP"), OEM_REVISION)
        .firmware_ctrl_32(facs)
        .dsdt_64(u64::from(dsdt))
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        // These two say that there is no such thing in the fixed registers.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc);
    fadt.dsdt = dsdt.into();
    fadt.sci_int = u16::from(SCI).into();
    fadt.smi_cmd = u32::from(pm::SMI_CMD).into();
    fadt.acpi_enable = pm::ACPI_ENABLE as u8;
    fadt.acpi_disable = pm::ACPI_DISABLE as u8;
    fadt.pm1a_evt_blk = u32::from(pm::PM1A_EVT).into();
    fadt.x_pm1a_evt_blk = port_address(pm::PM1A_EVT, 32, AccessSize::WordAccess);
    fadt.pm1_evt_len = pm::PM1A_EVT_LEN as u8;
    fadt.pm1a_cnt_blk = u32::from(pm::PM1A_CNT).into();
    fadt.x_pm1a_cnt_blk = port_address(pm::PM1A_CNT, 16, AccessSize::WordAccess);
    fadt.pm1_cnt_len = pm::PM1A_CNT_LEN as u8;
    fadt.reset_reg = port_address(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;

    let mut arch = boot_arch::NO_VGA;
    if !hardware.com_ports.is_empty() {
        arch |= boot_arch::LEGACY_DEVICES;
    }
    if hardware.ioapic.is_some() {
        fadt.pm_tmr_blk = u32::from(pm::PM_TIMER).into();
        fadt.x_pm_tmr_blk = port_address(pm::PM_TIMER, 32, AccessSize::DwordAccess);
        fadt.pm_tmr_len = 4;
        fadt.century = RTC_CENTURY;
        fadt = fadt
            .flag(Flags::TmrValExt)
            .flag(Flags::ForceApicPhysicalDestinationMode);
    } else {
        // A power button needs the interrupt.
        fadt = fadt.flag(Flags::PwrButton);
        arch |= boot_arch::NO_MSI | boot_arch::NO_CMOS_RTC;
    }
    fadt.iapc_boot_arch = arch.into();
    aml_bytes(&fadt.finalize())
}

/// A register block as a generic address.
fn port_address(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port))
}

/// 5.2.12: local APICs, the I/O APIC, and where its inputs differ from the ISA interrupts.
fn madt(cpus: u8) -> Vec<u8> {
    let mut contents = LOCAL_APIC.to_le_bytes().to_vec();
    // PCAT_COMPAT: there are 8259s too.
    contents.extend(1_u32.to_le_bytes());
    for id in 0..cpus {
        let cpu = ProcessorLocalApic::new(id, id, EnabledStatus::Enabled);
        contents.extend(aml_bytes(&cpu));
    }
    contents.extend(aml_bytes(&IoApicEntry::new(0, IO_APIC, 0)));
    contents.extend(interrupt_override(0, TIMER_PIN, ACTIVE_HIGH_EDGE));
    contents.extend(interrupt_override(SCI, SCI, ACTIVE_LOW_LEVEL));
    contents.extend(local_apic_nmi());
    table(*b"APIC", 1, &contents)
}

/// 5.2.12.5.
fn interrupt_override(irq: u8, pin: u8, flags: u16) -> Vec<u8> {
    let mut bytes = vec![2, 10, 0, irq];
    bytes.extend(u32::from(pin).to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// 5.2.12.7: LINT1 of every processor.
fn local_apic_nmi() -> Vec<u8> {
    let [low, high] = ACTIVE_HIGH_EDGE.to_le_bytes();
    vec![4, 6, 0xff, low, high, 1]
}

/// The enhanced configuration access of all buses (PCI Firmware 3.2, 4.1.2).
fn mcfg() -> Vec<u8> {
    let last_bus = (ECAM_SIZE >> 20) - 1;
    let mut mcfg = MCFG::new(OEM_ID, oem_table_id(*b"MCFG"), OEM_REVISION);
    mcfg.add_ecam(ECAM_BASE.0, 0, 0, last_bus as u8);
    aml_bytes(&mcfg)
}

/// The console is com1 (Serial Port Console Redirection Table 1.03).
fn spcr(interrupts: bool) -> Vec<u8> {
    const UART_16550: u8 = 0;
    const DUAL_8259: u8 = 1 << 0;
    const BAUD_115200: u8 = 7;
    const ONE_STOP_BIT: u8 = 1;
    const RTS_CTS_AND_DCD: u8 = 1 << 0 | 1 << 1;
    const VT_UTF8: u8 = 1;
    let (first, irq) = COM_PORTS[0];
    let mut contents = vec![UART_16550, 0, 0, 0];
    contents.extend(aml_bytes(&GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::Undefined,
        u64::from(first),
    )));
    contents.extend(if interrupts { [DUAL_8259, irq] } else { [0, 0] });
    // Not the I/O APIC; no parity.
    contents.extend([0; 4]);
    contents.extend([BAUD_115200, 0, ONE_STOP_BIT, RTS_CTS_AND_DCD, VT_UTF8]);
    contents.push(0);
    // Not a PCI device.
    contents.extend([0xff; 4]);
    contents.extend([0; 12]);
    table(*b"SPCR", 1, &contents)
}

/// The HPET description table (IA-PC HPET 1.0a, 3.2.4). Its 4 KiB are its own.
fn hpet(capabilities: u32) -> Vec<u8> {
    let mut contents = capabilities.to_le_bytes().to_vec();
    let space = AddressSpace::SystemMemory;
    let base = u64::from(HPET_BASE);
    contents.extend(aml_bytes(&GAS::new(
        space,
        0,
        0,
        AccessSize::Undefined,
        base,
    )));
    // HPET number, minimum tick, page protection.
    contents.extend([0, 0, 0, 1]);
    table(*b"HPET", 1, &contents)
}

#[cfg(test)]
mod tests;
