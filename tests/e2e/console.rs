//! virtio-console with Debian's driver: a port for files and a port that is a terminal, each
//! with a program of the host at its socket.

use crate::linux::{LIMIT, assert_no_complaint, assert_powered_off, on_linux_host, one_cpu};

/// In the guest. The host has the guest's programs in /linux, which are sent as they are, in
/// both directions at once.
const GUEST: &str = r#"
insmod /modules/virtio_console.ko || exit 1
until name=$(grep -lx org.vmm_rs.files /sys/class/virtio-ports/*/name 2>/dev/null); do usleep 20000; done
exec 3<>/dev/$(echo $name | cut -d / -f 5)
cat /bin/guestcheck >&3 &
head -c $(stat -c %s /bin/busybox) <&3 | cmp - /bin/busybox || exit 1
wait
echo guest: all of it
cat <&3
echo guest: the first client has left
until line=$(head -n 1 <&3) && [ -n "$line" ]; do usleep 20000; done
echo "guest: the second client says $line"
echo the guest heard it >&3

exec 4<>/dev/hvc0
stty raw -echo <&4
echo guest: the terminal is raw
read -r line <&4
echo "guest: the terminal says $line"
echo "the terminal heard $line" >&4
cat <&3
"#;

/// On the lab host, while the guest runs.
const HOST: &str = r#"
cd /tmp
echo hello >hello
echo the guest heard it >heard
echo of a terminal >terminal
echo the terminal heard of a terminal >terminal.heard
/linux/run-guest -a quiet -s /tmp/script -- \
    -s 5,virtio-console,org.vmm_rs.files=/tmp/files.sock,tty=/tmp/tty.sock \
    -o pci.0.5.0.port.1.console=true </dev/null >/tmp/log 2>&1 & guest=$!
until_there() {
    until "$@"; do
        kill -0 $guest 2>/dev/null || { cat /tmp/log; exit 1; }
        sleep 0.05
    done
}
until_there [ -S /tmp/tty.sock ]
guestcheck socket /tmp/files.sock /linux/busybox /linux/guestcheck
until_there grep -q '^guest: the first client has left' /tmp/log
guestcheck socket /tmp/files.sock hello heard
# Before that it would echo.
until_there grep -q '^guest: the terminal is raw' /tmp/log
guestcheck socket /tmp/tty.sock terminal terminal.heard
wait $guest
status=$?
cat /tmp/log
[ -e /tmp/files.sock ] || [ -e /tmp/tty.sock ] || echo host: no sockets are left
exit $status
"#;

#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn programs_of_host_and_guest_talk_by_ports_and_by_a_terminal() {
    on_linux_host(one_cpu(), |host| {
        host.check(&format!("cat >/tmp/script <<'END'\n{GUEST}\nEND"));
        let mut output = host.run_within(LIMIT, HOST);
        output.text = output.text.replace('\r', "");
        assert_powered_off(&output);
        for line in [
            "/tmp/files.sock: sent ",
            "guest: all of it\n",
            "guest: the first client has left\n",
            "guest: the second client says hello\n",
            "/tmp/files.sock: sent 6 bytes, got 19\n",
            "guest: the terminal says of a terminal\n",
            "/tmp/tty.sock: sent 14 bytes, got 33\n",
            "host: no sockets are left\n",
        ] {
            assert!(output.text.contains(line), "'{line}': {output}");
        }
        assert_no_complaint(&output);
        host.destroy("guest0");
    });
}
