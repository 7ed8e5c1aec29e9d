//! Tests of the card, with drivers of both versions and a cable to the test.

use std::cell::RefCell;

use proptest::prelude::*;
use vmmapi::Gpa;

use super::*;
use crate::net::cable::{End, cable};
use crate::net::mac::MacAddress;
use crate::ports::Width;
use crate::virtio::tests::guest::{Guest, Part, Ring, Version, device, into, made_by, out};

const BOTH: [Version; 2] = [Version::Legacy, Version::Modern];
const MAC: &str = "58:9c:fc:00:00:01";

thread_local! {
    /// The card's end of the next guest's cable.
    static BACKEND: RefCell<Option<Arc<End>>> = const { RefCell::new(None) };
}

fn on_cable(_: &View<'_>, context: DeviceContext) -> Result<Arc<dyn PciDevice>, DeviceError> {
    let settings = Settings {
        mac: MacAddress::parse(MAC).unwrap(),
        mtu: Some(9000),
    };
    let backend = BACKEND.take().unwrap();
    let card = Net::new(settings, Some(backend), &context.name, "vtnet");
    Ok(VirtioFunction::new(Box::new(card), context, "net")?)
}

/// A guest, and the other end of its cable.
fn guest(version: Version) -> (Guest, Arc<End>) {
    let (ours, theirs) = cable();
    BACKEND.set(Some(theirs));
    (Guest::new(version, made_by(on_cable), ""), ours)
}

/// Driver's queues: receive, transmit.
fn start(g: &Guest, features: u64) -> (Ring, Ring) {
    let mut rings = g.start_queues(features, 2);
    let transmit = rings.pop().unwrap();
    (rings.pop().unwrap(), transmit)
}

fn header_len(g: &Guest, features: u64) -> usize {
    if g.version == Version::Modern || features & feature::MRG_RXBUF != 0 {
        12
    } else {
        10
    }
}

/// A frame with a number, so that no two are equal.
fn frame(number: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| if n == 0 { number } else { (n % 251) as u8 })
        .collect()
}

fn config(g: &Guest) -> Vec<u8> {
    (0..12)
        .map(|at| match g.version {
            Version::Legacy => g.legacy(20 + at, Width::Byte) as u8,
            Version::Modern => g.read(g.registers.device + u64::from(at), 1) as u8,
        })
        .collect()
}

/// Makes buffers available to receive into.
fn offer(g: &Guest, ring: &mut Ring, buffers: &[u32]) -> Vec<Gpa> {
    let rooms: Vec<Gpa> = buffers
        .iter()
        .map(|len| {
            let room = g.room(u64::from(*len), 1);
            let head = ring.chain(g, &[into(room, *len)]);
            ring.publish(g, head);
            room
        })
        .collect();
    g.notify_queue(0);
    rooms
}

#[test]
fn a_driver_finds_the_card() {
    for version in BOTH {
        let (g, _end) = guest(version);
        assert_eq!(g.config32(0) >> 16, 0x1000);
        assert_eq!(g.config32(8) >> 16, 0x0200);
        assert_eq!(g.config32(0x2c) >> 16, 1);
        let (receive, transmit) = start(&g, 0);
        assert_eq!((receive.size, transmit.size), (1024, 1024));
        let wanted = feature::MAC | feature::STATUS | feature::MTU | feature::MRG_RXBUF;
        assert_eq!(g.offered() & 0xff_ffff, wanted);
        let config = config(&g);
        assert_eq!(config[..6], [0x58, 0x9c, 0xfc, 0, 0, 1]);
        assert_eq!(config[6..], [1, 0, 1, 0, 0x28, 0x23]);
    }
}

#[test]
fn a_card_without_a_backend_has_no_link_and_bhyves_address() {
    let g = Guest::new(Version::Modern, device("virtio-net"), "");
    let (_, mut transmit) = start(&g, 0);
    let config = config(&g);
    // Of slot 3 of a VM without a name.
    let hash = md5::compute("3-0-").0;
    assert_eq!(config[..3], [0x00, 0xa0, 0x98]);
    assert_eq!(config[3..6], hash[..3]);
    assert_eq!(config[6..8], [0, 0]);
    assert_eq!(g.offered() & feature::MTU, 0);
    let at = g.room_with(&[0; 72]);
    assert_eq!(transmit.request(&g, &[out(at, 72)]), 0);
}

#[test]
fn options_that_make_no_sense_are_named() {
    for (options, named) in [
        ("tap0,mac=01:00:00:00:00:01", "mac=01:00:00:00:00:01:"),
        ("tap0,mtu=45", "mtu=45"),
        ("tap0,mtu=65536", "mtu=65536"),
        ("slirp,mtu=60", "mtu=60"),
        ("netgraph,path=a:,peerhook=b", "netgraph"),
    ] {
        let refused = Guest::try_new(Version::Modern, device("virtio-net"), options, false);
        let error = refused.err().unwrap();
        assert!(error.contains(named), "{options}: {error}");
    }
}

#[test]
fn frames_are_sent_from_any_pieces() {
    for version in BOTH {
        for features in [0, feature::MRG_RXBUF] {
            let (g, end) = guest(version);
            let (_, mut transmit) = start(&g, features);
            let header = header_len(&g, features) as u32;
            for (number, pieces) in [
                &[header + 60][..],
                &[header, 60],
                &[header, 14],
                &[4, header - 4, 1, 1000, 7],
                &[header + 7, 7],
                &[header, 65536 + 64],
            ]
            .into_iter()
            .enumerate()
            {
                let total: u32 = pieces.iter().sum();
                let wanted = frame(number as u8, (total - header) as usize);
                let bytes = [&vec![0; header as usize][..], &wanted].concat();
                let mut at = g.room_with(&bytes);
                let parts: Vec<Part> = pieces
                    .iter()
                    .map(|len| {
                        let part = out(at, *len);
                        at = Gpa(at.0 + u64::from(*len));
                        part
                    })
                    .collect();
                assert_eq!(transmit.request(&g, &parts), 0);
                assert!(end.next() == wanted, "{pieces:?}");
            }
        }
    }
}

#[test]
fn what_is_no_frame_is_lost_and_the_next_one_is_sent() {
    for version in BOTH {
        let (g, end) = guest(version);
        let (_, mut transmit) = start(&g, 0);
        let header = header_len(&g, 0) as u32;
        let room = g.room(1 << 18, 1);
        for len in [
            1,
            header - 1,
            header,
            header + 13,
            header + 65536 + 65,
            1 << 18,
        ] {
            assert_eq!(transmit.request(&g, &[out(room, len)]), 0);
        }
        // Buffers to write are none to send.
        assert_eq!(transmit.request(&g, &[into(room, 200)]), 0);
        assert!(end.is_empty());
        transmit.request(&g, &[out(room, header + 60)]);
        assert_eq!(end.next().len(), 60);
    }
}

#[test]
fn a_frame_arrives_behind_its_header() {
    for version in BOTH {
        for features in [0, feature::MRG_RXBUF] {
            let (g, end) = guest(version);
            let (mut receive, _) = start(&g, features);
            let header = header_len(&g, features);
            let rooms = offer(&g, &mut receive, &[2000, 2000]);
            for (number, len) in [(1, 60), (2, 1514)] {
                let sent = frame(number, len);
                end.send(&sent);
                let (_, written) = receive.receive(&g);
                assert_eq!(written as usize, header + len);
                let bytes = g.bytes(rooms[usize::from(number) - 1], header + len);
                assert_eq!(bytes[..10], [0; 10]);
                if header == 12 {
                    assert_eq!(bytes[10..12], [1, 0], "number of buffers");
                }
                assert_eq!(bytes[header..], sent);
            }
        }
    }
}

#[test]
fn a_large_frame_is_spread_over_buffers_if_the_driver_lets_it() {
    for version in BOTH {
        let (g, end) = guest(version);
        let (mut receive, _) = start(&g, feature::MRG_RXBUF);
        let rooms = offer(&g, &mut receive, &[100, 7, 2000, 500]);
        let sent = frame(1, 2000);
        end.send(&sent);
        let lens: Vec<u32> = (0..3).map(|_| receive.receive(&g).1).collect();
        assert_eq!(lens, [100, 7, 1905]);
        let all: Vec<u8> = rooms
            .iter()
            .zip(&lens)
            .flat_map(|(room, len)| g.bytes(*room, *len as usize))
            .collect();
        assert_eq!(all[10..12], [3, 0]);
        assert_eq!(all[12..], sent);
        // The fourth buffer is for the next frame.
        end.send(&frame(2, 60));
        assert_eq!(receive.receive(&g).1, 72);
        assert_eq!(g.bytes(rooms[3], 13)[12], 2);
    }
}

#[test]
fn a_frame_that_no_buffer_has_room_for_is_lost() {
    for version in BOTH {
        let (g, end) = guest(version);
        let (mut receive, _) = start(&g, 0);
        let rooms = offer(&g, &mut receive, &[200]);
        end.send(&frame(1, 1514));
        end.send(&frame(2, 100));
        let header = header_len(&g, 0);
        assert_eq!(receive.receive(&g).1 as usize, header + 100);
        assert_eq!(g.bytes(rooms[0], header + 1)[header], 2);
    }
}

#[test]
fn frames_wait_for_buffers_in_order() {
    for features in [0, feature::MRG_RXBUF, feature::MRG_RXBUF | 1 << 29] {
        let (g, end) = guest(Version::Modern);
        let (mut receive, _) = start(&g, features);
        for number in 0..20 {
            end.send(&frame(number, 1000));
        }
        for number in 0..20 {
            let rooms = match features {
                0 => offer(&g, &mut receive, &[1100]),
                _ => offer(&g, &mut receive, &[500, 600]),
            };
            let mut all = Vec::new();
            for room in rooms {
                let len = receive.receive(&g).1 as usize;
                all.extend(g.bytes(room, len));
            }
            assert_eq!(all[12..], frame(number, 1000));
        }
    }
}

#[test]
fn frames_without_a_driver_are_lost_and_a_reset_ends_a_wait() {
    let (g, end) = guest(Version::Modern);
    end.send(&frame(1, 60));
    g.wait_for("frame lost without a driver", || end.waiting() == 0);
    start(&g, 0);
    // This one waits for buffers that never come.
    end.send(&frame(2, 60));
    g.wait_for("frame taken", || end.waiting() == 0);
    let (mut receive, _) = start(&g, 0);
    let rooms = offer(&g, &mut receive, &[100]);
    end.send(&frame(3, 60));
    receive.receive(&g);
    assert_eq!(g.bytes(rooms[0], 13)[12], 3);
}

#[test]
fn a_backend_that_is_gone_takes_the_link_down() {
    for version in BOTH {
        let (g, end) = guest(version);
        let (_, mut transmit) = start(&g, 0);
        assert_eq!(config(&g)[6], 1);
        end.cut();
        g.wait_for("link down", || config(&g)[6] == 0);
        g.wait_for("change of the configuration", || g.isr() & 2 != 0);
        let at = g.room_with(&[0; 80]);
        assert_eq!(transmit.request(&g, &[out(at, 80)]), 0);
    }
}

#[test]
fn a_legacy_driver_may_change_the_address() {
    let (g, _end) = guest(Version::Legacy);
    start(&g, 0);
    for at in 0..12 {
        g.set_legacy(20 + at, Width::Byte, 0xa0 + u32::from(at));
    }
    let config = config(&g);
    assert_eq!(config[..6], [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5]);
    assert_eq!(config[6..], [1, 0, 1, 0, 0x28, 0x23]);
}

#[test]
fn two_guests_talk_by_cable() {
    let (a, b) = cable();
    let guests = [a, b].map(|end| {
        BACKEND.set(Some(end));
        Guest::new(Version::Modern, made_by(on_cable), "")
    });
    let [mut ours, mut theirs] = [0, 1].map(|n: usize| start(&guests[n], feature::MRG_RXBUF));
    let rooms = offer(&guests[1], &mut theirs.0, &[2000]);
    let sent = frame(9, 700);
    let at = guests[0].room_with(&[&[0; 12][..], &sent].concat());
    ours.1.request(&guests[0], &[out(at, 712)]);
    assert_eq!(theirs.0.receive(&guests[1]).1, 712);
    assert_eq!(guests[1].bytes(rooms[0], 712)[12..], sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever buffers the driver offers, the frames that it gets are those that were
    /// sent, whole and in order; those that don't fit in one buffer are missing where the
    /// driver hasn't agreed to several.
    #[test]
    fn frames_arrive_as_they_were_sent(
        modern: bool,
        merge: bool,
        lens in proptest::collection::vec(14_usize..3000, 1..20),
        sizes in proptest::collection::vec(1_u32..2500, 1..60),
    ) {
        let (g, end) = guest(if modern { Version::Modern } else { Version::Legacy });
        let features = if merge { feature::MRG_RXBUF } else { 0 };
        let (mut receive, _) = start(&g, features);
        let header = header_len(&g, features);
        let rooms = offer(&g, &mut receive, &sizes);
        for (number, len) in lens.iter().enumerate() {
            end.send(&frame(number as u8, *len));
        }
        // What the device is to do with these buffers.
        let mut next = 0;
        for (number, len) in lens.iter().enumerate() {
            let total = header + len;
            let mut left = total;
            let mut used = Vec::new();
            while left > 0 && next < sizes.len() && (merge || used.is_empty()) {
                let size = sizes[next] as usize;
                if !merge && size < left {
                    break;
                }
                used.push((next, size.min(left)));
                left -= size.min(left);
                next += 1;
            }
            if left > 0 {
                if merge || next == sizes.len() {
                    break;
                }
                continue;
            }
            let mut bytes = Vec::new();
            for (index, wanted) in &used {
                let (_, len) = receive.receive(&g);
                prop_assert_eq!(len as usize, *wanted);
                bytes.extend(g.bytes(rooms[*index], *wanted));
            }
            prop_assert_eq!(&bytes[..10], &[0; 10]);
            if header == 12 {
                prop_assert_eq!(bytes[10..12].to_vec(), (used.len() as u16).to_le_bytes().to_vec());
            }
            prop_assert_eq!(&bytes[header..], &frame(number as u8, *len)[..]);
        }
    }

    /// Any descriptors in both queues, with frames coming in: nothing breaks, and after a
    /// reset the card works.
    #[test]
    fn no_chain_breaks_a_card(
        modern: bool,
        features: u64,
        descriptors in proptest::collection::vec(
            (prop_oneof![4 => 0x20_0000_u64..0x20_4000, 1 => any::<u64>()],
             prop_oneof![4 => 0_u32..2000, 1 => any::<u32>()],
             prop_oneof![6 => 0_u16..4, 1 => any::<u16>()],
             prop_oneof![6 => 0_u16..8, 1 => any::<u16>()]),
            8,
        ),
        heads in proptest::collection::vec((0_u16..2, prop_oneof![4 => 0_u16..8, 1 => any::<u16>()]), 1..30),
    ) {
        let version = if modern { Version::Modern } else { Version::Legacy };
        let (g, end) = guest(version);
        let (mut receive, mut transmit) = start(&g, features & g.offered());
        for ring in [&receive, &transmit] {
            for (n, (gpa, len, flags, next)) in descriptors.iter().enumerate() {
                let part = Part { gpa: Gpa(*gpa), len: *len, writable: false };
                ring.set_descriptor(&g, n as u16, part, *flags, *next);
            }
        }
        for (queue, head) in heads {
            let ring = if queue == 0 { &mut receive } else { &mut transmit };
            ring.publish(&g, head);
            g.notify_queue(queue);
            end.send(&frame(0xff, 600));
        }
        let (mut receive, mut transmit) = start(&g, feature::MRG_RXBUF);
        let at = g.room_with(&[&[0; 12][..], &frame(0xee, 60)].concat());
        prop_assert_eq!(transmit.request(&g, &[out(at, 72)]), 0);
        while end.next()[0] != 0xee {}
        let rooms = offer(&g, &mut receive, &[20_000; 40]);
        end.send(&frame(0xdd, 61));
        // Some that waited for buffers come first.
        for room in rooms {
            receive.receive(&g);
            if g.bytes(room, 13)[12] == 0xdd {
                break;
            }
        }
    }
}
