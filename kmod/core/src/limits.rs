//! What bounds the users of the module: hw.vmm.maxcpu and hw.vmm.maxvmms, as FreeBSD's
//! vmm(4) has them, and how much of the host's log they may fill.

use crate::ioctl::VM_MAXCPU;
use crate::types::Errno;

/// hw.vmm.maxcpu: how many vcpus a VM may have, for what the administrator wants. 0 is 1,
/// and what is above VM_MAXCPU is VM_MAXCPU; FreeBSD takes a negative number for a huge one.
pub fn max_vcpus(wanted: i64) -> u16 {
    match u16::try_from(wanted) {
        Ok(wanted) => wanted.clamp(1, VM_MAXCPU),
        Err(_) => VM_MAXCPU,
    }
}

/// Whom a VM is counted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payer {
    /// The creator's real user id.
    pub ruid: u32,
    /// It is the host's root, not that of a jail.
    pub host_root: bool,
}

/// hw.vmm.maxvmms: how many VMs a user may have at a time. The host's root is bound by what
/// the administrator sets, not by the default, because FreeBSD 15 binds nobody: a host with
/// more VMs than the default allows goes on as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmLimit {
    most: u32,
    set: bool,
}

impl VmLimit {
    /// FreeBSD's default, for each CPU of the host.
    const PER_CPU: u32 = 4;

    pub const fn new(ncpus: u32) -> Self {
        Self {
            most: ncpus.saturating_mul(Self::PER_CPU),
            set: false,
        }
    }

    pub const fn get(self) -> u32 {
        self.most
    }

    /// What the administrator wants; 0 is none at all. EINVAL for what is no unsigned int.
    pub fn set(&mut self, most: i64) -> Result<(), Errno> {
        self.most = u32::try_from(most).map_err(|_| Errno::EINVAL)?;
        self.set = true;
        Ok(())
    }

    /// May there be a VM of `creator`'s beside those that there are?
    pub fn admits(self, creator: Payer, others: impl Iterator<Item = Payer>) -> bool {
        // One that is not bound takes no place away from those who are.
        let counted = |other: &Payer| other.ruid == creator.ruid && self.binds(*other);
        !self.binds(creator) || others.filter(counted).count() < self.most as usize
    }

    const fn binds(self, payer: Payer) -> bool {
        self.set || !payer.host_root
    }
}

/// Lines that guests and unprivileged users cause must not flood the host's log: at most
/// [`LogLimit::LINES`] in a row, and then one per [`LogLimit::INTERVAL_NS`].
#[derive(Clone, Copy, Debug)]
pub struct LogLimit {
    /// Lines that may be printed now.
    credit: u32,
    /// Since when the credit has grown.
    since_ns: u64,
    /// Lines left out since the last one that was printed.
    left_out: u32,
}

impl LogLimit {
    /// Enough for one VM entry that fails, explained.
    pub const LINES: u32 = 40;
    pub const INTERVAL_NS: u64 = 500_000_000;

    pub const fn new() -> Self {
        Self {
            credit: Self::LINES,
            since_ns: 0,
            left_out: 0,
        }
    }

    /// Whether a line may be printed now; if so, how many were left out before it.
    pub fn admits(&mut self, now_ns: u64) -> Option<u32> {
        let grown = now_ns.saturating_sub(self.since_ns) / Self::INTERVAL_NS;
        if grown >= u64::from(Self::LINES - self.credit) {
            self.credit = Self::LINES;
            self.since_ns = now_ns;
        } else {
            // Less than LINES.
            self.credit += grown as u32;
            self.since_ns += grown * Self::INTERVAL_NS;
        }
        if self.credit == 0 {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.credit -= 1;
        Some(core::mem::take(&mut self.left_out))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxcpu() {
        assert_eq!(max_vcpus(0), 1);
        assert_eq!(max_vcpus(1), 1);
        assert_eq!(max_vcpus(8), 8);
        assert_eq!(max_vcpus(VM_MAXCPU.into()), VM_MAXCPU);
        assert_eq!(max_vcpus(i64::from(VM_MAXCPU) + 1), VM_MAXCPU);
        assert_eq!(max_vcpus(1 << 40), VM_MAXCPU);
        assert_eq!(max_vcpus(-1), VM_MAXCPU);
    }

    const USER: Payer = Payer {
        ruid: 1001,
        host_root: false,
    };
    const OTHER: Payer = Payer { ruid: 1002, ..USER };
    const ROOT: Payer = Payer {
        ruid: 0,
        host_root: true,
    };
    const JAILED_ROOT: Payer = Payer {
        ruid: 0,
        host_root: false,
    };

    fn admits(limit: VmLimit, creator: Payer, others: &[Payer]) -> bool {
        limit.admits(creator, others.iter().copied())
    }

    #[test]
    fn each_real_user_has_as_many_vms() {
        let limit = VmLimit::new(1);
        assert_eq!(limit.get(), 4);
        assert_eq!(VmLimit::new(2).get(), 8);
        assert!(admits(limit, USER, &[]));
        assert!(admits(limit, USER, &[USER, USER, USER]));
        assert!(!admits(limit, USER, &[USER, USER, USER, USER]));
        assert!(admits(limit, OTHER, &[USER, USER, USER, USER]));
        assert!(!admits(limit, OTHER, &[OTHER, USER, OTHER, OTHER, OTHER]));
    }

    #[test]
    fn the_hosts_root_is_bound_by_what_was_set() {
        let mut limit = VmLimit::new(1);
        assert!(admits(limit, ROOT, &[ROOT; 4]));
        assert!(!admits(limit, JAILED_ROOT, &[JAILED_ROOT; 4]));
        // root's own take no jail's places.
        assert!(admits(limit, JAILED_ROOT, &[ROOT; 4]));
        limit.set(2).unwrap();
        assert_eq!(limit.get(), 2);
        assert!(admits(limit, ROOT, &[ROOT]));
        assert!(!admits(limit, ROOT, &[ROOT; 2]));
        assert!(!admits(limit, JAILED_ROOT, &[ROOT; 2]));
        assert!(!admits(limit, USER, &[USER; 4]), "a limit that was lowered");
        assert!(admits(limit, USER, &[ROOT; 2]));
    }

    #[test]
    fn a_limit_of_0_and_what_is_no_limit() {
        let mut limit = VmLimit::new(1);
        assert_eq!(limit.set(-1), Err(Errno::EINVAL));
        assert_eq!(limit.set(1 << 32), Err(Errno::EINVAL));
        assert_eq!(limit, VmLimit::new(1));
        limit.set(0).unwrap();
        assert!(!admits(limit, ROOT, &[]));
        limit.set(u32::MAX.into()).unwrap();
        assert!(admits(limit, ROOT, &[ROOT; 100]));
    }

    #[test]
    fn the_log_is_not_flooded() {
        let mut log = LogLimit::new();
        let lines = |log: &mut LogLimit, at| (0..1000).filter_map(|_| log.admits(at)).count();
        assert_eq!(lines(&mut log, 5), 40);
        assert_eq!(lines(&mut log, LogLimit::INTERVAL_NS - 1), 0);
        assert_eq!(log.admits(LogLimit::INTERVAL_NS + 5), Some(960 + 1000));
        assert_eq!(log.admits(LogLimit::INTERVAL_NS + 5), None);
        assert_eq!(log.admits(2 * LogLimit::INTERVAL_NS + 5), Some(1));
        // Much later all of it is there again, and not more.
        assert_eq!(lines(&mut log, 1 << 60), 40);
        // A clock that goes back does no harm.
        assert_eq!(log.admits(0), None);
    }

    #[test]
    fn credit_grows_while_lines_are_rare() {
        let mut log = LogLimit::new();
        for second in 0..1000 {
            assert_eq!(log.admits(second * 1_000_000_000), Some(0));
        }
    }
}
