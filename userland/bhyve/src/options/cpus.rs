//! -c, -p and -n: vcpus, the host CPUs that they run on, and their memory. What the
//! variables mean is found out by [`topology`](crate::topology).

#![forbid(unsafe_code)]

use cli::number::parse_within;

use super::OptionError;
use crate::config::Config;
use crate::platform::MAX_HOST_CPUS;

/// The parts of a topology, which are the variables' names, too.
const PARTS: [&str; 4] = ["sockets", "cores", "threads", "cpus"];

/// `[[cpus=]n][,sockets=n][,cores=n][,threads=n]`. Nothing at all means one of each.
pub fn topology(config: &mut Config, text: &str) -> Result<(), OptionError> {
    if text.is_empty() {
        for part in PARTS {
            config.set(part, "1")?;
        }
        return Ok(());
    }
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or(("cpus", part));
        if !PARTS.contains(&key) {
            return Err(OptionError::Invalid {
                what: "cpu topology",
                text: text.to_owned(),
                why: Some(format!("{key} is none of cpus, sockets, cores, threads")),
            });
        }
        config.set(key, value)?;
    }
    Ok(())
}

/// `vcpu:hostcpu`, which adds to what that vcpu has, or 2013's `hostcpu`, from which on the
/// vcpus have one host CPU each.
pub fn pin(config: &mut Config, text: &str) -> Result<(), OptionError> {
    let invalid = |why: &str| OptionError::Invalid {
        what: "vcpu pinning configuration",
        text: text.to_owned(),
        why: Some(why.to_owned()),
    };
    let host_cpu = |text: &str| {
        let number = decimal(text).ok_or_else(|| invalid("vcpu:hostcpu is wanted"))?;
        if number < u64::from(MAX_HOST_CPUS) {
            return Ok(number);
        }
        Err(invalid(&format!(
            "hostcpu '{number}' outside valid range from 0 to {}",
            MAX_HOST_CPUS - 1
        )))
    };
    match text.split_once(':') {
        None => config.set("compat.pin", &host_cpu(text)?.to_string())?,
        Some((vcpu, cpu)) => {
            let cpu = host_cpu(cpu)?;
            let vcpu = decimal(vcpu).ok_or_else(|| invalid("vcpu:hostcpu is wanted"))?;
            let variable = format!("vcpu.{vcpu}.cpuset");
            let cpus = match config.get(&variable) {
                Some(before) => format!("{before},{cpu}"),
                None => cpu.to_string(),
            };
            config.set(&variable, &cpus)?;
        }
    }
    Ok(())
}

/// `id=n[,size=…][,cpus=…][,domain_policy=…]`.
pub fn numa(config: &mut Config, text: &str) -> Result<(), OptionError> {
    let invalid = |why: String| OptionError::Invalid {
        what: "NUMA configuration",
        text: text.to_owned(),
        why: Some(why),
    };
    let (mut id, mut size, mut policy, mut cpus) = (None, None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", number)) => {
                let number = parse_within(number, 0, 255).ok_or_else(|| OptionError::Value {
                    key: "id",
                    text: number.to_owned(),
                })?;
                id = Some(number);
            }
            Some(("size", value)) => size = Some(value),
            Some(("cpus", value)) => cpus = Some(value),
            Some(("domain_policy", value)) => policy = Some(value),
            _ => {
                return Err(invalid(format!(
                    "'{part}' is none of id=, size=, cpus=, domain_policy="
                )));
            }
        }
    }
    let id = id.ok_or_else(|| invalid("the domain's id is missing".to_owned()))?;
    let mut domain = config.node_mut(&format!("domains.{id}"))?;
    for (name, value) in [("size", size), ("domain_policy", policy), ("cpus", cpus)] {
        if let Some(value) = value {
            domain.set(name, value)?;
        }
    }
    if config.bool("acpi_tables", true)? {
        Ok(())
    } else {
        Err(OptionError::NumaWithoutAcpi)
    }
}

/// Digits alone.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
