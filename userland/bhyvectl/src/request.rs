//! What the command line asks for, in typed form; every number in it is checked here.

use std::collections::BTreeSet;
use std::fmt;

use cli::getopt_long::{self, LongOpt};
use cli::number::{parse_u64, parse_within};
use vmmapi::devices::X2apicState;
use vmmapi::ppt::PciFunction;
use vmmapi::{Capability, Reg, SegDesc, SegReg, VcpuId, capability_by_name};

use crate::options::Id;

/// One run of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub vm: String,
    pub vcpu: VcpuId,
    /// Options without an argument that were given.
    pub given: BTreeSet<Id>,
    pub action: Option<Action>,
    /// In bytes.
    pub memory: Option<u64>,
    pub registers: Vec<(Reg, u64)>,
    pub descriptors: Vec<SegReg>,
    pub descriptor: SegDesc,
    pub capability: Option<Capability>,
    pub set_capability: Option<i32>,
    pub x2apic_state: Option<X2apicState>,
    pub unassign_pptdev: Option<PciFunction>,
    pub assert_lapic_lvt: Option<i32>,
    pub gpa_pmap: Option<u64>,
    pub gla2gpa: Option<u64>,
    pub rtc_time: Option<u64>,
    pub rtc_nvram_offset: u8,
    pub rtc_nvram: Option<u8>,
}

/// Options that exclude each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Create,
    Destroy,
    ForceReset,
    ForcePoweroff,
}

/// Why the command line makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestError {
    Getopt(String),
    NoVm,
    Number {
        option: &'static str,
        text: String,
        wanted: &'static str,
    },
    Pptdev(String),
    Capability(String),
    NoCapability,
    Exclusive,
    Operand(String),
    /// A name whose thing isn't here, and what is.
    Gone {
        option: &'static str,
        instead: &'static str,
    },
}

impl RequestError {
    /// Whether the usage helps.
    pub fn wants_usage(&self) -> bool {
        matches!(self, Self::Getopt(_) | Self::NoVm | Self::Pptdev(_))
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Getopt(message) => f.write_str(message),
            Self::NoVm => f.write_str("--vm=<vmname> is missing"),
            Self::Number {
                option,
                text,
                wanted,
            } => write!(f, "--{option}: '{text}' is not {wanted}"),
            Self::Pptdev(text) => write!(f, "--unassign-pptdev: '{text}' is not bus/slot/func"),
            Self::Capability(name) => write!(f, "--capname: there is no capability \"{name}\""),
            Self::NoCapability => f.write_str("--setcap needs a --capname"),
            Self::Exclusive => f.write_str("mutually exclusive actions specified"),
            Self::Operand(text) => write!(f, "'{text}' is no option; options begin with --"),
            Self::Gone { option, instead } => {
                write!(f, "--{option} is not part of this version: {instead}")
            }
        }
    }
}

/// What was asked for, or the help.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Run(Box<Request>),
    Help,
}

/// Takes the arguments (without `argv[0]`) apart.
pub fn parse(args: &[String], tables: &[&[LongOpt<Id>]]) -> Result<Answer, RequestError> {
    let (found, operands) =
        getopt_long::parse(args, tables).map_err(|e| RequestError::Getopt(e.to_string()))?;
    let mut request = Request {
        vm: String::new(),
        vcpu: VcpuId::BSP,
        given: BTreeSet::new(),
        action: None,
        memory: None,
        registers: Vec::new(),
        descriptors: Vec::new(),
        descriptor: SegDesc::default(),
        capability: None,
        set_capability: None,
        x2apic_state: None,
        unassign_pptdev: None,
        assert_lapic_lvt: None,
        gpa_pmap: None,
        gla2gpa: None,
        rtc_time: None,
        rtc_nvram_offset: 0,
        rtc_nvram: None,
    };
    let mut capability_name = None;
    for option in found {
        let name = tables
            .iter()
            .copied()
            .flatten()
            .find(|entry| entry.id == option.id)
            .map_or("", |entry| entry.name);
        let value = Value {
            option: name,
            text: option.arg.unwrap_or_default(),
        };
        match option.id {
            Id::Help => return Ok(Answer::Help),
            Id::Gone(instead) => {
                return Err(RequestError::Gone {
                    option: name,
                    instead,
                });
            }
            Id::Vm => request.vm = value.text.to_owned(),
            Id::Capname => capability_name = Some(value.text),
            Id::Create => request.act(Action::Create)?,
            Id::Destroy => request.act(Action::Destroy)?,
            Id::ForceReset => request.act(Action::ForceReset)?,
            Id::ForcePoweroff => request.act(Action::ForcePoweroff)?,
            id => request.take(id, value)?,
        }
    }
    if request.vm.is_empty() {
        return Err(RequestError::NoVm);
    }
    if let Some(operand) = operands.first() {
        return Err(RequestError::Operand((*operand).to_owned()));
    }
    if let Some(name) = capability_name {
        let capability = capability_by_name(name);
        request.capability =
            Some(capability.ok_or_else(|| RequestError::Capability(name.to_owned()))?);
    }
    if request.set_capability.is_some() && request.capability.is_none() {
        return Err(RequestError::NoCapability);
    }
    Ok(Answer::Run(Box::new(request)))
}

/// An option's argument.
#[derive(Clone, Copy)]
struct Value<'a> {
    option: &'static str,
    text: &'a str,
}

impl Value<'_> {
    fn error(self, wanted: &'static str) -> RequestError {
        RequestError::Number {
            option: self.option,
            text: self.text.to_owned(),
            wanted,
        }
    }

    fn u64(self) -> Result<u64, RequestError> {
        parse_u64(self.text).ok_or_else(|| self.error("a number (0x… is hexadecimal)"))
    }

    fn u32(self) -> Result<u32, RequestError> {
        parse_within(self.text, 0, u32::MAX.into())
            .map(|n| n as u32)
            .ok_or_else(|| self.error("a number of 32 bits"))
    }

    fn u16(self) -> Result<u16, RequestError> {
        parse_within(self.text, 0, u16::MAX.into())
            .map(|n| n as u16)
            .ok_or_else(|| self.error("a number from 0 to 65535"))
    }

    fn u8(self) -> Result<u8, RequestError> {
        parse_within(self.text, 0, u8::MAX.into())
            .map(|n| n as u8)
            .ok_or_else(|| self.error("a number from 0 to 255"))
    }
}

impl Request {
    fn act(&mut self, action: Action) -> Result<(), RequestError> {
        match self.action.replace(action) {
            Some(other) if other != action => Err(RequestError::Exclusive),
            _ => Ok(()),
        }
    }

    fn take(&mut self, id: Id, value: Value<'_>) -> Result<(), RequestError> {
        match id {
            Id::Cpu => self.vcpu = VcpuId(value.u16()?),
            Id::SetMem => {
                let megabytes = value.u32()?;
                if megabytes == 0 {
                    return Err(value.error("a number of megabytes"));
                }
                // Rounded up to 2 MB, as ever.
                self.memory = Some(u64::from(megabytes).next_multiple_of(2) << 20);
            }
            Id::Setcap => {
                let on = value.u32()?;
                self.set_capability =
                    Some(i32::try_from(on).map_err(|_| value.error("a value of a capability"))?);
            }
            Id::SetReg(reg) => self.registers.push((reg, value.u64()?)),
            Id::SetDesc(seg) => self.descriptors.push(seg),
            Id::DescBase => self.descriptor.base = value.u64()?,
            Id::DescLimit => self.descriptor.limit = value.u32()?,
            Id::DescAccess => self.descriptor.access = value.u32()?,
            Id::SetX2apicState => {
                self.x2apic_state = Some(match value.u32()? {
                    0 => X2apicState::Disabled,
                    1 => X2apicState::Enabled,
                    _ => return Err(value.error("0 (disabled) or 1 (enabled)")),
                });
            }
            Id::UnassignPptdev => self.unassign_pptdev = Some(pptdev(value.text)?),
            Id::AssertLapicLvt => {
                let pin = value.u16()?;
                self.assert_lapic_lvt = Some(pin.into());
            }
            Id::GetGpaPmap => self.gpa_pmap = Some(value.u64()?),
            Id::Gla2gpa => self.gla2gpa = Some(value.u64()?),
            Id::SetRtcTime => self.rtc_time = Some(value.u64()?),
            Id::RtcNvramOffset => self.rtc_nvram_offset = value.u8()?,
            Id::SetRtcNvram => self.rtc_nvram = Some(value.u8()?),
            given => {
                self.given.insert(given);
            }
        }
        Ok(())
    }

    /// Whether an option was given, or --get-all, which implies it.
    pub fn wants(&self, id: Id) -> bool {
        self.given.contains(&id) || self.given.contains(&Id::GetAll)
    }

    /// Whether the option itself was given.
    pub fn names(&self, id: Id) -> bool {
        self.given.contains(&id)
    }
}

fn pptdev(text: &str) -> Result<PciFunction, RequestError> {
    let error = || RequestError::Pptdev(text.to_owned());
    let numbers: Option<Vec<u8>> = text
        .split('/')
        .map(|number| parse_within(number, 0, 255).map(|n| n as u8))
        .collect();
    match numbers.as_deref() {
        Some([bus, slot, func]) => Ok(PciFunction {
            bus: *bus,
            slot: *slot,
            func: *func,
        }),
        _ => Err(error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;
    use crate::platform::Vendor;
    use proptest::prelude::*;

    fn parse_args(args: &[String]) -> Result<Answer, RequestError> {
        let [stock, added] = options::long_options(&options::table(Vendor::Intel));
        parse(args, &[&stock, &added])
    }

    fn parse_line(line: &str) -> Result<Answer, RequestError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse_args(&args)
    }

    fn request(line: &str) -> Request {
        match parse_line(line) {
            Ok(Answer::Run(request)) => *request,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        parse_line(line).unwrap_err().to_string()
    }

    #[test]
    fn command_lines_of_the_seed_and_the_manual_are_understood() {
        let r = request("--vm=guest0 --destroy");
        assert_eq!((r.vm.as_str(), r.action), ("guest0", Some(Action::Destroy)));
        let r = request("--vm=g --cpu=1 --set-rip=0x7c00 --set-cs 0 --get-rip");
        assert_eq!(r.vcpu, VcpuId(1));
        assert_eq!(r.registers, [(Reg::Rip, 0x7c00), (Reg::Cs, 0)]);
        assert!(r.wants(Id::GetReg(Reg::Rip)) && !r.wants(Id::GetReg(Reg::Rax)));
        let r = request(
            "--vm=g --set-desc-cs --desc-base=0x1000 --desc-limit=0xffff --desc-access=0x9b",
        );
        assert_eq!(r.descriptors, [SegReg::Cs]);
        assert_eq!(
            r.descriptor,
            SegDesc {
                base: 0x1000,
                limit: 0xffff,
                access: 0x9b
            }
        );
        let r = request("--vm=g --capname=hlt_exit --setcap=1");
        assert_eq!(
            (r.capability, r.set_capability),
            (Some(Capability::HaltExit), Some(1))
        );
        assert_eq!(request("--vm=g --set-mem=127").memory, Some(128 << 20));
        assert!(request("--vm=g --get-all").wants(Id::GetStats));
    }

    #[test]
    fn names_of_2013_mean_todays_options() {
        let today = request("--vm=g --get-eptp --get-exit-reason");
        assert_eq!(
            request("--vm=g --get-vmcs-eptp --get-vmcs-exit-reason").given,
            today.given
        );
    }

    #[test]
    fn abbreviations_work_while_unambiguous() {
        assert!(request("--vm=g --get-stat").wants(Id::GetStats));
        assert_eq!(request("--v=g --dest --dest").action, Some(Action::Destroy));
        assert!(refusal("--vm=g --get-m").contains("ambiguous"));
    }

    #[test]
    fn what_was_added_leaves_freebsds_abbreviations_alone() {
        for (short, long) in [
            ("--get-l", "--get-ldtr"),
            ("--get-vmcs-t", "--get-vmcs-tpr-threshold"),
            ("--get-vmcs-v", "--get-vmcs-vpid"),
            ("--set-rs=1", "--set-rsp=1"),
            ("--get-vmcs-pl=1", ""),
            ("--get-low", "--get-lowmem"),
        ] {
            let parsed = |option: &str| parse_line(&format!("--vm=g {option}"));
            match long {
                "" => assert!(parsed(short).is_err(), "{short}"),
                long => assert_eq!(parsed(short), parsed(long), "{short}"),
            }
        }
    }

    #[test]
    fn what_is_gone_is_refused_by_name_with_what_there_is_instead() {
        for (line, says) in [
            (
                "--suspend=/vm/a.ckp",
                "--suspend is not part of this version: ",
            ),
            (
                "--check /vm/a.ckp",
                "--checkpoint is not part of this version: ",
            ),
            ("--set-pinning=2", "bhyve -p vcpu:hostcpu"),
            ("--get-pinning", "cpuset -g -t"),
            ("--set-vmcs-exception-bitmap=8", "--capname=bpt_exit"),
            ("--set-vmcs-entry-interruption-info=8", "--inject-nmi"),
        ] {
            let text = refusal(&format!("--vm=g {line}"));
            assert!(text.contains(says), "{line}: {text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(refusal("--get-all"), "--vm=<vmname> is missing");
        assert_eq!(
            refusal("--vm=g --create --destroy"),
            "mutually exclusive actions specified"
        );
        assert!(refusal("--vm=g --set-rip=here").starts_with("--set-rip: 'here' is not a number"));
        assert!(refusal("--vm=g --cpu=-1").starts_with("--cpu: '-1'"));
        assert!(refusal("--vm=g --set-mem=0").starts_with("--set-mem: '0'"));
        assert!(refusal("--vm=g --capname=fly --getcap").contains("\"fly\""));
        assert_eq!(refusal("--vm=g --setcap=1"), "--setcap needs a --capname");
        assert!(refusal("--vm=g --unassign-pptdev=1/2").contains("bus/slot/func"));
        assert!(refusal("--vm=g --set-x2apic-state=2").contains("0 (disabled) or 1"));
        assert!(refusal("--vm=g guest1").starts_with("'guest1' is no option"));
        assert_eq!(
            refusal("--vm=g --get-vmcs-nothing"),
            "unrecognized option `--get-vmcs-nothing'"
        );
    }

    proptest! {
        #[test]
        fn any_argument_is_understood_or_refused(
            pick in 0usize..200,
            value in "[0-9a-fx/-]{0,20}",
        ) {
            let table = options::table(Vendor::Intel);
            let name = table[pick % table.len()].option.name;
            let args = vec!["--vm=g".to_owned(), format!("--{name}={value}")];
            if let Err(error) = parse_args(&args) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
