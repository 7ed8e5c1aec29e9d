//! INTx, the interrupt pin of a function (PCI Local Bus 3.0, 2.2.6): a level that the
//! device wants, and that goes out unless the guest has disabled it or uses messages.

#![forbid(unsafe_code)]

/// Where the level goes: the interrupt router.
pub type Line = Box<dyn Fn(bool) + Send>;

/// The pin.
#[derive(Default)]
pub struct Intx {
    /// The level that the device wants.
    pub wanted: bool,
    /// Interrupt Disable of the command register.
    pub disabled: bool,
    /// What the router has been told.
    asserted: bool,
    line: Option<Line>,
}

impl Intx {
    /// Connects the pin.
    pub fn connect(&mut self, line: Line) {
        self.line = Some(line);
    }

    /// Tells the router if what it should see has changed.
    pub fn update(&mut self, messages_in_use: bool) {
        let asserted = self.wanted && !self.disabled && !messages_in_use;
        if asserted != self.asserted {
            if let Some(line) = &self.line {
                self.asserted = asserted;
                line(asserted);
            }
        }
    }

    /// Interrupt Status of the status register (6.2.3): the device's wish, whether or not
    /// it is disabled.
    pub fn status(&self) -> bool {
        self.wanted
    }
}
