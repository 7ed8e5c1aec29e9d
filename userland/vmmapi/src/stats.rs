//! Statistics: counters per vcpu, with descriptions that the kernel has.

use std::time::Duration;

use vmm_sys::ioctl as req;

use crate::platform;
use crate::{Error, Vcpu, Vm};

/// A vcpu's counters at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Since 1970, UTC, by the host's clock.
    pub time: Duration,
    /// By index; [`Vm::stat_desc`] says what each is.
    pub values: Vec<u64>,
}

impl Vcpu {
    /// All counters. They are read 64 at a time, so that ones far apart may be from
    /// slightly different moments.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = Stats {
            time: Duration::ZERO,
            values: Vec::new(),
        };
        loop {
            let index = i32::try_from(stats.values.len()).map_err(|_| Error::Invalid {
                what: "number of statistics",
                value: stats.values.len() as u64,
            })?;
            let mut param = vmm_sys::vm_stats {
                cpuid: self.raw_id(),
                index,
                ..Default::default()
            };
            self.ioctl(req::VM_STATS, &mut param)?;
            let entries = usize::try_from(param.num_entries)
                .unwrap_or(0)
                .min(param.statbuf.len());
            stats.time = time(param.tv);
            stats.values.extend_from_slice(&param.statbuf[..entries]);
            if entries < param.statbuf.len() {
                return Ok(stats);
            }
        }
    }
}

impl Vm {
    /// What the counter of that index counts; `None` past the last.
    pub fn stat_desc(&self, index: usize) -> Result<Option<String>, Error> {
        let Ok(index) = i32::try_from(index) else {
            return Ok(None);
        };
        let mut param = vmm_sys::vm_stat_desc {
            index,
            ..Default::default()
        };
        match platform::ioctl(self.device(), req::VM_STAT_DESC, &mut param) {
            Ok(()) => Ok(Some(platform::field_name(&param.desc))),
            Err(libc::EINVAL) => Ok(None),
            Err(errno) => {
                Err(self.error_of(req::VM_STAT_DESC, &format!("statistic {index}"), errno))
            }
        }
    }
}

fn time(tv: vmm_sys::timeval) -> Duration {
    let secs = u64::try_from(tv.tv_sec).unwrap_or(0);
    let micros = u64::try_from(tv.tv_usec).unwrap_or(0);
    Duration::from_secs(secs) + Duration::from_micros(micros)
}
