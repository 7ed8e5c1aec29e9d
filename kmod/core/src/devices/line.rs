//! An interrupt input that several devices share. Each that wants service asserts it and
//! deasserts it again, and the line is high while more have done the one than the other:
//! bhyve's way of a wired-or.

/// The line and how many hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// May become negative, as in FreeBSD: whoever deasserts first owes an assertion.
    holders: i32,
}

/// What a device does to its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    Assert,
    Deassert,
    /// Assert, then deassert: a single edge.
    Pulse,
}

impl Line {
    /// Nobody holds it.
    pub const LOW: Self = Self { holders: 0 };

    /// Whether anybody holds it.
    pub const fn is_high(self) -> bool {
        self.holders > 0
    }

    /// Drives it. True if there was a rising edge.
    pub fn drive(&mut self, drive: Drive) -> bool {
        match drive {
            Drive::Assert => {
                self.holders = self.holders.saturating_add(1);
                self.holders == 1
            }
            Drive::Deassert => {
                self.holders = self.holders.saturating_sub(1);
                false
            }
            Drive::Pulse => self.holders == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Drive::*, Line};

    #[test]
    fn the_first_of_several_holders_makes_the_edge_and_the_last_ends_the_level() {
        let mut line = Line::LOW;
        assert!(line.drive(Assert));
        assert!(!line.drive(Assert));
        assert!(!line.drive(Deassert));
        assert!(line.is_high());
        assert!(!line.drive(Deassert));
        assert!(!line.is_high());
        assert!(line.drive(Assert));
    }

    #[test]
    fn a_pulse_is_an_edge_only_on_a_line_that_nobody_holds() {
        let mut line = Line::LOW;
        assert!(line.drive(Pulse));
        assert!(!line.is_high());
        line.drive(Assert);
        assert!(!line.drive(Pulse));
        assert!(line.is_high());
    }

    #[test]
    fn a_deassertion_too_many_costs_the_next_assertion() {
        let mut line = Line::LOW;
        line.drive(Deassert);
        assert!(!line.drive(Pulse));
        assert!(!line.drive(Assert));
        assert!(!line.is_high());
        assert!(line.drive(Assert));
    }
}
