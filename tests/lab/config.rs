//! What a lab is made of: the machine that Bochs emulates and how its host kernel boots.

use std::path::Path;

/// A CPU model of Bochs, with what its VT-x has and lacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CpuModel {
    /// EPT with 4K/2M/1G/A-D, VPID, unrestricted guest, APIC virtualization, PML, TSC scaling.
    SkylakeX,
    /// No PML, no TSC scaling, no XSAVES.
    Haswell4770,
    /// No accessed/dirty bits in EPT, no virtual-interrupt delivery.
    SandyBridge2600k,
    /// VT-x without EPT: the module must refuse.
    Core2PenrynT9600,
    /// EPT without unrestricted guest: the module must refuse.
    Lynnfield750,
    /// Unrestricted guest, but no XSAVE.
    ArrandaleM520,
    /// An Intel CPU without VT-x.
    Prescott336,
}

impl CpuModel {
    pub const ALL: [CpuModel; 7] = [
        CpuModel::SkylakeX,
        CpuModel::Haswell4770,
        CpuModel::SandyBridge2600k,
        CpuModel::Core2PenrynT9600,
        CpuModel::Lynnfield750,
        CpuModel::ArrandaleM520,
        CpuModel::Prescott336,
    ];

    /// Its name in a Bochs configuration.
    pub fn name(self) -> &'static str {
        match self {
            CpuModel::SkylakeX => "corei7_skylake_x",
            CpuModel::Haswell4770 => "corei7_haswell_4770",
            CpuModel::SandyBridge2600k => "corei7_sandy_bridge_2600k",
            CpuModel::Core2PenrynT9600 => "core2_penryn_t9600",
            CpuModel::Lynnfield750 => "corei5_lynnfield_750",
            CpuModel::ArrandaleM520 => "corei5_arrandale_m520",
            CpuModel::Prescott336 => "p4_prescott_celeron_336",
        }
    }
}

/// What the firmware leaves in IA32_FEATURE_CONTROL (SDM 24.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FeatureControl {
    /// Locked, VMX outside SMX on: what Bochs's BIOS sets.
    LockedOn,
    /// Locked, VMX off: disabled in the firmware's setup. (Linux locks what the firmware
    /// leaves unlocked, so that a module never sees that.)
    LockedOff,
}

/// One lab. Tests with equal configurations can share one, see [`super::shared`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LabConfig {
    pub cpu_model: CpuModel,
    /// Emulated CPUs. Each further one doubles the time everything takes.
    pub cpus: u32,
    pub memory_mb: u32,
    /// With a Linux guest in /linux (tests/linux); its boot takes some seconds longer.
    pub linux_guest: bool,
    pub feature_control: FeatureControl,
    /// Hides #GP on MSRs that Bochs doesn't know.
    pub ignore_bad_msrs: bool,
    /// Appended to the Linux host's command line; variables `name=value ...` of the FreeBSD
    /// host's loader.
    pub kernel_args: String,
}

impl Default for LabConfig {
    fn default() -> LabConfig {
        LabConfig {
            cpu_model: CpuModel::SkylakeX,
            cpus: 1,
            memory_mb: 512,
            linux_guest: false,
            feature_control: FeatureControl::LockedOn,
            ignore_bad_msrs: true,
            kernel_args: String::new(),
        }
    }
}

/// Instructions per second of emulated time; what Bochs does per second of real time on a
/// recent machine, so that the guest's clock and ours agree roughly.
const IPS: u32 = 100_000_000;

impl LabConfig {
    /// The host kernel's command line. Calibrating the TSC against Bochs's timers fails, so
    /// its frequency is given; a CPU that sleeps in MWAIT may not be woken by another one in
    /// Bochs; an oops ends the lab, because a test must not go on after it.
    pub fn command_line(&self) -> String {
        let tsc_khz = IPS / 1000;
        format!(
            "console=ttyS0,115200 quiet tsc_early_khz={tsc_khz} idle=halt mitigations=off oops=panic panic=0 \
             random.trust_cpu=on {}",
            self.kernel_args
        )
        .trim_end()
        .to_owned()
    }

    /// The FreeBSD loader's commands. The serial console and lines are named because Bochs's
    /// ACPI tables don't; idle CPUs halt for the reason that [`Self::command_line`] gives;
    /// mitigations only cost time here. Messages of the boot are in the log, not on the console.
    pub fn loader_script(&self) -> String {
        let mut script = String::new();
        let mut set = |variable: &str| {
            script.push_str("set ");
            script.push_str(variable);
            script.push('\n');
        };
        for (unit, port, irq) in [(0, 0x3f8, 4), (1, 0x2f8, 3), (2, 0x3e8, 4)] {
            set(&format!("hint.uart.{unit}.at=isa"));
            set(&format!("hint.uart.{unit}.port={port:#x}"));
            set(&format!("hint.uart.{unit}.irq={irq}"));
        }
        for variable in [
            "hint.uart.0.flags=0x10",
            "console=comconsole",
            "comconsole_speed=115200",
            "boot_mute=YES",
            "machdep.idle=hlt",
            "machdep.idle_mwait=0",
            "hw.mca.enabled=0",
            "hw.ibrs_disable=1",
            "vm.pmap.pti=0",
            "machdep.mitigations.rngds.enable=0",
            "hw.vmm.vmx.l1d_flush=0",
            // Nobody reads the messages for devd(8): each load of a module would leave some.
            "hw.bus.devctl_queue=1",
            "kern.cam.boot_delay=0",
            "kern.random.initial_seeding.bypass_before_seeding=1",
            "debug.debugger_on_panic=0",
            "vfs.root.mountfrom=cd9660:/dev/cd0",
            "vfs.root.mountfrom.options=ro",
            "init_shell=/bin/sh",
        ]
        .into_iter()
        .chain(self.kernel_args.split_whitespace())
        {
            set(variable);
        }
        script.push_str("load /boot/kernel/kernel\nboot\n");
        script
    }

    /// Bochs's configuration file. The serial lines: com1 is the kernel's console, com2 the
    /// agent's, com3 a terminal; the latter two connect to these TCP ports. The dummy sound
    /// driver matters: without a sound card the default one ends Bochs.
    pub(super) fn bochsrc(&self, files: &Files<'_>, agent_port: u16, terminal_port: u16) -> String {
        let Files {
            folder,
            bios,
            vga_bios,
            iso,
        } = files;
        let (folder, bios, vga_bios, iso) = (
            folder.display(),
            bios.display(),
            vga_bios.display(),
            iso.display(),
        );
        let (cpus, model, ignore) = (
            self.cpus,
            self.cpu_model.name(),
            u32::from(self.ignore_bad_msrs),
        );
        let memory = self.memory_mb;
        format!(
            "config_interface: textconfig\n\
             display_library: rfb, options=\"timeout=0\"\n\
             cpu: model={model}, count={cpus}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs={ignore}\n\
             memory: guest={memory}, host={memory}\n\
             romimage: file={bios}\n\
             vgaromimage: file={vga_bios}\n\
             ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
             ata0-master: type=cdrom, path={iso}, status=inserted\n\
             boot: cdrom\n\
             com1: enabled=1, mode=file, dev={folder}/console.log\n\
             com2: enabled=1, mode=socket-client, dev=127.0.0.1:{agent_port}\n\
             com3: enabled=1, mode=socket-client, dev=127.0.0.1:{terminal_port}\n\
             clock: sync=none, time0=1767225600\n\
             mouse: enabled=0\n\
             sound: waveoutdrv=dummy\n\
             speaker: enabled=0\n\
             log: {folder}/bochs.log\n\
             panic: action=fatal\n\
             error: action=report\n\
             info: action=ignore\n\
             debug: action=ignore\n"
        )
    }
}

/// Where the machine's parts are.
pub(super) struct Files<'a> {
    pub folder: &'a Path,
    pub bios: &'a Path,
    pub vga_bios: &'a Path,
    pub iso: &'a Path,
}
