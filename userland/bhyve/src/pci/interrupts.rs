//! The interrupts of one function, as its device uses them: a handle that can be cloned
//! into any thread. The guest chooses among MSI-X, MSI and INTx by configuration space;
//! INTx is silent while one of the others is on (PCI Local Bus 3.0, 6.8).

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::intx::Intx;
use super::msi::Msi;
use super::msix::Msix;
use crate::ports::Width;

/// A message-signalled interrupt: a write of `data` to `address` (6.8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    pub address: u64,
    pub data: u32,
}

/// The interrupt hardware of the VM, which is in the kernel.
pub trait InterruptController: Send + Sync {
    /// Delivers a message-signalled interrupt.
    fn message(&self, message: Message);
    /// Moves the I/O APIC's pin.
    fn ioapic(&self, pin: u8, asserted: bool);
    /// Moves an interrupt of the 8259s, and the I/O APIC's pin with it if one is given.
    fn isa(&self, irq: u8, ioapic_pin: Option<u8>, asserted: bool);
    /// Makes an interrupt of the 8259s level-triggered.
    fn level_triggered(&self, irq: u8);
}

/// What the guest has set up, and what waits.
pub(super) struct State {
    pub msi: Option<Msi>,
    pub msix: Option<Msix>,
    pub intx: Intx,
}

/// The handle.
#[derive(Clone)]
pub struct Interrupts {
    state: Arc<Mutex<State>>,
    controller: Arc<dyn InterruptController>,
}

impl Interrupts {
    /// Those of a function that has none yet; its description adds them.
    pub fn new(controller: Arc<dyn InterruptController>) -> Self {
        let state = State {
            msi: None,
            msix: None,
            intx: Intx::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            controller,
        }
    }

    /// Whether the guest uses MSI-X.
    pub fn msix_enabled(&self) -> bool {
        self.state().msix_enabled()
    }

    /// Whether the guest uses MSI.
    pub fn msi_enabled(&self) -> bool {
        self.state().msi_enabled()
    }

    /// How many MSI messages the guest allows; none while MSI is off.
    pub fn msi_messages(&self) -> u8 {
        self.state().msi.as_ref().map_or(0, Msi::messages)
    }

    /// Sends an MSI-X vector, or marks it pending while it is masked. Nothing if MSI-X is
    /// off or the table is shorter.
    pub fn send_msix(&self, vector: u16) {
        let mut state = self.state();
        if !state.msix_enabled() {
            return;
        }
        let message = state.msix.as_mut().and_then(|msix| msix.raise(vector));
        drop(state);
        if let Some(message) = message {
            self.controller.message(message);
        }
    }

    /// Sends an MSI message. One beyond those that the guest allowed is not sent, nor is
    /// any if MSI is off.
    pub fn send_msi(&self, number: u8) {
        let message = self.state().msi.as_ref().and_then(|msi| msi.raise(number));
        if let Some(message) = message {
            self.controller.message(message);
        }
    }

    /// Raises the function's interrupt pin, until [`Interrupts::deassert_intx`].
    pub fn assert_intx(&self) {
        self.with_intx(|intx| intx.wanted = true);
    }

    /// Lowers the function's interrupt pin.
    pub fn deassert_intx(&self) {
        self.with_intx(|intx| intx.wanted = false);
    }
}

/// What the bus does with them.
impl Interrupts {
    /// Changes the state by configuration space, and sends what thereby can be sent.
    pub(super) fn configure(&self, change: impl FnOnce(&mut State) -> Vec<Message>) {
        let mut state = self.state();
        let messages = change(&mut state);
        state.update_intx();
        drop(state);
        messages
            .into_iter()
            .for_each(|message| self.controller.message(message));
    }

    /// Looks at the state.
    pub(super) fn inspect<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    /// Reads the MSI-X table or the pending bits.
    pub(super) fn msix_read(&self, offset: u64, width: Width) -> u32 {
        let state = self.state();
        state
            .msix
            .as_ref()
            .map_or(u32::MAX, |msix| msix.bar_read(offset, width))
    }

    /// Writes the MSI-X table.
    pub(super) fn msix_write(&self, offset: u64, width: Width, value: u32) {
        self.configure(|state| {
            let msix = state.msix.as_mut();
            let message = msix.and_then(|msix| msix.bar_write(offset, width, value));
            message.into_iter().collect()
        });
    }

    fn with_intx(&self, change: impl FnOnce(&mut Intx)) {
        let mut state = self.state();
        change(&mut state.intx);
        // Under the lock, so that levels reach the router in order.
        state.update_intx();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn msi_enabled(&self) -> bool {
        self.msi.as_ref().is_some_and(Msi::enabled)
    }

    /// MSI wins where the guest enables both, which it must not.
    fn msix_enabled(&self) -> bool {
        self.msix.as_ref().is_some_and(Msix::enabled) && !self.msi_enabled()
    }

    fn update_intx(&mut self) {
        let messages_in_use = self.msi_enabled() || self.msix.as_ref().is_some_and(Msix::enabled);
        self.intx.update(messages_in_use);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Notes what reaches the hardware.
    #[derive(Default)]
    pub struct Recorder {
        pub messages: Mutex<Vec<Message>>,
        /// (pin, level).
        pub ioapic: Mutex<Vec<(u8, bool)>>,
        /// (irq, pin, level).
        pub isa: Mutex<Vec<(u8, Option<u8>, bool)>>,
        pub level: Mutex<Vec<u8>>,
    }

    impl InterruptController for Recorder {
        fn message(&self, message: Message) {
            self.messages.lock().unwrap().push(message);
        }
        fn ioapic(&self, pin: u8, asserted: bool) {
            self.ioapic.lock().unwrap().push((pin, asserted));
        }
        fn isa(&self, irq: u8, ioapic_pin: Option<u8>, asserted: bool) {
            self.isa.lock().unwrap().push((irq, ioapic_pin, asserted));
        }
        fn level_triggered(&self, irq: u8) {
            self.level.lock().unwrap().push(irq);
        }
    }

    fn with_all(recorder: &Arc<Recorder>) -> Interrupts {
        let interrupts = Interrupts::new(recorder.clone());
        let pin = recorder.clone();
        interrupts.configure(|state| {
            state.msi = Some(Msi::new(2));
            state.msix = Some(Msix::new(1, 2));
            state
                .intx
                .connect(Box::new(move |level| pin.ioapic(17, level)));
            Vec::new()
        });
        interrupts
    }

    fn enable_msi(interrupts: &Interrupts, on: bool) {
        interrupts.configure(|state| {
            state.msi.as_mut().unwrap().write(0, u8::from(on));
            Vec::new()
        });
    }

    #[test]
    fn the_pin_is_silent_while_messages_are_in_use() {
        let recorder = Arc::new(Recorder::default());
        let interrupts = with_all(&recorder);
        interrupts.assert_intx();
        interrupts.assert_intx();
        assert_eq!(*recorder.ioapic.lock().unwrap(), [(17, true)]);
        enable_msi(&interrupts, true);
        enable_msi(&interrupts, false);
        assert_eq!(
            *recorder.ioapic.lock().unwrap(),
            [(17, true), (17, false), (17, true)],
            "what the device wants is not forgotten"
        );
        enable_msi(&interrupts, true);
        interrupts.deassert_intx();
        enable_msi(&interrupts, false);
        assert_eq!(recorder.ioapic.lock().unwrap().len(), 4);
    }

    #[test]
    fn interrupt_disable_holds_the_pin_down() {
        let recorder = Arc::new(Recorder::default());
        let interrupts = with_all(&recorder);
        let disable = |on| {
            interrupts.configure(|state| {
                state.intx.disabled = on;
                Vec::new()
            })
        };
        disable(true);
        interrupts.assert_intx();
        assert!(recorder.ioapic.lock().unwrap().is_empty());
        assert!(interrupts.inspect(|state| state.intx.status()));
        disable(false);
        assert_eq!(*recorder.ioapic.lock().unwrap(), [(17, true)]);
    }

    #[test]
    fn msi_wins_over_msix_and_neither_is_sent_while_off() {
        let recorder = Arc::new(Recorder::default());
        let interrupts = with_all(&recorder);
        let sent = || recorder.messages.lock().unwrap().len();
        interrupts.configure(|state| {
            let msix = state.msix.as_mut().unwrap();
            msix.bar_write(12, Width::Dword, 0);
            Vec::new()
        });
        interrupts.send_msi(0);
        interrupts.send_msix(0);
        assert_eq!(sent(), 0);
        interrupts.configure(|state| state.msix.as_mut().unwrap().write(1, 0x80));
        assert!(interrupts.msix_enabled());
        interrupts.send_msix(0);
        assert_eq!(sent(), 1);
        enable_msi(&interrupts, true);
        assert!(interrupts.msi_enabled() && !interrupts.msix_enabled());
        interrupts.send_msix(0);
        assert_eq!(sent(), 1);
        interrupts.send_msi(0);
        assert_eq!(sent(), 2);
    }
}
