//! A request carried out, in bhyvectl(8)'s order: memory, changes, what there is to show,
//! capabilities, statistics, a run, the VM's end.
//!
//! What an option names and can't be had ends the program with the reason. What --get-all
//! can't show is said on stderr, and the rest follows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, UNIX_EPOCH};

use vmmapi::devices::X2apicState;
use vmmapi::{
    Capability, Error, Gla, Gpa, MmapStyle, OpenFlags, Prot, SegReg, SuspendHow, Translation, Vcpu,
    Vm, capability_name,
};

use crate::control::Group;
use crate::msr_bitmap;
use crate::options::{DESCRIPTORS, Id, REGISTERS};
use crate::platform::Vendor;
use crate::request::{Action, Request};
use crate::show;

/// Why it ended early.
#[derive(Debug)]
pub enum Failure {
    Open { vm: String, error: Error },
    Call(Error),
    Memory(io::Error),
}

impl Failure {
    /// The errno that bhyvectl(8) prints, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { .. } => None,
            Self::Call(error) => error.errno(),
            Self::Memory(error) => error.raw_os_error(),
        }
    }
}

impl Failure {
    /// The exit status: FreeBSD's ends with 1 when it can't open the VM, with -1 (255 to the
    /// shell) when the VM refuses something.
    pub fn status(&self) -> u8 {
        match self {
            Self::Open { .. } => 1,
            Self::Call(_) | Self::Memory(_) => 255,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open { vm, error } => write!(f, "vm_open: {vm} could not be opened: {error}"),
            Self::Call(error) => error.fmt(f),
            Self::Memory(error) => write!(f, "/dev/mem: {}", cli::io_error(error)),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

/// One VM, as a request is carried out on it.
struct Run<'a> {
    request: &'a Request,
    vendor: Vendor,
    progname: &'a str,
    vm: Vm,
    vcpu: Vcpu,
}

/// Carries a request out.
pub fn run(request: &Request, vendor: Vendor, progname: &str) -> Result<(), Failure> {
    let vm = open(request)?;
    let vcpu = vm.vcpu(request.vcpu);
    let run = Run {
        request,
        vendor,
        progname,
        vm,
        vcpu,
    };
    if let Some(memory) = request.memory {
        run.vm.setup_memory(memory, MmapStyle::All)?;
    }
    run.segments()?;
    run.mappings()?;
    run.set_state()?;
    run.show_state()?;
    run.show_control()?;
    run.devices()?;
    run.capabilities()?;
    run.whole_vm()?;
    run.statistics()?;
    run.item(Id::GetCpuTopology, || {
        println!("{}", show::topology(&run.vm.topology()?));
        Ok(())
    })?;
    if request.names(Id::Run) {
        print!("{}", show::exit(&run.vcpu.run()?, request.vcpu.0));
    }
    match request.action {
        Some(Action::ForceReset) => run.vm.suspend(SuspendHow::Reset)?,
        Some(Action::ForcePoweroff) => run.vm.suspend(SuspendHow::Poweroff)?,
        Some(Action::Destroy) => run.vm.destroy()?,
        Some(Action::Create) | None => {}
    }
    Ok(())
}

/// With --create, a VM that exists is opened as it is.
fn open(request: &Request) -> Result<Vm, Failure> {
    let flags = OpenFlags {
        create: request.action == Some(Action::Create),
        ..OpenFlags::default()
    };
    Vm::open_with(&request.vm, flags).map_err(|error| Failure::Open {
        vm: request.vm.clone(),
        error,
    })
}

impl Run<'_> {
    /// Shows one thing if it is wanted; see above for what an error means.
    fn item(&self, id: Id, show: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        if !self.request.wants(id) {
            return Ok(());
        }
        match show() {
            Err(failure) if !self.request.names(id) => {
                eprintln!("{}: {failure}", self.progname);
                Ok(())
            }
            result => result,
        }
    }

    fn number(&self) -> u16 {
        self.request.vcpu.0
    }

    fn segments(&self) -> Result<(), Failure> {
        self.item(Id::GetMemseg, || {
            println!("{}", show::MEMSEG_HEADER);
            for segid in 0.. {
                match self.vm.get_memseg(segid) {
                    Ok(Some(seg)) => println!("{}", show::memseg(segid, &seg)),
                    Ok(None) => {}
                    // There are no more numbers.
                    Err(error) if error.is(libc::EINVAL) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    fn mappings(&self) -> Result<(), Failure> {
        self.item(Id::GetMemmap, || {
            println!("{}", show::MEMMAP_HEADER);
            let mut gpa = Gpa(0);
            while let Some(map) = self.vm.mmap_getnext(gpa)? {
                let seg = self.vm.get_memseg(map.segid)?;
                println!("{}", show::memmap(&map, seg.as_ref()));
                let Some(next) = map.gpa.checked_add(map.len) else {
                    break;
                };
                gpa = next;
            }
            Ok(())
        })?;
        for (id, name, start) in [
            (Id::GetLowmem, "lowmem", Gpa(0)),
            (Id::GetHighmem, "highmem", Gpa(4 << 30)),
        ] {
            // 2013's; not part of --get-all any more.
            if self.request.names(id) {
                let map = self.vm.mmap_getnext(start)?.filter(|map| map.gpa == start);
                let len = map.map_or(0, |map| map.len);
                println!("{name}\t\t0x{:016x}/{len}", start.get());
            }
        }
        Ok(())
    }

    /// Registers, descriptors, selectors, and events.
    fn set_state(&self) -> Result<(), Failure> {
        let (selectors, registers): (Vec<_>, Vec<_>) = self
            .request
            .registers
            .iter()
            .copied()
            .partition(|(reg, _)| reg.segment().is_some());
        for (reg, value) in registers {
            self.vcpu.set_register(reg, value)?;
        }
        for seg in &self.request.descriptors {
            let mut desc = self.request.descriptor;
            if matches!(seg, SegReg::Gdtr | SegReg::Idtr) {
                desc.access = 0;
            }
            self.vcpu.set_desc(*seg, desc)?;
        }
        for (reg, value) in selectors {
            self.vcpu.set_register(reg, value)?;
        }
        if let Some(state) = self.request.x2apic_state {
            self.vcpu.set_x2apic_state(state)?;
        }
        if let Some(device) = self.request.unassign_pptdev {
            self.vm.unassign_pptdev(device)?;
        }
        if self.request.names(Id::InjectNmi) {
            self.vcpu.inject_nmi()?;
        }
        if let Some(pin) = self.request.assert_lapic_lvt {
            self.vcpu.lapic_local_irq(pin)?;
        }
        Ok(())
    }

    fn show_state(&self) -> Result<(), Failure> {
        let show_register = |(name, reg)| {
            self.item(Id::GetReg(reg), || {
                let value = self.vcpu.register(reg)?;
                println!("{}", show::register(name, reg, self.number(), value));
                Ok(())
            })
        };
        REGISTERS
            .into_iter()
            .filter(|(_, reg)| reg.segment().is_none())
            .try_for_each(show_register)?;
        for (name, seg) in DESCRIPTORS {
            self.item(Id::GetDesc(seg), || {
                let desc = self.vcpu.desc(seg)?;
                println!("{}", show::descriptor(name, seg, self.number(), desc));
                Ok(())
            })?;
        }
        REGISTERS
            .into_iter()
            .filter(|(_, reg)| reg.segment().is_some())
            .try_for_each(show_register)
    }

    /// The VMCS or VMCB. Its generic part, from the EPT pointer on, follows the APIC state.
    fn show_control(&self) -> Result<(), Failure> {
        let mut groups = Group::in_get_all(self.vendor);
        // What --get-all leaves out can still be named.
        groups.extend(self.request.given.iter().filter_map(|id| match id {
            Id::Control(group) => Some(*group),
            _ => None,
        }));
        groups.sort_unstable();
        groups.dedup();
        let (own, generic): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| *g < Group::Eptp);
        own.into_iter()
            .try_for_each(|group| self.show_group(group))?;
        self.item(Id::GetX2apicState, || {
            let enabled = self.vcpu.x2apic_state()? == X2apicState::Enabled;
            println!("x2apic_state[{}]\t{}", self.number(), i32::from(enabled));
            Ok(())
        })?;
        generic
            .into_iter()
            .try_for_each(|group| self.show_group(group))
    }

    fn show_group(&self, group: Group) -> Result<(), Failure> {
        self.item(Id::Control(group), || {
            if group == Group::MsrBitmap {
                return self.show_msr_bitmap();
            }
            for line in group.lines(self.vendor) {
                let value = self.vcpu.control_field(line.number)?;
                println!("{}", show::control(&line, self.number(), value));
            }
            Ok(())
        })
    }

    /// The MSRs that the guest reads or writes without an exit, from the bitmap in the
    /// host's memory.
    fn show_msr_bitmap(&self) -> Result<(), Failure> {
        let address = self
            .vcpu
            .control_field(Group::msr_bitmap_address(self.vendor))?;
        let mut bitmap = vec![0; msr_bitmap::len(self.vendor)];
        File::open("/dev/mem")
            .and_then(|memory| memory.read_exact_at(&mut bitmap, address))
            .map_err(Failure::Memory)?;
        for line in msr_bitmap::lines(&bitmap, self.vendor, self.number()) {
            println!("{line}");
        }
        Ok(())
    }

    /// EPT, linear addresses, RTC and pending events.
    fn devices(&self) -> Result<(), Failure> {
        if let Some(gpa) = self.request.gpa_pmap {
            println!("{}", show::gpa_pmap(gpa, &self.vm.gpa_pmap(Gpa(gpa))?));
        }
        if let Some(gla) = self.request.gla2gpa {
            let paging = self.vcpu.guest_paging(0)?;
            match self.vcpu.gla2gpa_nofault(&paging, Gla(gla), Prot::READ)? {
                Translation::Gpa(gpa) => println!("gla {gla:#x}: gpa {gpa:#x}"),
                Translation::Fault => println!("gla {gla:#x}: not mapped"),
            }
        }
        let offset = self.request.rtc_nvram_offset;
        if let Some(value) = self.request.rtc_nvram {
            self.vm.rtc_write(offset, value)?;
        }
        self.item(Id::GetRtcNvram, || {
            println!("{}", show::rtc_nvram(offset, self.vm.rtc_read(offset)?));
            Ok(())
        })?;
        if let Some(seconds) = self.request.rtc_time {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            let invalid = Error::Invalid {
                what: "RTC time",
                value: seconds,
            };
            self.vm.rtc_settime(time.ok_or(invalid)?)?;
        }
        self.item(Id::GetRtcTime, || {
            let seconds = match self.vm.rtc_time()?.duration_since(UNIX_EPOCH) {
                Ok(after) => after.as_secs() as i64,
                Err(before) => -(before.duration().as_secs() as i64),
            };
            println!("{}", show::rtc_time(seconds));
            Ok(())
        })?;
        self.item(Id::GetIntinfo, || {
            let (pending, current) = self.vcpu.intinfo()?;
            println!("{}", show::intinfo("pending", pending));
            println!("{}", show::intinfo("current", current));
            Ok(())
        })
    }

    fn capabilities(&self) -> Result<(), Failure> {
        let named = self.request.capability;
        if let (Some(cap), Some(value)) = (named, self.request.set_capability) {
            match self.vcpu.set_capability(cap, value) {
                Err(error) if error.is(libc::ENOENT) => {
                    println!("{}", show::no_capability(capability_name(cap)));
                    return Err(error.into());
                }
                result => result?,
            }
        }
        self.item(Id::Getcap, || {
            let only = named.filter(|_| self.request.names(Id::Getcap));
            for cap in Capability::ALL
                .into_iter()
                .filter(|cap| only.is_none_or(|o| o == *cap))
            {
                match self.vcpu.capability(cap) {
                    Ok(value) => {
                        let name = capability_name(cap);
                        println!("{}", show::capability(name, self.number(), value != 0));
                    }
                    Err(error) if error.is(libc::ENOENT) => {
                        println!("{}", show::no_capability(capability_name(cap)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    fn whole_vm(&self) -> Result<(), Failure> {
        self.item(Id::GetActiveCpus, || {
            println!("{}", show::cpus("active cpus", &self.vm.active_cpus()?));
            Ok(())
        })?;
        self.item(Id::GetDebugCpus, || {
            println!("{}", show::cpus("debug cpus", &self.vm.debug_cpus()?));
            Ok(())
        })?;
        self.item(Id::GetSuspendedCpus, || {
            println!(
                "{}",
                show::cpus("suspended cpus", &self.vm.suspended_cpus()?)
            );
            Ok(())
        })
    }

    fn statistics(&self) -> Result<(), Failure> {
        self.item(Id::GetStats, || {
            let stats = self.vcpu.stats()?;
            println!("vcpu{} stats:", self.number());
            for (index, value) in stats.values.into_iter().enumerate() {
                let desc = self.vm.stat_desc(index)?.unwrap_or_default();
                println!("{}", show::statistic(&desc, value));
            }
            Ok(())
        })
    }
}
