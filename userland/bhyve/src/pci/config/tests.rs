//! Tests of configuration space.

use super::super::device::{Capability, Header, MsixSpec};
use super::*;

fn spec() -> FunctionSpec {
    FunctionSpec {
        header: Header {
            vendor: 0x1af4,
            device: 0x1042,
            class: 1,
            subclass: 2,
            prog_if: 3,
            revision: 4,
            subsystem_vendor: 0x1234,
            subsystem: 0x5678,
        },
        bars: vec![
            BarSpec {
                index: 0,
                kind: BarKind::Io,
                size: 60,
            },
            BarSpec {
                index: 2,
                kind: BarKind::Memory64,
                size: 0x3000,
            },
        ],
        msi: Some(1),
        msix: Some(MsixSpec { bar: 1, vectors: 2 }),
        intx: true,
        capabilities: vec![Capability {
            id: 9,
            contents: vec![0x10, 0x20, 0x30],
            writable: vec![0, 0x0f],
        }],
    }
}

fn get16(space: &ConfigSpace, register: usize) -> u16 {
    u16::from_le_bytes([space.byte(register), space.byte(register + 1)])
}

fn write32(space: &mut ConfigSpace, register: usize, value: u32) -> u32 {
    for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
        space.write(register + n, byte);
    }
    space.get32(register)
}

#[test]
fn the_header_identifies_the_function() {
    let space = ConfigSpace::new(&spec()).unwrap();
    assert_eq!(space.get32(0x00), 0x1042_1af4);
    assert_eq!(space.get32(0x08), 0x0102_0304);
    assert_eq!(space.get32(0x2c), 0x5678_1234);
    assert_eq!(get16(&space, 0x3c), 0x00ff, "no interrupt");
    assert_eq!(space.byte(0x0e), 0, "a single function of type 0");
}

#[test]
fn capabilities_are_linked_on_double_words() {
    let space = ConfigSpace::new(&spec()).unwrap();
    assert_eq!(space.byte(0x06) & 0x10, 0x10);
    let mut at = usize::from(space.byte(0x34));
    let mut found = Vec::new();
    while at != 0 {
        found.push((at, space.byte(at)));
        at = usize::from(space.byte(at + 1));
    }
    assert_eq!(found, [(0x40, 0x11), (0x4c, 0x05), (0x5c, 0x09)]);
    let (kind, contents) = space.capability_at(0x60).unwrap();
    assert_eq!((kind, contents), (CapabilityKind::Device(0), 0x5e..0x61));
    assert_eq!(space.capability_at(0x4d), None, "a next pointer");
    assert!(!space.is_device_specific(0x63));
    assert!(space.is_device_specific(0x64));
    assert!(!space.is_device_specific(0x3f));

    let plain = ConfigSpace::new(&FunctionSpec::default()).unwrap();
    assert_eq!((plain.byte(0x34), plain.byte(0x06) & 0x10), (0, 0));
}

#[test]
fn bars_tell_their_sizes_and_types() {
    let mut space = ConfigSpace::new(&spec()).unwrap();
    assert_eq!(write32(&mut space, 0x10, u32::MAX), 0xffff_ffc1);
    assert_eq!(write32(&mut space, 0x14, u32::MAX), 0xffff_e000);
    assert_eq!(write32(&mut space, 0x18, u32::MAX), 0xffff_c004);
    assert_eq!(write32(&mut space, 0x1c, u32::MAX), u32::MAX);
    assert_eq!(write32(&mut space, 0x20, u32::MAX), 0);
    assert_eq!(write32(&mut space, 0x30, u32::MAX), 0, "there is no ROM");
}

#[test]
fn decoding_follows_the_command_register() {
    let mut space = ConfigSpace::new(&spec()).unwrap();
    let [io, msix, wide] = [0, 1, 2].map(|index| space.bars[index].unwrap());
    space.set_bar(io, 0x2040);
    space.set_bar(msix, 0xc000_0000);
    space.set_bar(wide, 0x8_0000_4000);
    assert_eq!(space.decoded(io), None);
    assert_eq!(space.decoded(wide), None);
    space.write(COMMAND, COMMAND_IO as u8);
    let ports = BarRange::Io {
        first: 0x2040,
        len: 64,
    };
    assert_eq!(space.decoded(io), Some(ports));
    assert_eq!(space.decoded(msix), None);
    space.write(COMMAND, COMMAND_MEMORY as u8);
    assert_eq!(space.decoded(io), None);
    let memory = |first, len| Some(BarRange::Memory { first, len });
    assert_eq!(space.decoded(msix), memory(0xc000_0000, 0x2000));
    assert_eq!(space.decoded(wide), memory(0x8_0000_4000, 0x4000));
    space.enable();
    assert_eq!(space.decoded(io), Some(ports));
}

#[test]
fn only_writable_bits_change() {
    let mut space = ConfigSpace::new(&spec()).unwrap();
    let before = space.bytes;
    for register in 0..SIZE {
        space.write(register, 0xff);
    }
    assert_eq!(space.get32(0), 0x1042_1af4);
    assert_eq!(get16(&space, 0x04), 0x0547);
    assert!(space.intx_disabled());
    assert_eq!(get16(&space, 0x06), 0x0010);
    assert_eq!(space.bytes[0x5e..0x61], [0x10, 0x2f, 0x30]);
    for register in 0..SIZE {
        space.write(register, 0);
    }
    for (n, byte) in before.iter().enumerate() {
        assert_eq!(byte & !space.writable[n], space.bytes[n], "{n:#x}");
    }
}

#[test]
fn impossible_descriptions_are_refused() {
    let refusal = |change: fn(&mut FunctionSpec)| {
        let mut spec = spec();
        change(&mut spec);
        ConfigSpace::new(&spec).err()
    };
    assert_eq!(refusal(|_| ()), None);
    assert_eq!(refusal(|s| s.bars[1].index = 5), Some(SpecError::Bar(5)));
    assert_eq!(refusal(|s| s.bars[0].index = 3), Some(SpecError::Bar(2)));
    assert_eq!(refusal(|s| s.bars[0].size = 512), Some(SpecError::Bar(0)));
    assert_eq!(refusal(|s| s.msi = Some(3)), Some(SpecError::Messages));
    assert_eq!(refusal(|s| s.msi = Some(0)), Some(SpecError::Messages));
    let none = |s: &mut FunctionSpec| s.msix = Some(MsixSpec { bar: 1, vectors: 0 });
    assert_eq!(refusal(none), Some(SpecError::Messages));
    let long = |s: &mut FunctionSpec| s.capabilities[0].contents = vec![0; 200];
    assert_eq!(refusal(long), Some(SpecError::Capabilities));
}
