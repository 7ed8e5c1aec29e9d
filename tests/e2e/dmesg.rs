//! What the guest's kernel warns of, beside the same kernel's warnings under QEMU and KVM in
//! the same lab. The baseline, tests/linux/qemu-kvm.dmesg, is the output of `dmesg -r` in the
//! guest of tests/linux with Debian 12's QEMU 7.2 on the lab host, which isn't part of it:
//! `qemu-system-x86_64 -M pc -enable-kvm -cpu host -smp 2,sockets=1,cores=2 -m 256 -nodefaults
//! -kernel vmlinuz -initrd initrd -append console=ttyS0 -drive if=virtio,format=raw,file=disk
//! -serial stdio`.

use std::collections::BTreeSet;

/// Under QEMU and KVM.
const BASELINE: &str = include_str!("../linux/qemu-kvm.dmesg");

/// Whose warnings count.
const TOPICS: [&str; 15] = [
    "apic",
    "tsc",
    "clocksource",
    "timer",
    "hpet",
    "rtc",
    "acpi",
    "mtrr",
    "pci",
    "virtio",
    "irq",
    "calibrat",
    "delay",
    "nmi",
    "x86",
];

/// syslog's level of a warning; what is worse has a smaller number.
const WARNING: u32 = 4;

/// The warnings in the output of `dmesg -r` that the baseline doesn't have.
pub fn new_warnings(log: &str) -> Vec<String> {
    let known: BTreeSet<String> = warnings(BASELINE)
        .map(|line| without_numbers(&line))
        .collect();
    warnings(log)
        .filter(|line| !known.contains(&without_numbers(line)))
        .collect()
}

/// The texts of lines like `<4>[    0.123456] text` about one of the topics.
fn warnings(log: &str) -> impl Iterator<Item = String> + '_ {
    log.lines().filter_map(|line| {
        let (level, rest) = line.trim_end().strip_prefix('<')?.split_once('>')?;
        // The facility is in the higher bits.
        let level = level.parse::<u32>().ok()? & 7;
        let (_, text) = rest.split_once("] ")?;
        let lower = text.to_lowercase();
        let counts = level <= WARNING && TOPICS.iter().any(|topic| lower.contains(topic));
        counts.then(|| text.to_owned())
    })
}

/// Addresses, times and counts differ between machines.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_hexdigit()).collect()
}

#[test]
fn a_warning_that_kvm_does_not_have_is_found() {
    let known = BASELINE.lines().next().unwrap_or_default();
    let log = format!(
        "{known}\n<6>[    1.000000] ACPI: fine\n<4>[    1.000000] ACPI: broken\n<4>[ 2.0] fine: other\n"
    );
    assert_eq!(new_warnings(&log), ["ACPI: broken"]);
}
