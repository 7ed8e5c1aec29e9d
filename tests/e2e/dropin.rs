//! Drop-in both ways, on a FreeBSD host: FreeBSD's own bhyveload, bhyve and bhyvectl on this
//! module, these programs on the stock vmm.ko, and a FreeBSD guest (tests/lab/freebsd/guest.list)
//! that boots from its disk on each: to its script, its disks, its network, its console.

use std::time::Duration;

use vmm_rs_e2e::lab::{CpuModel, LabConfig, Output};

use crate::host::{Host, on_bare_host, on_host, on_host_for_kernels};
use crate::linux::{self, assert_powered_off};

/// For a guest's whole life, on a kernel that checks its locks, next to another lab.
const LIMIT: Duration = Duration::from_secs(1500);

/// How guests are loaded and run.
#[derive(Clone, Copy)]
struct Programs {
    bhyveload: &'static str,
    bhyve: &'static str,
}

const FREEBSDS: Programs = Programs {
    bhyveload: "/usr/sbin/bhyveload",
    bhyve: "/usr/sbin/bhyve",
};
const BUNDLED: Programs = Programs {
    bhyveload: "bhyveload",
    bhyve: "bhyve",
};
/// All memory wired, which loader and bhyve have to agree about.
const FREEBSDS_WIRED: Programs = Programs {
    bhyveload: "/usr/sbin/bhyveload -S",
    bhyve: "/usr/sbin/bhyve -S",
};
/// Without userboot.
const NATIVE: Programs = Programs {
    bhyveload: "bhyveload --loader=native",
    ..BUNDLED
};

/// One CPU, and room for a guest and its disk on tmpfs.
fn one_cpu() -> LabConfig {
    LabConfig {
        memory_mb: 1024,
        ..LabConfig::default()
    }
}

fn two_cpus() -> LabConfig {
    LabConfig {
        cpus: 2,
        ..one_cpu()
    }
}

/// Files of the guest: FreeBSD's bhyveload opens disks for writing, which a CD can't.
fn prepare(host: &mut Host, script: &str) {
    host.check(&format!(
        "[ -e /tmp/system ] || cp /freebsd/system /tmp/system
        cat >/tmp/script <<'END'\n{script}\nEND
        truncate -s 64k /tmp/script"
    ));
}

/// The command lines that load and run it.
fn commands(programs: Programs, options: &str) -> String {
    let Programs { bhyveload, bhyve } = programs;
    format!(
        "{bhyveload} -m 256M -d /tmp/system guest0 >/tmp/load 2>&1 || {{ cat /tmp/load; exit 99; }}
        {bhyve} -A -H -m 256M -s 0,hostbridge -s 1,lpc -s 2,virtio-blk,/tmp/system,ro \
            -s 3,virtio-blk,/tmp/script,ro {options}"
    )
}

/// Boots it, lets it run its script, and waits for its end.
fn run_guest(host: &mut Host, programs: Programs, options: &str, script: &str) -> Output {
    prepare(host, script);
    let commands = commands(programs, options);
    let mut output = host.run_within(
        LIMIT,
        &format!("{commands} -l com1,stdio guest0 </dev/null 2>&1"),
    );
    output.text = output.text.replace('\r', "");
    output
}

/// The guest has so many CPUs and read its whole disk, which is what the host has there.
fn works(host: &mut Host, programs: Programs, options: &str, cpus: u32) {
    let script = "sysctl hw.ncpu kern.smp.cpus; cksum </dev/vtbd0";
    let output = run_guest(host, programs, options, script);
    assert_powered_off(&output);
    let sum = host.check("cksum </tmp/system");
    for line in [
        &format!("hw.ncpu: {cpus}\n"),
        &format!("kern.smp.cpus: {cpus}\n"),
        &sum,
    ] {
        assert!(output.text.contains(line), "no '{line}': {output}");
    }
    host.destroy("guest0");
}

#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its own programs")]
fn freebsds_bhyve_boots_freebsd_with_one_vcpu_and_with_two_that_share_a_cpu() {
    on_host_for_kernels(one_cpu(), |host| {
        works(host, FREEBSDS, "-c 1", 1);
        works(host, FREEBSDS, "-c 2 -P", 2);
        // The CPU itself tells that a vcpu spins.
        works(host, FREEBSDS, "-c 2", 2);
    });
}

#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its own programs")]
fn freebsds_bhyve_boots_freebsd_with_two_vcpus_on_two_cpus() {
    on_host_for_kernels(two_cpus(), |host| {
        works(host, FREEBSDS_WIRED, "-c 2", 2);
    });
}

#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its kernel as the guest")]
fn the_bundled_programs_boot_freebsd_by_userboot_and_by_their_own_loader() {
    on_host_for_kernels(one_cpu(), |host| {
        works(host, BUNDLED, "-c 1", 1);
        works(host, NATIVE, "-c 1", 1);
    });
}

/// Disks by virtio and AHCI, a CD, a network card, all at once, and what goes through them.
#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its own programs")]
fn freebsds_devices_work_with_freebsds_bhyve_and_with_the_bundled_one() {
    on_host_for_kernels(one_cpu(), |host| {
        host.check("kldload -n if_tuntap; sysctl net.link.tap.up_on_open=1");
        let script = "
            set -e
            ifconfig vtnet0 10.9.0.2/24
            n=0
            until ping -c 1 -t 2 10.9.0.1 >/dev/null; do n=$((n + 1)); [ $n != 30 ]; done
            ping -c 3 -s 8000 10.9.0.1
            dd if=/dev/vtbd0 of=/dev/ada0 bs=64k count=16
            echo the CD holds $(cksum </dev/cd0)";
        for bhyve in [FREEBSDS, BUNDLED] {
            host.check(
                "rm -f /tmp/data && truncate -s 1m /tmp/data
                tap=$(ifconfig tap create) && ifconfig $tap inet 10.9.0.1/24 && echo $tap >/tmp/tap",
            );
            let output = run_guest(
                host,
                bhyve,
                "-s 4,ahci,hd:/tmp/data,cd:/freebsd/cd.iso -s 5,virtio-net,$(cat /tmp/tap) -s 6,virtio-rnd",
                script,
            );
            host.check("ifconfig $(cat /tmp/tap) destroy");
            assert_powered_off(&output);
            assert!(
                output.text.contains("3 packets received, 0.0% packet loss"),
                "{output}"
            );
            host.check("head -c 1048576 /tmp/system | cmp - /tmp/data");
            let cd = host.check("cksum </freebsd/cd.iso");
            let line = format!("the CD holds {cd}");
            assert!(output.text.contains(&line), "no '{line}': {output}");
            host.destroy("guest0");
        }
    });
}

/// The console on nmdm(4): the guest goes on while nobody has the other side open, and talks
/// to whoever opens it, again and again.
#[test]
#[cfg_attr(not(freebsd_host), ignore = "nmdm is FreeBSD's")]
fn a_console_on_nmdm_serves_one_peer_after_the_other() {
    on_host_for_kernels(one_cpu(), |host| {
        host.check("kldload -n nmdm");
        prepare(
            host,
            "echo guest: on its own
            for peer in one two; do
                until read -r line && [ \"$line\" = \"this is $peer\" ]; do :; done
                echo guest: heard $peer
            done",
        );
        let commands = commands(BUNDLED, "-l com1,/dev/nmdm-vmm_rs.A");
        // The peer's line doesn't echo what the guest says, which the guest would read.
        let output = host.run_within(
            LIMIT,
            &format!(
                "( {commands} guest0 </dev/null >/tmp/log 2>&1; echo \"bhyve: $?\" >>/tmp/log ) &
                until [ -c /dev/nmdm-vmm_rs.B ]; do kill -0 $! || {{ cat /tmp/log; exit 1; }}; sleep 0.1; done
                sleep 1
                for peer in one two; do
                    (
                        exec 3<>/dev/nmdm-vmm_rs.B
                        stty raw -echo clocal <&3
                        cat <&3 >>/tmp/said & reader=$!
                        until grep -q \"guest: heard $peer\" /tmp/said; do
                            echo \"this is $peer\" >&3
                            sleep 1
                        done
                        kill $reader
                    )
                done
                until grep '^bhyve: ' /tmp/log; do sleep 0.2; done
                cat /tmp/log /tmp/said
                rm -f /tmp/log /tmp/said"
            ),
        );
        assert!(
            output.success() && output.text.contains("bhyve: 1\n"),
            "{output}"
        );
        host.destroy("guest0");
    });
}

/// What comes from outside: the power button, an NMI, and a guest's wish for another round.
#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its kernel as the guest")]
fn freebsd_hears_the_power_button_and_an_nmi_and_reboots() {
    on_host_for_kernels(one_cpu(), |host| {
        let output = run_guest(host, BUNDLED, "", "kill -INT 1; sleep 600");
        assert_eq!(output.status, 0, "a reboot: {output}");
        host.destroy("guest0");

        prepare(host, "echo guest: waits\nsleep 600");
        let commands = commands(BUNDLED, "-l com1,stdio");
        let output = host.run_within(
            LIMIT,
            &format!(
                "( {commands} guest0 </dev/null >/tmp/log 2>&1; echo \"bhyve: $?\" >>/tmp/log ) &
                saw() {{ until grep -q \"$1\" /tmp/log; do ! grep -q '^bhyve: [0-9]' /tmp/log || break; sleep 0.1; done; }}
                saw 'guest: waits'
                bhyvectl --vm=guest0 --inject-nmi
                saw 'NMI ISA'
                kill -TERM $(pid_of bhyve)
                saw '^bhyve: [0-9]'
                cat /tmp/log"
            ),
        );
        for line in ["NMI ISA", "bhyve: 1\n"] {
            assert!(output.text.contains(line), "no '{line}': {output}");
        }
        assert!(!output.text.contains("the script ended"), "{output}");
        host.destroy("guest0");
    });
}

/// A Linux guest; FreeBSD's bhyve, too, takes what the bundled bhyveload has loaded.
#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its own programs")]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn freebsds_bhyve_runs_linux() {
    linux::on_linux_host(linux::one_cpu(), |host| {
        host.check("cp /linux/disk /tmp/disk");
        prepare(
            host,
            "dd if=/dev/urandom of=/root/file bs=64k count=32 conv=fsync || exit 1
            echo 3 >/proc/sys/vm/drop_caches
            sha256sum /root/file
            echo online $(cat /sys/devices/system/cpu/online)",
        );
        let mut output = host.run_within(
            LIMIT,
            "bhyveload -m 256M --kernel=/linux/vmlinuz,'console=ttyS0 quiet' --initrd=/linux/initrd guest0
            /usr/sbin/bhyve -A -H -P -c 2 -m 256M -s 0,hostbridge -s 1,lpc -s 2,virtio-blk,/tmp/disk \
                -s 3,virtio-blk,/tmp/script,ro -l com1,stdio guest0 </dev/null 2>&1",
        );
        output.text = output.text.replace('\r', "");
        assert_powered_off(&output);
        assert!(output.text.contains("online 0-1\n"), "{output}");
        linux::assert_no_complaint(&output);
        host.destroy("guest0");
    });
}

/// The stock module, for as long as it lives.
struct Stock<'a>(&'a mut Host);

impl<'a> Stock<'a> {
    fn load(host: &'a mut Host) -> Self {
        host.check("kldload vmm");
        Self(host)
    }
}

impl Drop for Stock<'_> {
    fn drop(&mut self) {
        // Also after a test that failed: the next one's host must not have it.
        self.0.destroy_all();
        self.0.run("kldunload vmm");
    }
}

#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: the stock module")]
fn the_bundled_programs_run_freebsd_on_the_stock_module() {
    on_bare_host(one_cpu(), |host| {
        // Bochs has faults with the delivery of interrupts (docs/lab.md).
        host.check("kenv hw.vmm.vmx.use_apic_vid=0");
        let stock = Stock::load(host);
        works(stock.0, BUNDLED, "-c 1", 1);
        works(stock.0, NATIVE, "-c 1", 1);
        drop(stock);
        host.check("kenv -u hw.vmm.vmx.use_apic_vid");
    });
}

#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: the stock module")]
#[cfg_attr(native_host, ignore = "no Linux guest without Debian")]
fn the_bundled_programs_run_linux_on_the_stock_module() {
    on_bare_host(linux::one_cpu(), |host| {
        host.check("kenv hw.vmm.vmx.use_apic_vid=0");
        let stock = Stock::load(host);
        let output = linux::run_guest(
            stock.0,
            "-c 1 -a quiet",
            "dd if=/dev/urandom of=/root/file bs=64k count=32 conv=fsync || exit 1
            echo 3 >/proc/sys/vm/drop_caches
            sha256sum /root/file",
        );
        assert_powered_off(&output);
        linux::assert_no_complaint(&output);
        drop(stock);
        host.check("rm -f /tmp/disk* /tmp/script*; kenv -u hw.vmm.vmx.use_apic_vid");
    });
}

/// Values differ from one VM to the next; the lines, their order and their form do not.
#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: the stock module")]
fn freebsds_bhyvectl_prints_the_same_lines_on_both_modules() {
    on_bare_host(one_cpu(), |host| {
        let lines = |host: &mut Host, what: &str| -> Vec<String> {
            let text = host.check(&format!("/usr/sbin/bhyvectl --vm=guest0 --{what} 2>&1"));
            let name = |line: &str| {
                line.split('\t')
                    .next()
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned()
            };
            text.lines().map(name).collect()
        };
        let both = |host: &mut Host| {
            host.check("/usr/sbin/bhyvectl --vm=guest0 --create");
            let found = ["get-stats", "get-all"].map(|what| lines(host, what));
            host.check("/usr/sbin/bhyvectl --vm=guest0 --destroy");
            found
        };
        let stock = Stock::load(host);
        let [stats, all] = both(stock.0);
        drop(stock);
        host.load_module();
        let [our_stats, our_all] = both(host);
        assert!(stats.len() > 40, "{stats:#?}");
        assert_eq!(our_stats.get(..stats.len()), Some(&stats[..]));
        // They are a part of all there is.
        let ours_alone = &our_stats[stats.len()..];
        let our_all: Vec<String> = our_all
            .into_iter()
            .filter(|line| !ours_alone.contains(line))
            .collect();
        assert!(all.len() > 60, "{all:#?}");
        // All but the MSRs that don't exit, which are each module's own choice.
        let names = |lines: &[String]| -> Vec<String> {
            let names = lines
                .iter()
                .filter_map(|line| line.split(['[', ':', ' ']).next());
            let names = names.filter(|name| !name.starts_with("MSR"));
            names.map(str::to_owned).collect()
        };
        assert_eq!(names(&our_all), names(&all));
    });
}

/// What GDB asks of a guest: by the monitor trap flag where the CPU has it, else by RFLAGS.TF.
/// (`-G w`, which waits for the debugger, doesn't let the guest go in FreeBSD 15.1: bhyve itself
/// suspends vcpu 0 once more, on either module.)
#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: its own programs")]
#[cfg_attr(native_host, ignore = "needs other CPUs than this one")]
fn freebsds_bhyve_lets_gdb_stop_and_step_a_guest() {
    for cpu_model in [CpuModel::SkylakeX, CpuModel::Haswell4770] {
        let config = LabConfig {
            cpu_model,
            ..LabConfig::default()
        };
        on_host(config, |host| {
            host.check("ifconfig lo0 inet 127.0.0.1/8 up");
            host.bhyveload("guest0", "spin", 64);
            host.check(
                "/usr/sbin/bhyve -G 127.0.0.1:1234 -m 64 -s 0,hostbridge -s 1,lpc -l com1,stdio guest0 \
                    </dev/null >/tmp/log 2>&1 &
                until grep -q 'spin 5' /tmp/log; do sleep 0.1; done",
            );
            // Three instructions of its endless round, then each of them comes again.
            let stepped = gdb(host, "'?' s g s g s g");
            let pcs: Vec<u64> = values(&stepped, "g").map(program_counter).collect();
            assert!(
                pcs.len() == 3 && pcs[0] != pcs[1] && pcs[1] != pcs[2],
                "{stepped}"
            );
            for pc in pcs {
                let stopped = gdb(host, &format!("'?' Z0,{pc:x},1 c g z0,{pc:x},1"));
                let seen: Vec<u64> = values(&stopped, "g").map(program_counter).collect();
                assert_eq!(seen, [pc], "{stopped}");
            }
            // Whoever interrupts it finds it somewhere, and it goes on from there.
            let caught = gdb(host, "'?' 'c&' ^C g 'c&' ^C g");
            let stops = values(&caught, "^C").filter(|stop| stop.starts_with(['S', 'T']));
            assert_eq!(stops.count(), 2, "{caught}");
            host.check(
                "rounds=$(grep -c spin /tmp/log)
                until [ $(grep -c spin /tmp/log) -gt $((rounds + 5)) ]; do sleep 0.1; done
                ! grep -i exception /tmp/log
                bhyvectl --vm=guest0 --destroy",
            );
        });
    }
}

/// A debugger that sends `packets` and goes; what it printed.
fn gdb(host: &mut Host, packets: &str) -> String {
    let output = host.run_within(
        LIMIT,
        &format!("timeout 600 guestcheck gdb 127.0.0.1:1234 {packets}"),
    );
    assert!(output.success(), "{output}");
    output.text
}

/// What came back for `packet`, each time.
fn values<'a>(text: &'a str, packet: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.strip_prefix(packet)?.strip_prefix(": "))
}

/// RIP of an answer to `g`: 8 bytes behind 16 registers of 8, lowest first.
fn program_counter(registers: &str) -> u64 {
    let digits = registers.get(16 * 16..17 * 16);
    let rip = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    rip.unwrap_or_else(|| panic!("no RIP in '{registers}'"))
        .swap_bytes()
}

/// Whichever comes second is refused, and the first one works on.
#[test]
#[cfg_attr(not(freebsd_host), ignore = "FreeBSD: the stock module")]
fn the_stock_module_and_this_one_exclude_each_other() {
    on_bare_host(one_cpu(), |host| {
        let stock = Stock::load(host);
        let refused = stock.0.run("load_module");
        assert!(!refused.success(), "{refused}");
        stock.0.check("kldstat -q -m vmm && ! module_loaded");
        drop(stock);
        host.load_module();
        let refused = host.run("kldload vmm");
        assert!(!refused.success(), "{refused}");
        host.check("module_loaded && bhyvectl --vm=guest0 --create");
        assert_eq!(host.vms(), ["guest0"]);
        host.destroy("guest0");
    });
}
