//! The number of vcpus and how they are sockets, cores and threads; which host CPUs they
//! run on.

#![forbid(unsafe_code)]

use std::fmt;

use cli::number::{parse_digits, parse_within};
use vmmapi::CpuTopology;

use crate::config::Config;
use crate::platform::MAX_HOST_CPUS;

/// Why a topology or a pinning makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CpuError {
    Value {
        key: &'static str,
        text: String,
    },
    TooMany(u64),
    Mismatch {
        cpus: u16,
        sockets: u16,
        cores: u16,
        threads: u16,
    },
    CpuSet {
        vcpu: u16,
        text: String,
    },
    HostCpu(u64),
    Range {
        first: u32,
        last: u32,
    },
    /// 2013's pinning.
    First(String),
}

impl std::error::Error for CpuError {}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { key, text } => write!(
                f,
                "Invalid value for {key}: '{text}' is not a number from 1 to 65535"
            ),
            Self::TooMany(count) => write!(f, "Computed number of vCPUs too high: {count}"),
            Self::Mismatch {
                cpus,
                sockets,
                cores,
                threads,
            } => write!(
                f,
                "Topology ({sockets} sockets, {cores} cores, {threads} threads) does not match \
                 {cpus} vCPUs"
            ),
            Self::CpuSet { vcpu, text } => write!(
                f,
                "invalid cpuset for vcpu {vcpu}: '{text}': host CPUs and ranges of them are \
                 wanted, as 0-3,5"
            ),
            Self::HostCpu(number) => write!(
                f,
                "hostcpu '{number}' outside valid range from 0 to {}",
                MAX_HOST_CPUS - 1
            ),
            Self::Range { first, last } => write!(f, "Invalid hostcpu range {first}-{last}"),
            Self::First(text) => write!(f, "compat.pin={text}: a host CPU's number is wanted"),
        }
    }
}

/// The topology that the variables cpus, sockets, cores and threads give, and the number of
/// vcpus.
pub fn read(config: &Config) -> Result<(CpuTopology, u16), CpuError> {
    let number = |key| {
        let Some(text) = config.get(key) else {
            return Ok(None);
        };
        match parse_within(&text, 1, u16::MAX.into()) {
            Some(number) => Ok(Some(number as u16)),
            None => Err(CpuError::Value { key, text }),
        }
    };
    let wanted = number("cpus")?;
    let (cores, threads) = (
        number("cores")?.unwrap_or(1),
        number("threads")?.unwrap_or(1),
    );
    let sockets = number("sockets")?.or(wanted).unwrap_or(1);
    let count = u64::from(sockets) * u64::from(cores) * u64::from(threads);
    let cpus = u16::try_from(count).map_err(|_| CpuError::TooMany(count))?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != cpus) {
        return Err(CpuError::Mismatch {
            cpus: wanted,
            sockets,
            cores,
            threads,
        });
    }
    let topology = CpuTopology {
        sockets,
        cores,
        threads,
        maxcpus: 0,
    };
    Ok((topology, cpus))
}

/// Which host CPUs each vcpu may run on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pinning(Vec<Vec<u32>>);

impl Pinning {
    /// The variables vcpu.N.cpuset, and compat.pin for those that have none.
    pub fn read(config: &Config, cpus: u16) -> Result<Self, CpuError> {
        let first = match config.get("compat.pin") {
            None => None,
            Some(text) => Some(parse_digits(&text).ok_or(CpuError::First(text))?),
        };
        let mut pinning = Vec::new();
        for vcpu in 0..cpus {
            let cpuset = config.get(&format!("vcpu.{vcpu}.cpuset"));
            pinning.push(match (cpuset, first) {
                (Some(text), _) => parse_cpuset(vcpu, &text)?,
                (None, Some(first)) => vec![host_cpu(first.saturating_add(vcpu.into()))?],
                (None, None) => Vec::new(),
            });
        }
        Ok(Self(pinning))
    }

    /// All vcpus on one host CPU: the first one of the first vcpu, or that one if it may run
    /// anywhere.
    pub fn on_one(&self, otherwise: u32) -> Self {
        let cpu = self.of(0).first().copied().unwrap_or(otherwise);
        Self(vec![vec![cpu]; self.0.len()])
    }

    /// The host CPUs for a vcpu; none means any.
    pub fn of(&self, vcpu: u16) -> &[u32] {
        self.0.get(usize::from(vcpu)).map_or(&[], Vec::as_slice)
    }
}

fn host_cpu(number: u64) -> Result<u32, CpuError> {
    let valid = u32::try_from(number)
        .ok()
        .filter(|cpu| *cpu < MAX_HOST_CPUS);
    valid.ok_or(CpuError::HostCpu(number))
}

/// `0-3,5`: numbers and ranges of them.
fn parse_cpuset(vcpu: u16, text: &str) -> Result<Vec<u32>, CpuError> {
    let number = |part: &str| {
        let number = parse_digits(part).ok_or_else(|| CpuError::CpuSet {
            vcpu,
            text: text.to_owned(),
        });
        host_cpu(number?)
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(CpuError::Range { first, last });
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(lines: &[&str]) -> Config {
        let mut config = Config::default();
        for line in lines {
            let (name, value) = line.split_once('=').unwrap();
            config.set(name, value).unwrap();
        }
        config
    }

    fn resolve(lines: &[&str]) -> Result<(u16, u16, u16, u16), String> {
        let (t, cpus) = read(&config(lines)).map_err(|e| e.to_string())?;
        Ok((cpus, t.sockets, t.cores, t.threads))
    }

    #[test]
    fn vcpus_are_sockets_unless_told_otherwise() {
        assert_eq!(resolve(&[]), Ok((1, 1, 1, 1)));
        assert_eq!(resolve(&["cpus=4"]), Ok((4, 4, 1, 1)));
        let parts = ["sockets=2", "cores=0x3", "threads=2"];
        assert_eq!(resolve(&parts), Ok((12, 2, 3, 2)));
        let parts = ["cpus=8", "sockets=1", "cores=4", "threads=2"];
        assert_eq!(resolve(&parts), Ok((8, 1, 4, 2)));
    }

    #[test]
    fn contradictions_are_named() {
        for (lines, part) in [
            (&["cpus=4", "cores=2"][..], "does not match 4 vCPUs"),
            (&["cpus=0"], "Invalid value for cpus: '0'"),
            (&["cores=x"], "Invalid value for cores: 'x'"),
            (&["sockets=300", "cores=300"], "too high: 90000"),
        ] {
            let message = resolve(lines).unwrap_err();
            assert!(message.contains(part), "{lines:?}: {message}");
        }
    }

    #[test]
    fn a_vcpu_may_have_ranges_of_host_cpus() {
        let config = config(&["vcpu.0.cpuset=0-3,5", "vcpu.2.cpuset=7", "vcpu.9.cpuset=x"]);
        let pinning = Pinning::read(&config, 3).unwrap();
        assert_eq!(pinning.of(0), [0, 1, 2, 3, 5]);
        assert_eq!(pinning.of(2), [7]);
        assert!(pinning.of(1).is_empty() && pinning.of(9).is_empty());
        assert_eq!(config.unread(), ["vcpu.9.cpuset"]);
    }

    #[test]
    fn in_2013_vcpus_had_one_host_cpu_each_from_the_first_on() {
        let pinning = Pinning::read(&config(&["compat.pin=2", "vcpu.1.cpuset=9"]), 3).unwrap();
        assert_eq!(
            (pinning.of(0), pinning.of(1), pinning.of(2)),
            (&[2][..], &[9][..], &[4][..])
        );
        assert!(Pinning::read(&config(&["compat.pin=1023"]), 1).is_ok());
        assert!(Pinning::read(&config(&["compat.pin=1023"]), 2).is_err());
    }

    #[test]
    fn vcpus_that_take_turns_share_the_first_ones_host_cpu() {
        let on_one = |lines| {
            let pinning = Pinning::read(&config(lines), 3).unwrap().on_one(6);
            (0..3)
                .map(|vcpu| pinning.of(vcpu).to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(on_one(&["vcpu.1.cpuset=1"]), [[6], [6], [6]]);
        assert_eq!(
            on_one(&["vcpu.0.cpuset=3,4", "compat.pin=1"]),
            [[3], [3], [3]]
        );
        assert_eq!(on_one(&["compat.pin=1"]), [[1], [1], [1]]);
    }

    #[test]
    fn wrong_pinnings_are_named() {
        for (text, part) in [
            ("a", "invalid cpuset for vcpu 0: 'a'"),
            ("1,", "invalid cpuset"),
            ("1-2-3", "invalid cpuset"),
            ("1024", "hostcpu '1024' outside"),
            ("3-1", "Invalid hostcpu range 3-1"),
        ] {
            let config = config(&[&format!("vcpu.0.cpuset={text}")]);
            let message = Pinning::read(&config, 1).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_values_are_understood_or_refused(text in "[0-9x,-]{1,12}", cpus in "[0-9]{1,6}") {
            let config = config(&[&format!("vcpu.0.cpuset={text}"), &format!("cpus={cpus}")]);
            if let Ok((t, cpus)) = read(&config) {
                prop_assert_eq!(cpus, t.sockets * t.cores * t.threads);
            }
            if let Ok(pinning) = Pinning::read(&config, 1) {
                prop_assert!(pinning.of(0).iter().all(|cpu| *cpu < MAX_HOST_CPUS));
            }
        }
    }
}
