//! PAUSE-loop exiting (SDM vol. 3C, 25.6.13 and 26.1.3): a guest at CPL 0 that executes PAUSE
//! again and again exits after a while, so that its thread can let others have the CPU. What
//! it spins for is often another vcpu of its VM, one that holds a spin lock or has to answer
//! an IPI, and if that one's thread waits for this CPU, spinning on is a waste.
//!
//! How long a while is adapts itself. When somebody did want the CPU the guest may spin for
//! the shortest time again; when nobody did, twice as long as before.

/// When a loop around PAUSE exits, in ticks of the TSC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpinLimit {
    /// PAUSEs of one loop are at most this far apart (PLE_GAP).
    pub gap: u32,
    /// How long it lasts at the least before it exits (PLE_WINDOW).
    pub window: u32,
}

impl SpinLimit {
    /// The gap is what Intel suggests.
    pub const fn new(window: u32) -> Self {
        Self { gap: 128, window }
    }
}

/// The window grows up to this many times its least size. Other exits, of which the host's timer
/// makes a thousand a second, end a loop for the CPU: a longer one would never be one.
const MOST: u32 = 16;

/// If a thread comes back to its CPU after more windows than this, others have had it
/// meanwhile. It takes one or two to leave the guest and to find that nobody wants the CPU.
const OTHERS_RAN: u64 = 8;

/// A vcpu's window as it is now.
#[derive(Clone, Copy, Debug)]
pub struct SpinWindow {
    limit: SpinLimit,
    now: u32,
    /// When it exited, if it hasn't been entered since.
    exited: Option<u64>,
}

impl SpinWindow {
    pub const fn new(limit: SpinLimit) -> Self {
        Self {
            limit,
            now: limit.window,
            exited: None,
        }
    }

    /// In the VMCS.
    pub const fn limit(&self) -> SpinLimit {
        SpinLimit {
            gap: self.limit.gap,
            window: self.now,
        }
    }

    /// The guest has exited for its loop; `tsc` is the host's.
    pub fn exited(&mut self, tsc: u64) {
        self.exited = Some(tsc);
    }

    /// The guest is about to be entered. The new window, if it changes.
    pub fn entering(&mut self, tsc: u64) -> Option<u32> {
        let away = tsc.wrapping_sub(self.exited.take()?);
        let least = self.limit.window;
        let window = if away > u64::from(least) * OTHERS_RAN {
            least
        } else {
            self.now.saturating_mul(2).min(least.saturating_mul(MOST))
        };
        (window != self.now).then(|| {
            self.now = window;
            window
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u32 = 4096;

    #[test]
    fn test_window_without_others_doubles_up_to_its_limit() {
        let mut spin = SpinWindow::new(SpinLimit::new(LEAST));
        for doublings in 1..=4 {
            spin.exited(1000);
            assert_eq!(spin.entering(4000), Some(LEAST << doublings));
        }
        spin.exited(5000);
        assert_eq!(spin.entering(9000), None);
        assert_eq!(spin.limit().window, LEAST * MOST);
    }

    #[test]
    fn test_window_after_others_had_the_cpu_is_the_shortest() {
        let mut spin = SpinWindow::new(SpinLimit::new(LEAST));
        spin.exited(0);
        spin.entering(100);
        // Also where the counter wraps.
        spin.exited(u64::MAX - 10);
        assert_eq!(spin.entering(1_000_000), Some(LEAST));
        spin.exited(0);
        assert_eq!(spin.entering(1_000_000), None);
    }

    #[test]
    fn test_window_of_a_guest_that_left_for_something_else_stays() {
        let mut spin = SpinWindow::new(SpinLimit::new(LEAST));
        assert_eq!(spin.entering(1_000_000), None);
        spin.exited(0);
        spin.entering(100);
        assert_eq!(spin.entering(200), None);
        assert_eq!(
            spin.limit(),
            SpinLimit {
                gap: 128,
                window: 2 * LEAST
            }
        );
    }

    #[test]
    fn test_window_of_any_size_does_not_overflow() {
        let mut spin = SpinWindow::new(SpinLimit::new(u32::MAX));
        spin.exited(0);
        assert_eq!(spin.entering(1), None);
        assert_eq!(spin.limit().window, u32::MAX);
    }
}
