//! Drivers that do anything: no panic, no endless loop, and a device that works again
//! after its reset.

use proptest::prelude::*;
use vmmapi::Gpa;

use super::guest::{Guest, Part, Ring, Version, device, into, out, write_descriptor};
use crate::block::image::Image;
use crate::ports::Width;

/// A descriptor with values that are wrong now and then.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let gpa = prop_oneof![
        4 => 0x20_0000_u64..0x20_4000,
        1 => (super::guest::LOW as u64 - 64)..(super::guest::LOW as u64 + 64),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![
        2 => Just(16_u32),
        2 => Just(1_u32),
        2 => (0_u32..9).prop_map(|n| n * 512),
        1 => 0_u32..64,
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![6 => 0_u16..4, 1 => 4_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![6 => 0_u16..8, 1 => any::<u16>()];
    (gpa, len, flags, next)
}

/// Writes descriptors as they come, to a ring's table and to a table behind the data.
fn fill(g: &Guest, ring: &Ring, descriptors: &[(u64, u32, u16, u16)]) {
    for (n, (gpa, len, flags, next)) in descriptors.iter().enumerate() {
        let part = Part {
            gpa: Gpa(*gpa),
            len: *len,
            writable: false,
        };
        ring.set_descriptor(g, n as u16, part, *flags, *next);
        write_descriptor(g, Gpa(0x20_0000), n as u16, part, *flags, *next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_chain_breaks_a_disk(
        modern: bool,
        features: u64,
        descriptors in proptest::collection::vec(descriptor(), 8),
        heads in proptest::collection::vec(prop_oneof![4 => 0_u16..8, 1 => any::<u16>()], 1..20),
        header in proptest::collection::vec(0_u8..16, 16),
        jump: bool,
    ) {
        let image = Image::new(&[0x5a; 65536]);
        let version = if modern { Version::Modern } else { Version::Legacy };
        let g = Guest::new(version, device("virtio-blk"), &image.with(""));
        let mut ring = g.start(features & g.offered() & !(1 << 27));
        g.memory.copy_to(Gpa(0x20_0200), &header).unwrap();
        fill(&g, &ring, &descriptors);
        for head in heads {
            ring.publish(&g, head);
            g.notify();
        }
        if jump {
            g.memory.write(Gpa(ring.available + 2), 0x8000_u16).unwrap();
            g.notify();
        }
        // A reset waits for all that was begun, and then the disk is as new.
        let mut ring = g.start(0);
        let header = g.room_with(&[0; 16]);
        let to = g.room(513, 1);
        let len = ring.request(&g, &[out(header, 16), into(to, 513)]);
        prop_assert_eq!(len, 513);
        prop_assert_eq!(g.bytes(to, 513)[512], 0, "status");
    }

    #[test]
    fn no_register_access_breaks_a_device(
        accesses in proptest::collection::vec(
            (0_u8..6, 0_u64..0x40, 0_u32..3, prop_oneof![0_u64..16, any::<u64>()]),
            1..120,
        ),
        console: bool,
    ) {
        // One without ports; it answers messages all the same.
        let name = if console { "virtio-console" } else { "virtio-rnd" };
        let g = Guest::new(Version::Modern, device(name), "");
        let (common, notify) = (g.registers.common, g.registers.notify);
        let window = g.virtio_capability(5).unwrap();
        for (place, offset, size, value) in accesses {
            let width = [Width::Byte, Width::Word, Width::Dword][size as usize];
            let bytes = 1_u8 << size;
            match place {
                0 => {
                    g.ports.write(g.registers.legacy + offset as u16 % 24, width, value as u32);
                    g.ports.read(g.registers.legacy + offset as u16 % 24, width);
                }
                1 => {
                    g.write(common + offset, 8, value);
                    g.read(common + offset, 8);
                }
                2 => g.write(common + offset, bytes, value & (u64::MAX >> (64 - 8 * u32::from(bytes)))),
                3 => g.write(notify + offset, bytes, 0),
                4 => {
                    // The device's configuration space, behind either kind of registers.
                    let port = g.registers.legacy + 20 + offset as u16 % 16;
                    g.ports.write(port, width, value as u32);
                    g.ports.read(port, width);
                    if console {
                        g.write(g.registers.device + offset, 8, value);
                        g.read(g.registers.device + offset, bytes);
                    }
                }
                _ => {
                    let register = window + 4 + offset as u16 % 16;
                    if register % u16::from(bytes) == 0 {
                        g.set_config(register, width, value as u32);
                        g.bus.read(super::guest::AT, register, width);
                    }
                }
            }
        }
        if console {
            let mut rings = g.start_queues(0, 4);
            let message = g.room(8, 1);
            prop_assert_eq!(rings[3].request(&g, &[out(message, 8)]), 0);
        } else {
            let mut ring = g.start(0);
            prop_assert_eq!(ring.request(&g, &[into(g.room(8, 1), 8)]), 8);
        }
    }
}
