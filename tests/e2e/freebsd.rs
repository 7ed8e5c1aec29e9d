//! FreeBSD's kernel loaded without userboot: the seed article's session as printed, and the
//! same guest program (tests/guests/src/bin/freebsd.rs) from every kind of volume. The
//! program checks what the loader left for it, and says what it found.

use vmm_rs_e2e::lab::LabConfig;

use crate::host::{Host, assert_guest_ok, on_host, one_cpu};

/// With room for the seed session's guest.
fn large() -> LabConfig {
    LabConfig {
        memory_mb: 1536,
        ..one_cpu()
    }
}

/// What the program prints about the volume's contents, wherever they are.
const FOUND: [&str; 12] = [
    "file /boot/kernel/kernel (elf kernel) at 0x200000,",
    "file /boot/modules/hello.ko (elf obj module) at",
    "arguments loud=1",
    "  its .data says: hello from a module",
    "file /boot/image (md_image) at",
    "  the sum of its bytes is 1263",
    "kenv hw.model=kernel-pc",
    "kenv kern.hz=100",
    "kenv smbios.bios.vendor=BHYVE",
    "kenv vfs.root.mountfrom=ufs:/dev/vtbd0",
    "howto 0x1800",
    "btext at 0xffffffff80200000",
];

fn assert_found(host: &mut Host, bhyve: &str, memory: &str) -> String {
    let output = host.run(&format!("{bhyve} </dev/null"));
    assert_guest_ok("freebsd", &output);
    for line in FOUND.iter().chain([&memory]) {
        assert!(output.text.contains(line), "{line}: {output}");
    }
    output.text
}

#[test]
#[cfg_attr(
    freebsd_host,
    ignore = "there userboot loads from disks, and wants the scripts of a whole FreeBSD"
)]
fn the_seed_articles_session_runs_as_printed() {
    on_host(large(), |host| {
        host.check("cp /freebsd/disk diskdev");
        let loaded = host.check("bhyveload -d diskdev -m 1024 guest0");
        assert!(loaded.contains("disk0:/boot/kernel/kernel, "), "{loaded}");
        assert!(
            loaded.contains("warning: disk0:/boot/loader.conf:8: exec=\"show\" is not run"),
            "{loaded}"
        );
        assert_eq!(host.vms(), ["guest0"]);
        let text = assert_found(
            host,
            "bhyve -A -I -m 1024 -s 0:0,virtio-blk,diskdev -S 31,uart,stdio guest0",
            "smap 0x100000 0x3ff00000 type 1",
        );
        assert!(text.contains("kenv currdev=disk0:"), "{text}");
        host.check("bhyvectl --vm=guest0 --destroy");
        assert_eq!(host.vms(), [""; 0]);
        host.check("rm diskdev");
    });
}

#[test]
fn a_kernel_is_found_behind_partition_tables_on_a_cd_and_in_a_directory() {
    on_host(one_cpu(), |host| {
        for (volume, currdev) in [
            ("-d /freebsd/gpt", "disk0p1:"),
            ("-d /freebsd/mbr", "disk0s1a:"),
            ("-d /freebsd/cd.iso", "disk0:"),
            ("-h /freebsd/root", "host0:"),
            // The second disk has it, and the first none that can be read.
            ("-d /bin/sh -d /freebsd/disk", "disk1:"),
        ] {
            host.check(&format!(
                "bhyveload --loader=native -m 64 -e from=e2e {volume} guest0"
            ));
            let text = assert_found(
                host,
                "bhyve -m 64 -l com1,stdio guest0",
                "smap 0x100000 0x3f00000 type 1",
            );
            let line = format!("kenv currdev={currdev}");
            assert!(
                text.contains(&line) && text.contains("kenv from=e2e"),
                "{text}"
            );
            host.destroy("guest0");
        }
    });
}

#[test]
fn a_kernel_of_the_host_comes_with_its_modules_and_memory_disks() {
    on_host(one_cpu(), |host| {
        let boot = "/freebsd/root/boot";
        host.check(&format!(
            "bhyveload -m 64 --kernel={boot}/kernel/kernel,-s --module={boot}/modules/hello.ko,a=b \
             --module={boot}/image,type=mfs_root guest0"
        ));
        let output = host.bhyve("guest0", 64);
        assert_guest_ok("freebsd", &output);
        for line in [
            "howto 0x1002",
            "hello from a module",
            "arguments a=b",
            "file /freebsd/root/boot/image (mfs_root)",
        ] {
            assert!(output.text.contains(line), "{line}: {output}");
        }
        host.destroy("guest0");
    });
}

#[test]
fn what_is_no_kernel_creates_no_vm() {
    on_host(one_cpu(), |host| {
        for (line, says) in [
            (
                "mkdir -p /tmp/no/boot/kernel && cp /bin/sh /tmp/no/boot/kernel/kernel && \
                 bhyveload --loader=native -h /tmp/no guest0",
                "host0:/boot/kernel/kernel: ",
            ),
            (
                "bhyveload --loader=native -h /tmp guest0",
                "host0 has no kernel",
            ),
            (
                "bhyveload --loader=native -d /bin/sh guest0",
                "/bin/sh: disk0 has neither UFS",
            ),
            (
                "bhyveload --loader=native -d /no/disk guest0",
                "Could not open '/no/disk'",
            ),
            ("bhyveload --loader=native guest0", "nothing to load"),
            (
                "bhyveload --loader=native -m 2 -h /freebsd/root guest0",
                "no room: it takes 0x200000",
            ),
        ] {
            let output = host.run(line);
            assert!(
                !output.success() && output.text.contains(says),
                "{says}: {output}"
            );
        }
        assert_eq!(host.vms(), [""; 0]);
        host.check("rm -r /tmp/no");
    });
}
