//! Disks and CDs: what the guest wrote is what the image holds, on virtio-blk and AHCI, and
//! a full file system on the host is an I/O error for the guest and a line for the person.

use vmm_rs_e2e::lab::{self, HOST};

use crate::linux::{LIMIT, on_linux_host, one_cpu};

/// All in one boot: disks that work, a CD, and disks whose images are on a full tmpfs.
const SCRIPT: &str = "
sum() { sha256sum <$1 | cut -d ' ' -f 1; }
mkdir -p /tmp/full
mount -t tmpfs -o size=64k tmpfs /tmp/full || exit 1
truncate -s 4M /tmp/full/ahci /tmp/full/virtio || exit 1
dd if=/dev/zero of=/tmp/full/rest bs=4k 2>/dev/null
for name in VIRTIO AHCI; do
    head -c 1048576 /dev/urandom >/tmp/disk.$name || exit 1
    echo before $name $(sum /tmp/disk.$name)
done
bhyveload -m 256M --kernel=/linux/pc-vmlinuz,'console=ttyS0 quiet' --initrd=/linux/pc-initrd guest0 || exit 1
bhyve -A -H -m 256M -s 0,hostbridge -s 1,lpc -l com1,stdio \\
    -s 2,virtio-blk,/tmp/disk.VIRTIO,ser=GOOD-VIRTIO \\
    -s 3,ahci,hd:/tmp/disk.AHCI,ser=GOOD-AHCI,hd:/tmp/full/ahci,ser=FULL-AHCI \\
    -s 4,ahci-cd,/linux/cd \\
    -s 5,virtio-blk,/tmp/full/virtio,ser=FULL-VIRTIO guest0 </dev/null
status=$?
for name in VIRTIO AHCI; do
    echo after $name $(sum /tmp/disk.$name)
done
umount /tmp/full
echo after CD $(sum /linux/cd)
exit $status";

#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn what_a_guest_writes_and_reads_is_what_the_images_hold() {
    on_linux_host(one_cpu(), |host| {
        let mut output = host.run_within(LIMIT, SCRIPT);
        output.text = output.text.replace('\r', "");
        assert!(
            output.status == 1 && output.text.contains("guest: the disks are done\n"),
            "{output}"
        );
        let sum = |what: &str| {
            let rest = output
                .text
                .split_once(what)
                .map(|(_, rest)| rest.trim_start());
            let sum = rest.and_then(|rest| rest.get(..64));
            sum.unwrap_or_else(|| panic!("no checksum behind '{what}': {output}"))
        };
        for name in ["VIRTIO", "AHCI"] {
            let (before, after) = (format!("before {name}"), format!("after {name}"));
            let (held, got) = (
                format!("guest: GOOD-{name} holds"),
                format!("guest: GOOD-{name} got"),
            );
            assert_eq!(sum(&before), sum(&held), "{name} is read: {output}");
            assert_eq!(sum(&got), sum(&after), "{name} is written: {output}");
            assert_ne!(sum(&before), sum(&after), "{name}: {output}");
            // FreeBSD's tmpfs doesn't say (pathconf(2)) that it can give space back.
            let discarded = match HOST {
                lab::Host::Linux => format!("guest: GOOD-{name}: discarded bytes are zeros\n"),
                lab::Host::FreeBsd => format!("guest: GOOD-{name}: no discard\n"),
            };
            assert!(output.text.contains(&discarded), "{output}");
            // The host's file system is full: the guest's dd failed, and bhyve said why.
            let took = format!("guest: FULL-{name} took it");
            let readable = format!("guest: FULL-{name} can be read\n");
            assert!(
                !output.text.contains(&took) && output.text.contains(&readable),
                "{output}"
            );
        }
        assert_eq!(sum("after CD"), sum("guest: CD holds"), "{output}");
        for line in [
            "bhyve: virtio-blk@pci.0.5.0: a write at sector 512 has failed: no space left on device",
            "bhyve: ahci@pci.0.3.0 port 1: a write at sector 512 has failed: no space left on device",
        ] {
            assert!(
                output.text.to_lowercase().contains(&line.to_lowercase()),
                "no '{line}': {output}"
            );
        }
        host.destroy("guest0");
    });
}
