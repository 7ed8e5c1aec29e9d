//! What the chipset's tests connect it to: [`Wires`] that note what they are told.

use alloc::vec::Vec;

use super::{ApicMessage, Wires};

/// What came out.
#[derive(Default)]
pub struct Recorder {
    pub messages: Vec<ApicMessage>,
    /// The levels of INTR, one for each change.
    pub intr: Vec<bool>,
}

impl Recorder {
    /// The messages since the last call.
    pub fn take(&mut self) -> Vec<ApicMessage> {
        core::mem::take(&mut self.messages)
    }

    /// The vectors of the messages since the last call.
    pub fn vectors(&mut self) -> Vec<u8> {
        self.take().iter().map(|message| message.vector.0).collect()
    }
}

impl Wires for Recorder {
    fn message(&mut self, message: ApicMessage) {
        self.messages.push(message);
    }

    fn pic_intr(&mut self, high: bool) {
        self.intr.push(high);
    }
}
