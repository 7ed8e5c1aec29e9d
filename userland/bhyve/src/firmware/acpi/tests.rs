//! The tables, followed from the RSDP as an operating system follows them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

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
        fwcfg: false,
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
        fwcfg: false,
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

/// A directory with SIGNATURE.dat for each table; gone in the end.
struct TableFiles {
    directory: PathBuf,
    signatures: Vec<String>,
}

impl TableFiles {
    fn new(name: &str, hardware: &Hardware) -> Self {
        let directory = std::env::temp_dir().join(format!("acpi-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let image = tables(hardware);
        let mut signatures = Vec::new();
        for (signature, table) in follow(&image) {
            std::fs::write(directory.join(format!("{signature}.dat")), table).unwrap();
            signatures.push(signature);
        }
        Self {
            directory,
            signatures,
        }
    }

    /// What a program of ACPICA prints about the files.
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program)
            .current_dir(&self.directory)
            .args(args)
            .output()
            .unwrap_or_else(|error| {
                panic!("{program} (package acpica-tools; make setup installs it): {error}")
            });
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {text}");
        text
    }
}

impl Drop for TableFiles {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
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
        ("several-buses", several_buses),
        ("no-bridge", no_bridge),
    ] {
        let files = TableFiles::new(name, &hardware);
        // The compiler doesn't know the two that only list others.
        let lists = ["RSDT", "XSDT"];
        let others = |signature: &&String| !lists.contains(&signature.as_str());
        for signature in files.signatures.iter().filter(others) {
            check_with_iasl(&files, signature);
        }
    }
}

fn check_with_iasl(files: &TableFiles, signature: &str) {
    // -we: a warning is an error.
    for (option, suffix) in [("-d", "dat"), ("-we", "dsl")] {
        let text = files.run("iasl", &[option, &format!("{signature}.{suffix}")]);
        let complaint = text.lines().map(str::to_ascii_lowercase).find(|line| {
            let bad = ["warning", "error", "invalid"];
            bad.iter().any(|word| line.contains(word)) && !line.contains("0 errors, 0 warnings")
        });
        assert_eq!(complaint, None, "{signature}: {text}");
    }
}

#[test]
fn what_the_bus_decodes_and_where_the_router_is_stands_in_the_dsdt() {
    let mut hardware = whole(1);
    hardware.buses[0].windows.memory64 = 0..0;
    let files = TableFiles::new("windows", &hardware);
    files.run("iasl", &["-d", "DSDT.dat"]);
    let text = std::fs::read_to_string(files.directory.join("DSDT.dsl")).unwrap();
    let words: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(str::split_whitespace)
        .collect();
    let text = words.join(" ");
    for window in [
        "0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8,",
        "0x0000, 0x0D00, 0x1FFF, 0x0000, 0x1300,",
        "0x0000, 0x2000, 0x213F, 0x0000, 0x0140,",
        "0x00000000, 0xC0000000, 0xC02FFFFF, 0x00000000, 0x00300000,",
        "Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000, )",
    ] {
        assert!(text.contains(window), "{window}: {text}");
    }
    assert!(!text.contains("QWordMemory"), "{text}");
    let registers = "Offset (0x60), PIRA, 8, PIRB, 8, PIRC, 8, PIRD, 8, \
                     Offset (0x68), PIRE, 8, PIRF, 8, PIRG, 8, PIRH, 8";
    assert!(text.contains(registers), "{text}");
    let links: Vec<&str> = text.split("Device (LNK").skip(1).collect();
    let links: Vec<&str> = links.iter().map(|link| &link[..1]).collect();
    assert_eq!(links, ["B", "H"], "those that are wired");
}

#[test]
fn the_console_is_com1_and_the_configuration_space_is_at_its_address() {
    let image = tables(&whole(1));
    let tables = follow(&image);
    let spcr = tables["SPCR"];
    assert_eq!((spcr.len(), spcr[36], qword(spcr, 44)), (80, 0, 0x3f8));
    assert_eq!((spcr[52], spcr[53], spcr[58]), (1, 4, 7), "IRQ 4, 115200");
    assert_eq!(dword(spcr, 64), u32::MAX, "not a PCI device");
    let mcfg = tables["MCFG"];
    assert_eq!(
        (qword(mcfg, 44), mcfg[54], mcfg[55]),
        (0xe000_0000, 0, 0xff)
    );

    let mut without = whole(1);
    without.com_ports = vec![1];
    let image = super::tables(&without);
    assert!(!follow(&image).contains_key("SPCR"));
}

/// ACPICA's interpreter runs the methods, on registers that are memory.
#[test]
fn routing_follows_the_interrupt_model_and_links_follow_their_registers() {
    let files = TableFiles::new("methods", &whole(1));
    let run = |methods: &[&str]| {
        let batch: Vec<String> = methods.iter().map(|m| format!("execute {m}")).collect();
        let text = files.run(
            "acpiexec",
            &["-b", &batch.join("; "), "DSDT.dat", "FACP.dat"],
        );
        text.split("Evaluating ")
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let routing = run(&["\\_SB.PC00._PRT", "\\_PIC 1", "\\_SB.PC00._PRT"]);
    for link in ["Name LNKB Device", "Name LNKH Device"] {
        assert!(routing[0].contains(link), "{}", routing[0]);
        assert!(!routing[2].contains(link), "{}", routing[2]);
    }
    for pin in [
        "[Integer] = 0000000000000010",
        "[Integer] = 0000000000000017",
    ] {
        assert!(routing[2].contains(pin), "{}", routing[2]);
    }

    let link = |method| format!("\\_SB.PC00.ISA.LNKH.{method}");
    let (status, current, disable) = (link("_STA"), link("_CRS"), link("_DIS"));
    // The descriptor that LCRS makes, with interrupt 11.
    let set = link("_SRS (89 06 00 0D 01 0B 00 00 00 79 00)");
    let answers = run(&[&set, &status, &current, &disable, &status, &current]);
    assert!(answers[1].contains("= 000000000000000B"), "{}", answers[1]);
    assert!(
        answers[2].contains("89 06 00 0D 01 0B 00 00 00 79 00"),
        "{}",
        answers[2]
    );
    assert!(answers[4].contains("= 0000000000000009"), "{}", answers[4]);
    assert!(
        answers[5].contains("89 06 00 0D 01 00 00 00 00 79 00"),
        "{}",
        answers[5]
    );
}
