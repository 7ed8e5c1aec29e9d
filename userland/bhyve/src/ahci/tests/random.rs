//! Drivers that do anything: no panic, no endless loop, and a controller that works again
//! after its reset.

use proptest::prelude::*;
use vmmapi::Gpa;

use super::driver::{FRE, Fis, LIST, MEMORY, Machine, OK, RFIS, ST};
use crate::ahci::ata::code;
use crate::block::image::Image;

/// Addresses that are wrong now and then.
fn gpa() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0x20_0000_u64..0x30_0000,
        1 => (MEMORY as u64 - 64)..(MEMORY as u64 + 64),
        1 => any::<u64>(),
    ]
}

fn known_command() -> impl Strategy<Value = u8> {
    prop_oneof![
        1 => any::<u8>(),
        4 => proptest::sample::select(vec![
            code::READ_DMA_EXT,
            code::WRITE_DMA_EXT,
            code::READ_FPDMA_QUEUED,
            code::WRITE_FPDMA_QUEUED,
            code::SEND_FPDMA_QUEUED,
            code::DATA_SET_MANAGEMENT,
            code::READ_LOG_EXT,
            code::SMART,
            code::SET_FEATURES,
            code::IDENTIFY_DEVICE,
            code::FLUSH_CACHE_EXT,
        ]),
        4 => Just(code::PACKET),
    ]
}

/// A FIS, a packet, the PRDT's length, and some of its entries.
type Table = (Vec<u8>, Vec<u8>, u16, Vec<(u64, u32)>);

fn table() -> impl Strategy<Value = Table> {
    let fis = (known_command(), any::<[u8; 20]>(), 0_u8..8).prop_map(|(command, mut fis, tame)| {
        if tame > 0 {
            fis[0] = 0x27;
            fis[1] |= 0x80;
        }
        if tame > 1 {
            // Few sectors at the disk's beginning.
            fis[4..12].fill(0);
            fis[3] %= 4;
            fis[12] %= 4;
            fis[13] = 0;
        }
        fis[2] = command;
        fis.to_vec()
    });
    let operations: Vec<u8> = vec![
        0x00, 0x03, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa0, 0xa8, 0xbb,
        0xbe,
    ];
    let packet = (
        prop_oneof![8 => proptest::sample::select(operations), 1 => any::<u8>()],
        any::<[u8; 16]>(),
        any::<bool>(),
    )
        .prop_map(|(operation, mut packet, tame)| {
            packet[0] = operation;
            if tame {
                packet[2..8].fill(0);
            }
            packet.to_vec()
        });
    let entries = proptest::collection::vec(
        (
            gpa(),
            prop_oneof![4 => Just(511_u32), 2 => 0_u32..5000, 1 => any::<u32>()],
        ),
        8,
    );
    let len = prop_oneof![8 => 0_u16..9, 1 => any::<u16>()];
    (fis, packet, len, entries)
}

fn machine(image: &Image, disc: &Image) -> Machine {
    let options = format!("hd:{},cd:{}", image.with(""), disc.with(""));
    Machine::try_new("ahci", &options).unwrap()
}

/// Resets the controller and uses both devices.
fn works_again(m: &Machine) {
    m.write(4, 1);
    m.start(0);
    assert_eq!(m.command(Fis::new(code::FLUSH_CACHE, 0, 0), &[]), OK);
    m.identify(code::IDENTIFY_DEVICE);
    m.stop(0);
    m.start(1);
    m.prepare(0, &Fis::new(code::CHECK_POWER_MODE, 0, 0).bytes(), &[], &[]);
    m.set_port(1, 0x38, 1);
    m.wait_for("answer", || m.port(1, 0x38) == 0);
    assert_eq!(m.port(1, 0x20), OK);
}

proptest! {
    // A case that hangs takes its time to say so: it is not made much smaller.
    #![proptest_config(ProptestConfig {
        cases: 150,
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_command_breaks_a_device(
        port in 0_u64..2,
        tables in proptest::collection::vec(table(), 1..12),
        queued: u32,
    ) {
        let (image, disc) = (Image::new(&[0x5a; 65536]), Image::new(&[0xa5; 65536]));
        let m = machine(&image, &disc);
        m.write(4, 2);
        m.start(port);
        m.set_port(port, 0x14, u32::MAX);
        for (slot, (fis, packet, len, entries)) in tables.iter().enumerate() {
            let at = 0x20_0000 + 0x1000 * slot as u64;
            let header = LIST + 32 * slot as u64;
            m.memory.write(Gpa(header), u32::from(*len) << 16 | 5).unwrap();
            m.memory.write(Gpa(header + 8), at).unwrap();
            m.memory.copy_to(Gpa(at), fis).unwrap();
            m.memory.copy_to(Gpa(at + 0x40), packet).unwrap();
            for (n, (gpa, count)) in entries.iter().enumerate() {
                let entry = at + 0x80 + 16 * n as u64;
                m.memory.write(Gpa(entry), *gpa).unwrap();
                m.memory.write(Gpa(entry + 12), *count).unwrap();
            }
        }
        let all = (1 << tables.len()) - 1;
        m.set_port(port, 0x34, queued & all);
        m.set_port(port, 0x38, all);
        // What fails stops the port; the rest is tried behind it.
        for _ in 0..tables.len() {
            m.wait_for("end", || {
                let stopped = m.port(port, 0x10) & 0x7800_0000 != 0;
                stopped || m.port(port, 0x38) == 0
            });
            let left = m.port(port, 0x38);
            m.stop(port);
            m.set_port(port, 0x10, u32::MAX);
            m.set_port(port, 0x18, FRE | ST);
            m.set_port(port, 0x38, left & left.wrapping_sub(1));
        }
        works_again(&m);
    }

    #[test]
    fn no_register_access_breaks_a_controller(
        accesses in proptest::collection::vec(
            (
                0_u64..3,
                prop_oneof![4 => (0_u64..0x12).prop_map(|n| n * 4), 1 => 0_u64..0x80],
                0_u32..4,
                prop_oneof![
                    2 => 0_u32..32,
                    2 => (0_u32..32).prop_map(|bit| 1 << bit),
                    1 => any::<u32>(),
                ],
            ),
            1..150,
        ),
        list in gpa(),
    ) {
        let (image, disc) = (Image::new(&[0x5a; 65536]), Image::new(&[0xa5; 65536]));
        let m = machine(&image, &disc);
        let abar = u64::from(m.bus.read(super::driver::AT, 0x24, crate::ports::Width::Dword) & !0xf);
        for port in 0..2 {
            m.set_port(port, 0x00, list as u32);
            m.set_port(port, 0x04, (list >> 32) as u32);
            m.set_port(port, 0x08, RFIS as u32);
        }
        for (block, offset, size, value) in accesses {
            use crate::mmio::MmioBus;
            let at = match block {
                0 => offset,
                n => 0x100 + 0x80 * (n - 1) + offset,
            };
            let size = 1 << size;
            if at + u64::from(size) <= 0x400 {
                let value = u64::from(value) & (u64::MAX >> (64 - 8 * u32::from(size)));
                m.mmio.write(Gpa(abar + at), size, value);
                m.mmio.read(Gpa(abar + at), size);
            }
        }
        works_again(&m);
    }
}
