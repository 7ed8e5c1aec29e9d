//! Tests of the backends: the command line, frames both ways, ends.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;

use super::slirp::{Settings, UserNet, forwards};
use super::tap::Tap;
use super::*;
use crate::config::Config;

fn config(text: Option<&str>) -> Config {
    let mut config = Config::default();
    options(&mut config.node_mut("nic").unwrap(), text).unwrap();
    config
}

fn opened(lines: &str) -> Result<Option<Arc<dyn NetBackend>>, DeviceError> {
    let config = config(Some(lines));
    open(&config.node("nic").unwrap(), "nic", None)
}

#[test]
fn the_command_line_becomes_variables() {
    for (text, lines) in [
        (None, &[][..]),
        (Some("tap0"), &["nic.backend=tap0"]),
        (
            Some("tap0,mac=58:9c:fc:00:00:01,mtu=9000"),
            &[
                "nic.backend=tap0",
                "nic.mac=58:9c:fc:00:00:01",
                "nic.mtu=9000",
            ],
        ),
        (
            Some("slirp,open,hostfwd=tcp:127.0.0.1:2222-:22;udp::53-10.0.2.15:53"),
            &[
                "nic.backend=slirp",
                "nic.open=true",
                "nic.hostfwd=tcp:127.0.0.1:2222-:22;udp::53-10.0.2.15:53",
            ],
        ),
    ] {
        assert_eq!(config(text).lines(), lines, "{text:?}");
    }
}

#[test]
fn what_is_no_backend_here_is_refused_by_name() {
    for (text, named) in [
        ("netgraph,path=vm:,peerhook=link", "netgraph"),
        ("netmap:em0", "netmap"),
        ("vale0:1", "vale"),
        ("bridge0", "'bridge0'"),
        ("", "''"),
        ("tap0,type=carrier-pigeon", "'carrier-pigeon'"),
        ("slirp,open=perhaps", "nic.open=perhaps"),
        ("slirp,hostfwd=tcp:2222", "'tcp:2222'"),
        ("tap/../../etc/passwd", "tap/../../etc/passwd"),
    ] {
        let error = opened(text).err().unwrap().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn a_card_needs_no_backend() {
    let mut config = Config::default();
    config.set("nic.device", "virtio-net").unwrap();
    let none = open(&config.node("nic").unwrap(), "nic", None).unwrap();
    assert!(none.is_none());
}

#[test]
fn rules_of_hostfwd_are_those_of_bhyve() {
    let rules = forwards(Some(
        "tcp:127.0.0.1:2222-:22;udp::5353-10.0.2.20:53;tcp::-:80",
    ))
    .unwrap();
    let read: Vec<String> = rules
        .iter()
        .map(|(_, rule)| format!("{} {} {}", rule.udp, rule.host, rule.guest))
        .collect();
    assert_eq!(
        read,
        [
            "false 127.0.0.1:2222 0.0.0.0:22",
            "true 0.0.0.0:5353 10.0.2.20:53",
            "false 0.0.0.0:0 0.0.0.0:80",
        ]
    );
    assert!(forwards(None).unwrap().is_empty());
    for (text, why) in [
        ("", "protocol"),
        ("tcp:127.0.0.1:1-:2;", "'' has no protocol"),
        ("sctp::1-:2", "neither tcp nor udp"),
        ("tcp:127.0.0.1:1", "no guest's address"),
        ("tcp:1-:2", "without a port"),
        ("tcp::1-2", "without a port"),
        ("tcp:localhost:1-:2", "no IPv4 address"),
        ("tcp::1-[::1]:2", "no IPv4 address"),
        ("tcp::65536-:2", "no number up to 65535"),
        ("tcp::x-:2", "no number up to 65535"),
    ] {
        let error = forwards(Some(text)).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

// ---- tap ---------------------------------------------------------------------------

fn tap_on(end: impl Into<OwnedFd>) -> Tap {
    Tap::new(File::from(end.into()), "tap0").unwrap()
}

#[test]
fn a_tap_passes_frames_both_ways_until_it_is_stopped() {
    let (ours, host) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let tap = tap_on(ours);
    let mut buffer = [0; MAX_FRAME];
    host.send(&[7; 60]).unwrap();
    host.send(&[8; 1514]).unwrap();
    assert_eq!(tap.receive(&mut buffer), Received::Frame(60));
    assert_eq!(tap.receive(&mut buffer), Received::Frame(1514));
    assert_eq!(buffer[..1514], [8; 1514]);
    tap.send(&[9; 42]);
    assert_eq!(host.recv(&mut buffer).unwrap(), 42);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| tap.receive(&mut [0; MAX_FRAME]));
        tap.stop();
        assert_eq!(waiting.join().unwrap(), Received::Stopped);
    });
    host.send(&[1; 60]).unwrap();
    assert_eq!(tap.receive(&mut buffer), Received::Stopped);
}

#[test]
fn a_tap_that_is_gone_is_told_and_takes_frames_no_more() {
    let (ours, host) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let tap = tap_on(ours);
    drop(host);
    assert!(matches!(tap.receive(&mut [0; 64]), Received::Gone(why) if why.contains("tap0")));
    tap.send(&[0; 60]);
    tap.send(&[0; 60]);
}

// ---- slirp -------------------------------------------------------------------------

const GUEST_MAC: [u8; 6] = [0x58, 0x9c, 0xfc, 1, 2, 3];
const GUEST: [u8; 4] = [10, 0, 2, 15];
const HOST: [u8; 4] = [10, 0, 2, 2];
const ARP: [u8; 2] = [8, 6];
const IPV4: [u8; 2] = [8, 0];

/// A started stack; or, on a machine without libslirp, the error that has to say so.
fn started(open: bool, hostfwd: &str) -> Option<UserNet> {
    let settings = Settings {
        open,
        forwards: forwards((!hostfwd.is_empty()).then_some(hostfwd)).unwrap(),
        mtu: ETHERMTU,
    };
    match UserNet::start(settings, "nic") {
        Ok(net) => Some(net),
        Err(error @ NetError::Library(_)) => {
            let error = error.to_string();
            assert!(error.contains("libslirp.so.0 (install "), "{error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn arp(operation: u8, to: [u8; 6], target: [u8; 4]) -> Vec<u8> {
    [
        &to[..],
        &GUEST_MAC,
        &ARP,
        &[0, 1, 8, 0, 6, 4, 0, operation],
        &GUEST_MAC,
        &GUEST,
        &to,
        &target,
    ]
    .concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| {
        let [high, low] = [word[0], word.get(1).copied().unwrap_or(0)];
        u32::from(u16::from_be_bytes([high, low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ping(to: [u8; 6], target: [u8; 4]) -> Vec<u8> {
    let mut icmp = [&[8, 0, 0, 0, 0x12, 0x34, 0, 1][..], &[0x5a; 56]].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let len = (20 + icmp.len() as u16).to_be_bytes();
    let mut ip = [
        &[0x45, 0][..],
        &len,
        &[0, 1, 0, 0, 64, 1, 0, 0],
        &GUEST,
        &target,
    ]
    .concat();
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [&to[..], &GUEST_MAC, &IPV4, &ip, &icmp].concat()
}

/// The next frame of that type.
fn next(net: &UserNet, ether_type: [u8; 2]) -> Vec<u8> {
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let Received::Frame(len) = net.receive(&mut buffer) else {
            panic!("the stack has ended");
        };
        if buffer[12..14] == ether_type {
            return buffer[..len].to_vec();
        }
    }
}

#[test]
fn the_stack_answers_the_guest() {
    let Some(net) = started(false, "") else {
        return;
    };
    // What makes no sense is no frame to it.
    net.send(&[]);
    net.send(&[0; 13]);
    net.send(&[0xff; 1514]);
    net.send(&arp(1, [0xff; 6], HOST));
    let answer = next(&net, ARP);
    assert_eq!(answer[28..32], HOST);
    let host_mac: [u8; 6] = answer[6..12].try_into().unwrap();
    let request = ping(host_mac, HOST);
    net.send(&request);
    let answer = next(&net, IPV4);
    assert_eq!(answer[..6], GUEST_MAC);
    assert_eq!(answer[26..30], HOST);
    // An echo reply with the same data.
    assert_eq!(answer[34], 0);
    assert_eq!(answer[42..], request[42..]);
}

#[test]
fn a_connection_to_a_forwarded_port_arrives_at_the_guest() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let Some(net) = started(false, &format!("tcp:127.0.0.1:{port}-:7")) else {
        return;
    };
    let _connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let question = next(&net, ARP);
    assert_eq!(question[38..42], GUEST);
    net.send(&arp(2, question[6..12].try_into().unwrap(), HOST));
    let segment = next(&net, IPV4);
    assert_eq!(segment[30..34], GUEST);
    assert_eq!(segment[36..38], [0, 7], "port");
    assert_eq!(segment[47] & 0x3f, 2, "SYN");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let rule = format!("tcp:{}-:7", taken.local_addr().unwrap());
    let settings = Settings {
        open: false,
        forwards: forwards(Some(&rule)).unwrap(),
        mtu: ETHERMTU,
    };
    match UserNet::start(settings, "nic") {
        Err(NetError::Library(_)) => {}
        Err(error) => assert!(error.to_string().contains(&rule), "{error}"),
        Ok(_) => panic!("two can't listen at the same port"),
    }
}

#[test]
fn two_stacks_work_beside_each_other_and_stop() {
    let nets: Vec<UserNet> = (0..2).filter_map(|_| started(true, "")).collect();
    thread::scope(|scope| {
        for net in &nets {
            scope.spawn(|| {
                for _ in 0..200 {
                    net.send(&arp(1, [0xff; 6], HOST));
                    next(net, ARP);
                }
            });
        }
    });
    thread::scope(|scope| {
        for net in &nets {
            let waiting = scope.spawn(|| net.receive(&mut [0; MAX_FRAME]));
            net.stop();
            assert_eq!(waiting.join().unwrap(), Received::Stopped);
        }
    });
}

#[test]
fn a_guest_that_floods_the_stack_waits_for_it_and_loses_the_answers_it_doesnt_take() {
    let Some(net) = started(true, "") else {
        return;
    };
    for _ in 0..5000 {
        net.send(&arp(1, [0xff; 6], HOST));
    }
    for _ in 0..100 {
        next(&net, ARP);
    }
}
