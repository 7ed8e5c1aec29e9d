//! Who may use a vcpu at the moment: IDLE, FROZEN, RUNNING, SLEEPING, as in bhyve's vmm.
//!
//! An ioctl takes a vcpu from IDLE to FROZEN and has it for itself; VM_RUN then moves it
//! between FROZEN and RUNNING (in the guest, on a host CPU) or SLEEPING (in HLT, say), and
//! back to IDLE when the ioctl ends. No other move exists:
//!
//! ```text
//! IDLE <-> FROZEN <-> RUNNING
//!             ^
//!             +-----> SLEEPING -> FROZEN
//! ```

use core::fmt;

use crate::types::{Errno, HostCpu};

/// The state itself. The vcpu's spin lock protects it; sleeping until a vcpu is IDLE, and
/// waking those who wait for that, is its owner's job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VcpuState {
    /// Nobody uses it.
    #[default]
    Idle,
    /// One ioctl has it, outside the guest.
    Frozen,
    /// In the guest, or about to be, on that CPU; kicking that CPU makes it exit.
    Running(HostCpu),
    /// Its thread sleeps in the kernel on the guest's behalf.
    Sleeping,
}

/// Why a move is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransitionError {
    /// The caller wants it from IDLE and somebody has it: ask for it (reqidle, then kick
    /// its CPU), wait until it is IDLE, and try again.
    NotIdle,
    /// Not one of the moves above: a bug of the caller.
    Illegal { from: VcpuState, to: VcpuState },
}

impl VcpuState {
    /// Takes a vcpu that nobody uses, for an ioctl (IDLE to FROZEN).
    pub fn freeze(&mut self) -> Result<(), TransitionError> {
        match *self {
            Self::Idle => {
                *self = Self::Frozen;
                Ok(())
            }
            _ => Err(TransitionError::NotIdle),
        }
    }

    /// Any other move, by whoever has the vcpu.
    pub fn set(&mut self, to: Self) -> Result<(), TransitionError> {
        match (*self, to) {
            (Self::Running(_) | Self::Sleeping, Self::Frozen)
            | (Self::Frozen, Self::Idle | Self::Running(_) | Self::Sleeping) => {
                *self = to;
                Ok(())
            }
            (from, to) => Err(TransitionError::Illegal { from, to }),
        }
    }

    /// Where it runs, while it is RUNNING.
    pub const fn host_cpu(self) -> Option<HostCpu> {
        match self {
            Self::Running(cpu) => Some(cpu),
            Self::Idle | Self::Frozen | Self::Sleeping => None,
        }
    }
}

impl From<TransitionError> for Errno {
    fn from(_: TransitionError) -> Self {
        Self::EBUSY
    }
}

impl fmt::Display for TransitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotIdle => f.write_str("the vcpu is in use"),
            Self::Illegal { from, to } => {
                write!(f, "a vcpu can't go from {from:?} to {to:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: HostCpu = HostCpu(3);
    const ALL: [VcpuState; 4] = [
        VcpuState::Idle,
        VcpuState::Frozen,
        VcpuState::Running(CPU),
        VcpuState::Sleeping,
    ];

    #[test]
    fn the_life_of_a_run() {
        let mut state = VcpuState::default();
        state.freeze().unwrap();
        state.set(VcpuState::Running(CPU)).unwrap();
        assert_eq!(state.host_cpu(), Some(CPU));
        state.set(VcpuState::Frozen).unwrap();
        assert_eq!(state.host_cpu(), None);
        state.set(VcpuState::Sleeping).unwrap();
        state.set(VcpuState::Frozen).unwrap();
        state.set(VcpuState::Idle).unwrap();
        assert_eq!(state, VcpuState::Idle);
    }

    #[test]
    fn only_an_idle_vcpu_can_be_taken() {
        for from in ALL {
            let mut state = from;
            let taken = state.freeze();
            if from == VcpuState::Idle {
                assert_eq!(taken, Ok(()));
                assert_eq!(state, VcpuState::Frozen);
            } else {
                assert_eq!(taken, Err(TransitionError::NotIdle));
                assert_eq!(state, from);
            }
        }
    }

    #[test]
    fn every_other_move_is_refused_and_changes_nothing() {
        let legal = [
            (VcpuState::Frozen, VcpuState::Idle),
            (VcpuState::Frozen, VcpuState::Running(CPU)),
            (VcpuState::Frozen, VcpuState::Sleeping),
            (VcpuState::Running(CPU), VcpuState::Frozen),
            (VcpuState::Sleeping, VcpuState::Frozen),
        ];
        for from in ALL {
            for to in ALL {
                let mut state = from;
                let moved = state.set(to);
                if legal.contains(&(from, to)) {
                    assert_eq!((moved, state), (Ok(()), to));
                } else {
                    assert_eq!(moved, Err(TransitionError::Illegal { from, to }));
                    assert_eq!(state, from);
                    assert_eq!(Errno::from(moved.unwrap_err()), Errno::EBUSY);
                }
            }
        }
    }

    #[test]
    fn a_running_vcpu_does_not_change_cpu_without_freezing() {
        let mut state = VcpuState::Running(CPU);
        assert!(state.set(VcpuState::Running(HostCpu(0))).is_err());
        assert_eq!(state.host_cpu(), Some(CPU));
    }
}
