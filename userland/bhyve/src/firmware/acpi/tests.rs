//! The tables, followed from the RSDP as an operating system follows them.

use std::collections::BTreeMap;

use super::*;
use crate::pci::bar::Windows;
use crate::pci::pirq::Route;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn qword(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The table at a guest-physical address.
fn at(image: &[u8], gpa: u64) -> &[u8] {
    let offset = (gpa - RSDP_BASE.0) as usize;
    let len = dword(image, offset + 4) as usize;
    &image[offset..offset + len]
}

/// Every table by its signature; checks pointers and checksums on the way.
fn follow(image: &[u8]) -> BTreeMap<String, &[u8]> {
    assert!(RSDP_BASE.0 + image.len() as u64 <= 1 << 20);
    assert_eq!(&image[..8], b"RSD PTR ");
    assert_eq!((image[15], sum(&image[..20]), sum(&image[..36])), (2, 0, 0));
    assert_eq!(dword(image, 20), 36);
    let rsdt = at(image, u64::from(dword(image, 16)));
    let xsdt = at(image, qword(image, 24));
    assert_eq!((&rsdt[..4], &xsdt[..4]), (&b"RSDT"[..], &b"XSDT"[..]));
    let narrow: Vec<u64> = rsdt[36..].chunks(4).map(|e| dword(e, 0).into()).collect();
    let wide: Vec<u64> = xsdt[36..].chunks(8).map(|e| qword(e, 0)).collect();
    assert_eq!(narrow, wide);

    let fadt = at(image, wide[0]);
    assert_eq!(u64::from(dword(fadt, 40)), qword(fadt, 140), "one DSDT");
    let facs = u64::from(dword(fadt, 36));
    assert_eq!(facs % 64, 0);
    let mut tables = BTreeMap::new();
    let all = wide.iter().copied().chain([qword(fadt, 140), facs]);
    for table in all.map(|gpa| at(image, gpa)).chain([rsdt, xsdt]) {
        let signature = String::from_utf8(table[..4].to_vec()).unwrap();
        assert!(signature == "FACS" || sum(table) == 0, "{signature}");
        assert!(tables.insert(signature, table).is_none());
    }
    tables
}

fn contains(table: &[u8], what: &[u8]) -> bool {
    table.windows(what.len()).any(|window| window == what)
}

/// An EISA ID as AML has it.
fn eisa(id: &str) -> Vec<u8> {
    aml_bytes(&acpi_tables::aml::EISAName::new(id))
}

fn bare() -> Hardware {
    Hardware {
        cpus: 2,
        ioapic: None,
        hpet: None,
        com_ports: vec![0],
        lpc: None,
        buses: Vec::new(),
        intx: Vec::new(),
    }
}

fn whole(cpus: u8) -> Hardware {
    Hardware {
        cpus,
        ioapic: Some(IoApic { pins: 32 }),
        hpet: Some(0x8086_a301),
        com_ports: vec![0, 1],
        lpc: Some(Bdf {
            bus: 0,
            slot: 31,
            function: 0,
        }),
        buses: vec![bus(0)],
        intx: vec![wire(0, 3, 0, 1, 16), wire(0, 31, 3, 7, 23)],
    }
}

fn bus(number: u8) -> RootBus {
    let offset = u64::from(number) << 16;
    RootBus {
        number,
        windows: Windows {
            io: 0x2000..0x2140,
            memory32: 0xc000_0000 + offset..0xc030_0000 + offset,
            memory64: 0x8_0000_0000..0x8_2000_0000,
        },
    }
}

fn wire(bus: u8, slot: u8, pin: u8, pirq: u8, ioapic_pin: u8) -> IntxWire {
    let ioapic_pin = Some(ioapic_pin);
    let route = Route { pirq, ioapic_pin };
    IntxWire {
        bus,
        slot,
        pin,
        route,
    }
}

#[test]
fn without_kernel_devices_no_table_names_any() {
    let image = tables(&bare());
    let tables = follow(&image);
    let names: Vec<&str> = tables.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["DSDT", "FACP", "FACS", "MCFG", "RSDT", "SPCR", "XSDT"]
    );
    let fadt = tables["FACP"];
    assert_eq!((dword(fadt, 76), fadt[91]), (0, 0), "no ACPI timer");
    assert_eq!(fadt[109] & 0x28, 0x28, "neither MSI nor RTC");
    for id in ["PNP0000", "PNP0100", "PNP0B00", "PNP0103"] {
        assert!(!contains(tables["DSDT"], &eisa(id)), "{id}");
    }
    // An IRQ descriptor follows the port's only if someone takes the interrupt.
    assert!(contains(
        tables["DSDT"],
        &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x79]
    ));
}

#[test]
fn the_fixed_registers_are_where_the_devices_are() {
    let image = tables(&bare());
    let tables = follow(&image);
    let fadt = tables["FACP"];
    assert_eq!((dword(fadt, 56), fadt[88]), (0x400, 4));
    assert_eq!((dword(fadt, 64), fadt[89]), (0x404, 2));
    assert_eq!((dword(fadt, 48), fadt[52], fadt[53]), (0xb2, 0xa0, 0xa1));
    assert_eq!(fadt[46], 9, "SCI");
    assert_eq!((qword(fadt, 120), fadt[128]), (0xcf9, 6), "reset");
    assert_eq!((qword(fadt, 152), qword(fadt, 176)), (0x400, 0x404));
    assert_ne!(dword(fadt, 112) & 1 << 10, 0, "the reset register counts");
}

#[test]
fn s5_has_the_sleep_type_that_powers_off() {
    let image = tables(&bare());
    // Name (_S5, Package () { 5, 0 })
    let s5 = [0x08, b'_', b'S', b'5', b'_', 0x12, 5, 2, 0x0a, 5, 0];
    assert!(contains(follow(&image)["DSDT"], &s5));
}

#[test]
fn the_madt_lists_each_vcpu_and_the_io_apic() {
    for cpus in [1, 2, 4, 255] {
        let image = tables(&whole(cpus));
        let tables = follow(&image);
        let madt = tables["APIC"];
        assert_eq!((dword(madt, 36), dword(madt, 40)), (0xfee0_0000, 1));
        let mut entries = Vec::new();
        let mut rest = &madt[44..];
        while !rest.is_empty() {
            let (entry, behind) = rest.split_at(usize::from(rest[1]));
            entries.push(entry);
            rest = behind;
        }
        let of_type = |kind| entries.iter().filter(move |entry| entry[0] == kind);
        let ids: Vec<(u8, u8)> = of_type(0).map(|e| (e[2], e[3])).collect();
        assert_eq!(ids, (0..cpus).map(|id| (id, id)).collect::<Vec<_>>());
        assert!(of_type(0).all(|entry| dword(entry, 4) == 1));
        let ioapics: Vec<_> = of_type(1).map(|e| (dword(e, 4), dword(e, 8))).collect();
        assert_eq!(ioapics, [(0xfec0_0000, 0)]);
        let overrides: Vec<_> = of_type(2).map(|e| (e[3], dword(e, 4), e[8])).collect();
        assert_eq!(overrides, [(0, 2, 0x5), (9, 9, 0xf)]);
        assert_eq!(of_type(4).count(), 1);
        assert_eq!(entries.len(), usize::from(cpus) + 4);
    }
}

#[test]
fn kernel_devices_are_described() {
    let image = tables(&whole(1));
    let tables = follow(&image);
    let hpet = tables["HPET"];
    assert_eq!((hpet.len(), dword(hpet, 36)), (56, 0x8086_a301));
    assert_eq!(qword(hpet, 44), 0xfed0_0000);
    let fadt = tables["FACP"];
    assert_eq!((dword(fadt, 76), fadt[91]), (0x408, 4));
    for id in [
        "PNP0A03", "PNP0501", "PNP0000", "PNP0100", "PNP0B00", "PNP0103",
    ] {
        assert!(contains(tables["DSDT"], &eisa(id)), "{id}");
    }
    let com2 = [0x47, 1, 0xf8, 2, 0xf8, 2, 1, 8, 0x22, 1 << 3, 0];
    assert!(contains(tables["DSDT"], &com2));
    // Name (_ADR, 0x1F0000)
    assert!(contains(tables["DSDT"], b"_ADR\x0c\x00\x00\x1f\x00"));
}

/// ACPICA's compiler takes each table apart and puts it together again; what it has to say
/// about them, it would say in a guest too.
#[test]
fn acpica_has_no_complaint_about_any_table() {
    let mut several_buses = whole(4);
    several_buses.buses.push(bus(4));
    several_buses.intx.push(wire(4, 1, 2, 3, 20));
    let mut no_bridge = whole(2);
    no_bridge.lpc = None;
    for (name, hardware) in [
        ("whole", whole(4)),
        ("bare", bare()),
        ("several_buses", several_buses),
        ("no_bridge", no_bridge),
    ] {
        let directory = std::env::temp_dir().join(format!("acpi-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let image = tables(&hardware);
        for (signature, table) in follow(&image) {
            if matches!(signature.as_str(), "RSDT" | "XSDT") {
                continue;
            }
            std::fs::write(directory.join(format!("{signature}.dat")), table).unwrap();
            check_with_iasl(&directory, &signature);
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// Disassembles SIGNATURE.dat and compiles the result, both without a warning.
fn check_with_iasl(directory: &std::path::Path, signature: &str) {
    for (option, suffix) in [("-d", "dat"), ("-we", "dsl")] {
        let output = std::process::Command::new("iasl")
            .current_dir(directory)
            .args([option, &format!("{signature}.{suffix}")])
            .output()
            .expect("iasl (Debian: acpica-tools; make setup installs it)");
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let complaint = text.lines().find(|line| {
            let line = line.to_ascii_lowercase();
            ["warning", "error", "invalid"]
                .iter()
                .any(|word| line.contains(word))
                && !line.contains("0 errors, 0 warnings")
        });
        assert!(
            output.status.success() && complaint.is_none(),
            "{signature}: {text}"
        );
    }
}
