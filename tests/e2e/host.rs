//! A lab host for one test: no VMs and no module to begin with, or the module loaded; and
//! what tests do there.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use vmm_rs_e2e::lab::{Lab, LabConfig, Output, SharedLab, shared};

/// For a guest program: on two emulated CPUs next to another lab these take their time.
const GUEST_LIMIT: Duration = Duration::from_secs(180);

/// bhyve ends with its VM.
const DESTROY_ALL: &str = "
for node in /dev/vmm/*; do
	[ ! -c \"$node\" ] || bhyvectl --vm=${node#/dev/vmm/} --destroy
done";

/// No VMs, no module, and nothing in the kernel's log.
fn clean() -> String {
    format!("{DESTROY_ALL}\n! module_loaded || unload_module || exit 1\nclear_kernel_log")
}

/// One emulated CPU.
pub fn one_cpu() -> LabConfig {
    LabConfig::default()
}

/// Two emulated CPUs.
pub fn two_cpus() -> LabConfig {
    LabConfig {
        cpus: 2,
        ..LabConfig::default()
    }
}

/// Runs a test on a host of this kind without the module.
pub fn on_bare_host(config: LabConfig, test: impl FnOnce(&mut Host)) {
    let mut host = Host::new(config);
    test(&mut host);
    host.finish();
}

/// Runs a test on a host of this kind with the module loaded.
pub fn on_host(config: LabConfig, test: impl FnOnce(&mut Host)) {
    on_bare_host(config, |host| {
        host.load_module();
        test(host);
    });
}

/// Runs a test on a host for unmodified kernels: the module allows four vcpus, and the CPU
/// doesn't deliver interrupts by itself, which Bochs also does while the guest has them off
/// (docs/lab.md).
pub fn on_host_for_kernels(config: LabConfig, test: impl FnOnce(&mut Host)) {
    on_bare_host(config, |host| {
        host.load_module_with("maxcpu=4,vmx.use_apic_vid=0");
        test(host);
    });
}

pub struct Host {
    lab: SharedLab,
}

impl Deref for Host {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for Host {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Host {
    fn new(config: LabConfig) -> Host {
        let mut host = Host {
            lab: shared(config.clone()),
        };
        if !host.run(&clean()).success() {
            // An earlier test left more than can be cleaned up, and has failed for it.
            host.lab.give_up();
            drop(host);
            host = Host {
                lab: shared(config),
            };
            host.check(&clean());
        }
        host
    }

    /// After a test that passed: the module must unload, and the host's kernel must have
    /// had nothing to complain about.
    fn finish(mut self) {
        self.check(
            "if kernel_log | grep -qE \"$COMPLAINTS\"; then
                echo the kernel of this host complains:
                kernel_log
                exit 1
            fi",
        );
        self.check(&clean());
    }

    pub fn load_module(&mut self) {
        self.check("load_module");
    }

    /// With tunables below hw.vmm, `name=value,...`, for this load alone.
    pub fn load_module_with(&mut self, tunables: &str) {
        self.check(&format!("load_module {tunables}"));
    }

    pub fn unload_module(&mut self) {
        self.check("unload_module");
    }

    pub fn clear_kernel_log(&mut self) {
        self.check("clear_kernel_log");
    }

    pub fn cpus(&mut self) -> String {
        self.check("host_cpus").trim().to_owned()
    }

    /// A value of sysctl hw.vmm, such as `vmx.cap.tpr_shadowing`.
    pub fn hw_vmm(&mut self, name: &str) -> String {
        self.check(&format!("hw_vmm {name}")).trim().to_owned()
    }

    /// What the module has logged during this test, a line each; without what the host's
    /// kernel says about modules that are not its own.
    pub fn module_log(&mut self) -> Vec<String> {
        let log = self.check("kernel_log");
        let lines = log.lines().filter_map(|line| line.split_once("vmm_rs: "));
        let texts = lines.map(|(_, text)| text.to_owned());
        texts.filter(|text| !text.contains("taint")).collect()
    }

    pub fn vms(&mut self) -> Vec<String> {
        let list = self.check("ls /dev/vmm 2>/dev/null || true");
        list.lines().map(str::to_owned).collect()
    }

    /// Makes a VM with one of the guest programs in it.
    pub fn bhyveload(&mut self, vm: &str, guest: &str, memory_mb: u32) {
        self.check(&format!("bhyveload -k /guests/{guest} -m {memory_mb} {vm}"));
    }

    /// Runs it to its end, with its console as the output.
    pub fn bhyve(&mut self, vm: &str, memory_mb: u32) -> Output {
        self.run_within(GUEST_LIMIT, &format!("{} </dev/null", bhyve(vm, memory_mb)))
    }

    pub fn destroy(&mut self, vm: &str) {
        self.check(&format!("bhyvectl --vm={vm} --destroy"));
    }

    /// Destroys all VMs, whatever module they are of. That some can't be shows when the module
    /// is unloaded.
    pub fn destroy_all(&mut self) {
        self.run(DESTROY_ALL);
    }

    /// Loads, runs and destroys a guest program that checks things by itself, and returns
    /// what it printed.
    pub fn run_guest(&mut self, guest: &str, memory_mb: u32) -> String {
        self.bhyveload("guest0", guest, memory_mb);
        let output = self.bhyve("guest0", memory_mb);
        assert_guest_ok(guest, &output);
        self.destroy("guest0");
        output.text
    }
}

/// The command line that runs a VM with its console on stdio.
pub fn bhyve(vm: &str, memory_mb: u32) -> String {
    format!("bhyve -m {memory_mb} -l com1,stdio {vm}")
}

/// A guest program ends with this line and powers off, which is status 1.
pub fn assert_guest_ok(guest: &str, output: &Output) {
    let last = output.text.lines().last().unwrap_or_default().trim_end();
    assert!(
        last == "GUEST-OK" && output.status == 1,
        "{guest} did not end well: {output}"
    );
}
