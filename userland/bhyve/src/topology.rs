//! `-c`: the number of vcpus and how they are sockets, cores and threads; `-p`: which host
//! CPUs they run on.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use cli::number::parse_within;
use vmmapi::CpuTopology;

use crate::platform::MAX_HOST_CPUS;

/// What `-c` says; each value may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TopologySpec {
    cpus: Option<u16>,
    sockets: Option<u16>,
    cores: Option<u16>,
    threads: Option<u16>,
}

/// Why a topology or a pinning makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CpuError {
    Topology(String),
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
    Pinning(String),
    HostCpu(String),
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topology(text) => write!(f, "invalid cpu topology '{text}'"),
            Self::Value { key, text } => {
                write!(
                    f,
                    "invalid value for {key}: '{text}' is not a number from 1 to 65535"
                )
            }
            Self::TooMany(count) => write!(f, "computed number of vCPUs too high: {count}"),
            Self::Mismatch {
                cpus,
                sockets,
                cores,
                threads,
            } => write!(
                f,
                "topology ({sockets} sockets, {cores} cores, {threads} threads) does not match \
                 {cpus} vCPUs"
            ),
            Self::Pinning(text) => write!(
                f,
                "invalid vcpu pinning configuration '{text}': vcpu:hostcpu is wanted, or the \
                 first host CPU of all"
            ),
            Self::HostCpu(text) => {
                write!(
                    f,
                    "hostcpu '{text}' outside valid range from 0 to {}",
                    MAX_HOST_CPUS - 1
                )
            }
        }
    }
}

impl TopologySpec {
    /// Adds what one `-c` says; a later value replaces an earlier one.
    pub fn add(&mut self, text: &str) -> Result<(), CpuError> {
        if text.is_empty() {
            *self = Self {
                cpus: Some(1),
                sockets: Some(1),
                cores: Some(1),
                threads: Some(1),
            };
            return Ok(());
        }
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or(("cpus", part));
            let (key, place) = match key {
                "cpus" => ("cpus", &mut self.cpus),
                "sockets" => ("sockets", &mut self.sockets),
                "cores" => ("cores", &mut self.cores),
                "threads" => ("threads", &mut self.threads),
                _ => return Err(CpuError::Topology(text.to_owned())),
            };
            let number =
                parse_within(value, 1, u16::MAX.into()).ok_or_else(|| CpuError::Value {
                    key,
                    text: value.to_owned(),
                })?;
            *place = Some(number as u16);
        }
        Ok(())
    }

    /// The whole topology, and the number of vcpus.
    pub fn resolve(&self) -> Result<(CpuTopology, u16), CpuError> {
        let sockets = self.sockets.or(self.cpus).unwrap_or(1);
        let (cores, threads) = (self.cores.unwrap_or(1), self.threads.unwrap_or(1));
        let count = u64::from(sockets) * u64::from(cores) * u64::from(threads);
        let cpus = u16::try_from(count).map_err(|_| CpuError::TooMany(count))?;
        if self.cpus.is_some_and(|wanted| wanted != cpus) {
            let cpus = self.cpus.unwrap_or(cpus);
            return Err(CpuError::Mismatch {
                cpus,
                sockets,
                cores,
                threads,
            });
        }
        Ok((
            CpuTopology {
                sockets,
                cores,
                threads,
                maxcpus: 0,
            },
            cpus,
        ))
    }
}

/// Which host CPUs each vcpu may run on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pinning {
    by_vcpu: BTreeMap<u16, Vec<u32>>,
    /// 2013's form: vcpu n on host CPU first + n.
    first: Option<u32>,
}

impl Pinning {
    /// Adds what one `-p` says: `vcpu:hostcpu`, or 2013's `hostcpu`.
    pub fn add(&mut self, text: &str) -> Result<(), CpuError> {
        let host_cpu = |number: &str| {
            if !number.bytes().all(|b| b.is_ascii_digit()) || number.is_empty() {
                return Err(CpuError::Pinning(text.to_owned()));
            }
            parse_within(number, 0, u64::from(MAX_HOST_CPUS) - 1)
                .map(|cpu| cpu as u32)
                .ok_or_else(|| CpuError::HostCpu(number.to_owned()))
        };
        match text.split_once(':') {
            Some((vcpu, cpu)) => {
                let vcpu = parse_within(vcpu, 0, u16::MAX.into())
                    .ok_or_else(|| CpuError::Pinning(text.to_owned()))?;
                self.by_vcpu
                    .entry(vcpu as u16)
                    .or_default()
                    .push(host_cpu(cpu)?);
            }
            None => self.first = Some(host_cpu(text)?),
        }
        Ok(())
    }

    /// The host CPUs for a vcpu; none means any.
    pub fn of(&self, vcpu: u16) -> Vec<u32> {
        match (self.by_vcpu.get(&vcpu), self.first) {
            (Some(cpus), _) => cpus.clone(),
            (None, Some(first)) => vec![first + u32::from(vcpu)],
            (None, None) => Vec::new(),
        }
    }

    /// The highest vcpu that is named.
    pub fn highest_vcpu(&self) -> Option<u16> {
        self.by_vcpu.keys().next_back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(texts: &[&str]) -> Result<(u16, u16, u16, u16), String> {
        let mut spec = TopologySpec::default();
        for text in texts {
            spec.add(text).map_err(|e| e.to_string())?;
        }
        let (t, cpus) = spec.resolve().map_err(|e| e.to_string())?;
        Ok((cpus, t.sockets, t.cores, t.threads))
    }

    #[test]
    fn vcpus_are_sockets_unless_told_otherwise() {
        assert_eq!(resolve(&[]), Ok((1, 1, 1, 1)));
        assert_eq!(resolve(&["4"]), Ok((4, 4, 1, 1)));
        assert_eq!(resolve(&["cpus=4"]), Ok((4, 4, 1, 1)));
        assert_eq!(resolve(&["sockets=2,cores=3,threads=2"]), Ok((12, 2, 3, 2)));
        assert_eq!(
            resolve(&["8,sockets=1,cores=4,threads=2"]),
            Ok((8, 1, 4, 2))
        );
        assert_eq!(resolve(&["4", "2"]), Ok((2, 2, 1, 1)));
        assert_eq!(resolve(&[""]), Ok((1, 1, 1, 1)));
    }

    #[test]
    fn contradictions_are_named() {
        assert!(
            resolve(&["4,cores=2"])
                .unwrap_err()
                .contains("does not match 4 vCPUs")
        );
        assert!(
            resolve(&["0"])
                .unwrap_err()
                .starts_with("invalid value for cpus: '0'")
        );
        assert!(
            resolve(&["cores=x"])
                .unwrap_err()
                .starts_with("invalid value for cores")
        );
        assert!(resolve(&["dies=2"]).unwrap_err().contains("'dies=2'"));
        assert!(
            resolve(&["sockets=300,cores=300"])
                .unwrap_err()
                .contains("90000")
        );
    }

    #[test]
    fn both_forms_of_pinning_are_understood() {
        let mut pinning = Pinning::default();
        for text in ["0:12", "1:13", "1:14"] {
            pinning.add(text).unwrap();
        }
        assert_eq!(
            (pinning.of(0), pinning.of(1), pinning.of(2)),
            (vec![12], vec![13, 14], vec![])
        );
        assert_eq!(pinning.highest_vcpu(), Some(1));
        let mut pinning = Pinning::default();
        pinning.add("2").unwrap();
        assert_eq!((pinning.of(0), pinning.of(3)), (vec![2], vec![5]));
    }

    #[test]
    fn wrong_pinnings_are_named() {
        let refusal = |text| Pinning::default().add(text).unwrap_err().to_string();
        for text in ["", "a", "0:", ":1", "-1:0", "0:1:2", "0:x"] {
            assert!(refusal(text).starts_with("invalid vcpu pinning"), "{text}");
        }
        assert!(refusal("0:1024").starts_with("hostcpu '1024' outside"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-z0-9=,:-]{0,30}") {
            let mut spec = TopologySpec::default();
            if spec.add(&text).is_ok() {
                if let Ok((t, cpus)) = spec.resolve() {
                    prop_assert_eq!(cpus, t.sockets * t.cores * t.threads);
                }
            }
            let _ = Pinning::default().add(&text);
        }
    }
}
