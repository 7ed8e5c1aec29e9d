//! Debian's unmodified kernel as a guest: its CPUs work together, its clock is right, it
//! reboots, panics and dies as on a machine, and its disk keeps what was flushed. A boot
//! takes a minute or two in the lab, so that each test asks several things of one.

use std::time::Duration;

use vmm_rs_e2e::lab::{CpuModel, LabConfig, Output};

use crate::dmesg::new_warnings;
use crate::host::{Host, on_host_for_kernels};

/// For a guest's whole life, with two labs on the machine.
pub const LIMIT: Duration = Duration::from_secs(900);

/// One emulated CPU, with the files of the Linux guest.
pub fn one_cpu() -> LabConfig {
    LabConfig {
        memory_mb: 1024,
        linux_guest: true,
        ..LabConfig::default()
    }
}

fn two_cpus() -> LabConfig {
    LabConfig {
        cpus: 2,
        ..one_cpu()
    }
}

/// Runs a test on a host for Linux guests, with none of their files.
pub fn on_linux_host(config: LabConfig, test: impl FnOnce(&mut Host)) {
    on_host_for_kernels(config, |host| {
        host.check("rm -f /tmp/disk* /tmp/script* /tmp/log*");
        test(host);
        host.check("rm -f /tmp/disk* /tmp/script* /tmp/log*");
    });
}

/// Runs a guest that runs a script (tests/linux/host/run-guest).
pub fn run_guest(host: &mut Host, options: &str, script: &str) -> Output {
    host.check(&format!("cat >/tmp/script <<'END'\n{script}\nEND"));
    let mut output = host.run_within(
        LIMIT,
        &format!("/linux/run-guest {options} -s /tmp/script </dev/null"),
    );
    output.text = output.text.replace('\r', "");
    output
}

/// The guest ran its script to the end and turned itself off.
pub fn assert_powered_off(output: &Output) {
    assert!(
        output.status == 1 && output.text.contains("the script ended with status 0"),
        "{output}"
    );
}

/// The first number behind `what` in the guest's output.
fn number_after(output: &Output, what: &str) -> f64 {
    let rest = output.text.split_once(what).map(|(_, rest)| rest);
    let number: Option<String> = rest.map(|rest| {
        let digits = rest.trim_start().chars();
        digits
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect()
    });
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number after '{what}': {output}"))
}

/// All CPUs online, interrupting each other, with no stale translation and their vector
/// registers kept; the disk reads back what was written.
const WORK: &str = "
dmesg -r | grep '^<[0-4]>'
dd if=/dev/urandom of=/root/file bs=64k count=32 conv=fsync || exit 1
sum=$(sha256sum /root/file)
echo 3 >/proc/sys/vm/drop_caches
[ \"$(sha256sum /root/file)\" = \"$sum\" ] || exit 1
guestcheck shootdown 2 || exit 1
guestcheck vectors 1 1 || exit 1
echo cpus $(grep -c ^processor /proc/cpuinfo) online $(cat /sys/devices/system/cpu/online)
echo shootdown interrupts: $(awk '/^ *TLB:/ { for (i = 2; i <= NF; i++) if ($i + 0 == $i) n += $i } END { print n + 0 }' /proc/interrupts)
echo clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
";

fn works(config: LabConfig, cpus: u32, memory: &str) {
    let take_turns = cpus > config.cpus;
    on_linux_host(config, |host| {
        let output = run_guest(host, &format!("-c {cpus} -m {memory} -a quiet"), WORK);
        assert_powered_off(&output);
        let online = match cpus {
            1 => "cpus 1 online 0\n".to_owned(),
            _ => format!("cpus {cpus} online 0-{}\n", cpus - 1),
        };
        assert!(output.text.contains(&online), "{output}");
        assert!(output.text.contains("none stale\n"), "{output}");
        assert!(output.text.contains("clocksource tsc\n"), "{output}");
        if cpus > 1 {
            // Each mapping that another CPU has used takes an interrupt there when it is
            // replaced, unless that CPU happens to run one of the kernel's own threads.
            let interrupts = number_after(&output, "shootdown interrupts: ");
            let awaited = number_after(&output, " mappings, ");
            assert!(
                awaited >= 48.0 && interrupts > 100.0 && interrupts >= awaited / 2.0,
                "{output}"
            );
        }
        assert_no_complaint(&output);
        let mut warnings = new_warnings(&output.text);
        // Vcpus that have to take turns lose their CPU in the middle of anything.
        warnings.retain(|line| !(take_turns && line.starts_with("hrtimer: interrupt took ")));
        assert!(
            warnings.is_empty(),
            "the guest warns of what it doesn't under KVM: {warnings:#?}\n{output}"
        );
        host.destroy("guest0");
    });
}

/// Kernels say these when something went wrong with a CPU or a device.
pub fn assert_no_complaint(output: &Output) {
    for complaint in [
        "WARNING: CPU:",
        "BUG:",
        "Call Trace",
        "rcu_sched detected",
        "soft lockup",
        "nobody cared",
        "spurious",
        "I/O error",
        "Firmware Bug",
    ] {
        assert!(!output.text.contains(complaint), "'{complaint}': {output}");
    }
}

#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn a_guest_with_one_cpu_in_128_mib_works_on_two_host_cpus() {
    works(two_cpus(), 1, "128M");
}

#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn a_guest_with_two_cpus_works_on_two_host_cpus() {
    works(two_cpus(), 2, "256M");
}

#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn a_guest_with_four_cpus_works_on_two_host_cpus() {
    works(two_cpus(), 4, "256M");
}

/// On a host with a fifth of it: memory is there when it is touched. What lies above 4 GiB
/// is used as well.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn a_guest_has_5_gib_of_memory() {
    on_linux_host(one_cpu(), |host| {
        let script = "
            free -m
            awk '/MemTotal/ { print \"MemTotal in MiB: \" int($2 / 1024) }' /proc/meminfo
            grep 'System RAM' /proc/iomem
            mount -t tmpfs -o size=64m tmpfs /mnt && dd if=/dev/urandom of=/mnt/a bs=1M count=32 || exit 1
            cp /mnt/a /mnt/b && cmp /mnt/a /mnt/b || exit 1";
        let output = run_guest(host, "-c 1 -m 5G -a quiet", script);
        assert_powered_off(&output);
        let memory = number_after(&output, "MemTotal in MiB: ");
        assert!((4600.0..5120.0).contains(&memory), "{memory} MiB: {output}");
        assert!(output.text.contains("100000000-"), "{output}");
        host.destroy("guest0");
    });
}

/// What the guest's clock says when 60 of its seconds have passed, against the host's; then
/// a reboot, after which everything is as after a start.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn the_clock_keeps_time_and_a_reboot_comes_back() {
    on_linux_host(one_cpu(), |host| {
        let script = "
            if [ -e /root/rebooted ]; then
                rm /root/rebooted
                echo second life
                exit 0
            fi
            echo clock $(guestcheck clock)
            sleep 60
            echo clock $(guestcheck clock)
            touch /root/rebooted
            sync
            mount -o remount,ro /
            reboot -f
            sleep 60";
        host.check(&format!("cat >/tmp/script <<'END'\n{script}\nEND"));
        let mut output = host.run_within(
            LIMIT,
            "{ /linux/run-guest -c 1 -a quiet -s /tmp/script </dev/null; echo $? >/tmp/log.status; } | guestcheck stamp
            exit $(cat /tmp/log.status)",
        );
        output.text = output.text.replace('\r', "");
        assert_powered_off(&output);
        assert!(
            output.text.contains("run-guest: guest0 reboots\n")
                && output.text.contains("second life\n"),
            "{output}"
        );
        let pairs: Vec<(f64, f64)> = output
            .text
            .lines()
            .filter_map(|line| {
                let (host, guest) = line.split_once(" clock ")?;
                Some((host.parse().ok()?, guest.parse().ok()?))
            })
            .collect();
        let [(host_start, guest_start), (host_end, guest_end)] = pairs[..] else {
            panic!("two pairs of clocks were expected: {output}");
        };
        let (host_took, guest_took) = (host_end - host_start, guest_end - guest_start);
        assert!(guest_took >= 60.0, "{guest_took}: {output}");
        let drift = (guest_took - host_took).abs() / host_took;
        assert!(
            drift < 0.01,
            "{guest_took} s in the guest were {host_took} s outside: {output}"
        );
        host.destroy("guest0");
    });
}

/// A panic that reboots is a reset (bhyve's status 0), a triple fault its own end (3); both
/// leave a VM that can be loaded again.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn a_panic_is_a_reset_and_a_triple_fault_is_told() {
    on_linux_host(one_cpu(), |host| {
        let output = run_guest(
            host,
            "-1 -a 'quiet panic=1'",
            "echo c >/proc/sysrq-trigger; sleep 60",
        );
        assert!(
            output.status == 0
                && output
                    .text
                    .contains("Kernel panic - not syncing: sysrq triggered crash"),
            "{output}"
        );
        let output = run_guest(host, "-1 -a 'quiet reboot=t'", "reboot -f; sleep 60");
        assert_eq!(output.status, 3, "{output}");
        for part in [
            "ended by a triple fault",
            "vcpu 0: rip 0xffffffff",
            "instruction: ",
            "hint: ",
        ] {
            assert!(output.text.contains(part), "{part}: {output}");
        }
        host.destroy("guest0");
    });
}

/// The first SIGTERM is the power button, which the guest sees; a guest that doesn't care is
/// stopped by the second one.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn sigterm_is_the_power_button_and_the_second_one_stops_the_guest() {
    on_linux_host(one_cpu(), |host| {
        let script = "
            button=/sys/firmware/acpi/interrupts/ff_pwr_btn
            echo button $(cat $button)
            until grep -q ' 1 ' $button; do usleep 10000; done
            echo the button was pressed
            sleep 600";
        host.check(&format!("cat >/tmp/script <<'END'\n{script}\nEND"));
        let output = host.run_within(
            LIMIT,
            "/linux/run-guest -1 -a quiet -s /tmp/script </dev/null >/tmp/log 2>&1 & guest=$!
            for said in '^button ' '^the button was pressed'; do
                until grep -q \"$said\" /tmp/log; do
                    kill -0 $guest || break
                    sleep 0.02
                done
                kill -TERM $(pid_of bhyve)
            done
            wait $guest
            status=$?
            cat /tmp/log
            exit $status",
        );
        assert_eq!(output.status, 1, "{output}");
        assert!(
            output.text.contains("the power button is pressed"),
            "{output}"
        );
        assert!(!output.text.contains("the script ended"), "{output}");
        host.destroy("guest0");
    });
}

/// bhyve killed while the guest writes and flushes: what the guest's program had been told
/// is on the disk is there, in a file system that mounts.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn what_was_flushed_is_on_the_disk_when_bhyve_is_killed() {
    on_linux_host(one_cpu(), |host| {
        host.check("echo 'guestcheck write /root/records' >/tmp/script");
        let output = host.run_within(
            LIMIT,
            "/linux/run-guest -1 -a quiet -s /tmp/script </dev/null >/tmp/log 2>&1 & guest=$!
            until grep -q 'flushed 40' /tmp/log; do
                kill -0 $guest || { cat /tmp/log; exit 1; }
                sleep 0.02
            done
            kill -KILL $(pid_of bhyve)
            wait $guest
            count=$(tr -d '\\r' </tmp/log | sed -n 's/^flushed \\([0-9]*\\)$/\\1/p' | tail -n 1)
            verify_records /tmp/disk $count",
        );
        assert!(output.success(), "{output}");
        assert!(output.text.contains("records are there"), "{output}");
        host.destroy("guest0");
    });
}

/// Both at once on two CPUs with AVX (of Bochs' models that boot Debian's kernel only this
/// one's is used: the others' XSAVE areas have sizes that the kernel doesn't trust), each with
/// a disk of its own, while a program of the host uses the vector registers as they do, and
/// the others that guests have too: nobody sees another one's values.
#[test]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn two_guests_and_the_host_keep_their_vector_registers_and_disks() {
    let config = LabConfig {
        cpu_model: CpuModel::Haswell4770,
        ..two_cpus()
    };
    on_linux_host(config, |host| {
        let script = "guestcheck vectors $RANDOM 10 || exit 1
            head -c 1000000 /dev/urandom >/root/file && sum=$(sha256sum /root/file) && sync || exit 1
            echo 3 >/proc/sys/vm/drop_caches
            [ \"$(sha256sum /root/file)\" = \"$sum\" ]";
        host.check(&format!(
            "for n in 1 2; do cat >/tmp/script$n <<'END'\n{script}\nEND\ndone"
        ));
        let output = host.run_within(
            LIMIT,
            "for n in 1 2; do
                /linux/run-guest -n guest$n -a quiet -d /tmp/disk$n -s /tmp/script$n </dev/null >/tmp/log$n 2>&1 &
                eval guest$n=$!
            done
            until grep -q '^guest: Debian' /tmp/log1 && grep -q '^guest: Debian' /tmp/log2; do
                kill -0 $guest1 && kill -0 $guest2 || break
                sleep 0.1
            done
            guestcheck state 77 8
            host=$?
            wait $guest1; one=$?
            wait $guest2; two=$?
            cat /tmp/log1 /tmp/log2
            [ $host = 0 ] && [ $one = 1 ] && [ $two = 1 ]",
        );
        assert!(output.success(), "{output}");
        let ended = output
            .text
            .matches("the script ended with status 0")
            .count();
        let kept = output.text.matches("SSE and AVX kept their values").count();
        assert!(ended == 2 && kept == 2, "{output}");
        let kept_by_host = "state: SSE and AVX, x87, MXCSR, FS, GS kept their values";
        assert!(output.text.contains(kept_by_host), "{output}");
        host.destroy("guest1");
        host.destroy("guest2");
    });
}
