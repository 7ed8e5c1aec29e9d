//! virtio-net with Debian's driver, one guest with two cards: user networking through
//! libslirp, and a tap interface of the host. Addresses, echoes and connections both ways on
//! each, and a tap that vanishes.

use crate::linux::{LIMIT, assert_no_complaint, assert_powered_off, on_linux_host, one_cpu};
use vmm_rs_e2e::lab::Output;

/// In the guest. A line with `listens at` or `guest: …` is something that the host waits for;
/// its half of each step is in [`HOST`].
const GUEST: &str = r#"
cat >/run/dhcp <<'DHCP'
[ $1 = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
DHCP
chmod +x /run/dhcp
for card in eth0 eth1; do
    echo $card $(cat /sys/class/net/$card/address) mtu $(cat /sys/class/net/$card/mtu)
done
ip link set lo up
ip link set eth0 up
udhcpc -n -q -i eth0 -s /run/dhcp || exit 1
ip addr show dev eth0
ping -c 3 10.0.2.2 || exit 1
guestcheck connect 10.0.2.2:7001 2 || exit 1
guestcheck listen 10.0.2.15:7 2 || exit 1

ip addr add 10.9.0.2/24 dev eth1
ip link set eth1 up
echo guest: carrier $(cat /sys/class/net/eth1/carrier)
until ping -c 1 -W 1 10.9.0.1 >/dev/null; do :; done
ping -c 3 -s 8000 10.9.0.1 || exit 1
guestcheck connect 10.9.0.1:7002 2 || exit 1
guestcheck listen 10.9.0.2:8 2 || exit 1
tail -n +3 /proc/net/dev

echo guest: the tap may go
until [ "$(cat /sys/class/net/eth1/carrier)" = 0 ]; do usleep 50000; done
echo guest: the carrier is lost
ping -c 1 -W 1 10.9.0.1 && exit 1
ping -c 1 10.0.2.2 || exit 1
"#;

/// On the lab host, while the guest runs.
const HOST: &str = r#"
saw() {
    until grep -q "^$1" /tmp/log; do
        kill -0 $guest 2>/dev/null || { cat /tmp/log; echo "the guest ended before '$1'"; exit 99; }
        usleep 200000
    done
}
ip addr add 127.0.0.1/8 dev lo 2>/dev/null
ip link set lo up
insmod /linux/tun.ko
guestcheck listen 127.0.0.1:7001 2 &
/linux/run-guest -a quiet -s /tmp/script -- \
    -s 5,virtio-net,slirp,open,hostfwd=tcp:127.0.0.1:2222-:7 \
    -s 6,virtio-net,tap0,mac=58:9c:fc:0a:0b:0c,mtu=9000 </dev/null >/tmp/log 2>&1 & guest=$!
saw 'listens at 10.0.2.15:7'
guestcheck connect 127.0.0.1:2222 2

saw 'guest: carrier'
ip link set tap0 mtu 9000
ip addr add 10.9.0.1/24 dev tap0
guestcheck listen 10.9.0.1:7002 2 &
saw 'listens at 10.9.0.2:8'
ping -c 3 -s 8000 10.9.0.2
guestcheck connect 10.9.0.2:8 2

saw 'guest: the tap may go'
ip link del tap0
wait $guest
status=$?
cat /tmp/log
rmmod tun
exit $status
"#;

#[test]
#[cfg_attr(
    freebsd_host,
    ignore = "FreeBSD's base has no libslirp, and its taps are made otherwise"
)]
fn a_guest_is_on_the_network_by_slirp_and_by_tap() {
    on_linux_host(one_cpu(), |host| {
        host.check(&format!("cat >/tmp/script <<'END'\n{GUEST}\nEND"));
        let mut output = host.run_within(LIMIT, HOST);
        output.text = output.text.replace('\r', "");
        assert_powered_off(&output);
        says(
            &output,
            &[
                // As bhyve makes the address of slot 5 of guest0.
                "eth0 00:a0:98:0c:98:79 mtu 1500",
                "eth1 58:9c:fc:0a:0b:0c mtu 9000",
                "lease of 10.0.2.15 obtained",
                "inet 10.0.2.15/24",
                "with 10.0.2.2:7001 2 MiB went each way",
                "at 127.0.0.1:7001 2 MiB went each way",
                "with 127.0.0.1:2222 2 MiB went each way",
                "at 10.0.2.15:7 2 MiB went each way",
                "guest: carrier 1",
                "with 10.9.0.1:7002 2 MiB went each way",
                "at 10.9.0.1:7002 2 MiB went each way",
                "with 10.9.0.2:8 2 MiB went each way",
                "at 10.9.0.2:8 2 MiB went each way",
                "the guest's link is down",
                "guest: the carrier is lost",
            ],
        );
        let echoes = output.text.matches("3 packets received").count();
        assert_eq!(echoes, 3, "pings of three: {output}");
        assert_no_complaint(&output);
        host.destroy("guest0");
    });
}

fn says(output: &Output, lines: &[&str]) {
    for line in lines {
        assert!(output.text.contains(line), "'{line}': {output}");
    }
}
