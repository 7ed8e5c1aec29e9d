//! The PCI interrupt router: eight inputs (PIRQA to PIRQH), each with a register that says
//! which interrupt of the 8259s it drives, as in the ICH's LPC bridge (ICH10 datasheet,
//! 13.1.17: PIRQ[n]_ROUT). Beside it each interrupt pin is wired to a pin of the I/O APIC.
//! Which wires those are is decided at start, in bhyve's order, and then told to the guest
//! by the firmware's tables.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::interrupts::InterruptController;

/// Inputs of the router.
pub const PIRQS: u8 = 8;
/// I/O APIC pins that belong to the ISA bus.
const ISA_PINS: u8 = 16;
const IRQS: u8 = 16;
/// 3 to 7, 9 to 12, 14 and 15: what a PCI interrupt may be.
const PERMITTED_IRQS: u16 = 0xdef8;

const DISABLED: u8 = 1 << 7;
const IRQ: u8 = 0x0f;

/// Where an interrupt pin of a slot goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// 0 is PIRQA.
    pub pirq: u8,
    /// `None`: the I/O APIC has no pins for PCI, or there is none.
    pub ioapic_pin: Option<u8>,
}

/// Which interrupts of the 8259s PCI may use: bit n is interrupt n.
pub const fn permitted_irqs() -> u16 {
    PERMITTED_IRQS
}

#[derive(Clone, Copy)]
struct Pirq {
    register: u8,
    /// Interrupt pins wired to it.
    users: u32,
    /// Those of them that are asserted.
    active: u32,
}

struct State {
    pirqs: [Pirq; PIRQS as usize],
    /// Users of each interrupt; `None`: not for PCI.
    irqs: [Option<u32>; IRQS as usize],
    next_pin: u8,
}

/// The router.
pub struct PirqRouter {
    controller: Arc<dyn InterruptController>,
    /// I/O APIC pins for PCI.
    pci_pins: u8,
    state: Mutex<State>,
}

impl Pirq {
    /// The interrupt that it drives, if it drives one that it may.
    fn irq(self) -> Option<u8> {
        let irq = self.register & IRQ;
        (self.register & DISABLED == 0 && PERMITTED_IRQS >> irq & 1 != 0).then_some(irq)
    }
}

impl PirqRouter {
    /// With all inputs disabled. `ioapic_pins` is how many the I/O APIC has, 0 for none.
    pub fn new(controller: Arc<dyn InterruptController>, ioapic_pins: u8) -> Self {
        let disabled = Pirq {
            register: DISABLED,
            users: 0,
            active: 0,
        };
        let mut irqs = [None; IRQS as usize];
        for (irq, users) in irqs.iter_mut().enumerate() {
            *users = (PERMITTED_IRQS >> irq & 1 != 0).then_some(0);
        }
        Self {
            controller,
            pci_pins: ioapic_pins.saturating_sub(ISA_PINS),
            state: Mutex::new(State {
                pirqs: [disabled; PIRQS as usize],
                irqs,
                next_pin: 0,
            }),
        }
    }

    /// Takes an interrupt away from PCI: an edge-triggered device of the ISA bus has it.
    pub fn reserve(&self, irq: u8) {
        if let Some(users) = self.state().irqs.get_mut(usize::from(irq)) {
            *users = None;
        }
    }

    /// Counts a level-triggered user from outside PCI, which shares the interrupt.
    pub fn share(&self, irq: u8) {
        if let Some(Some(users)) = self.state().irqs.get_mut(usize::from(irq)) {
            *users += 1;
        }
    }

    /// Wires one more interrupt pin: to the I/O APIC's pins in turn, and to the input with
    /// the fewest users. An input that is still disabled gets the interrupt with the
    /// fewest users.
    pub fn route(&self) -> Route {
        let mut state = self.state();
        let ioapic_pin = state.next_pin.checked_rem(self.pci_pins).map(|pin| {
            state.next_pin = (pin + 1) % self.pci_pins;
            ISA_PINS + pin
        });
        let pirq = least(state.pirqs.iter().map(|pirq| Some(pirq.users)));
        let pirq = pirq.unwrap_or(0);
        state.pirqs[usize::from(pirq)].users += 1;
        if state.pirqs[usize::from(pirq)].register == DISABLED {
            if let Some(irq) = least(state.irqs.iter().copied()) {
                state.pirqs[usize::from(pirq)].register = irq;
                if let Some(users) = &mut state.irqs[usize::from(irq)] {
                    *users += 1;
                }
                self.controller.level_triggered(irq);
            }
        }
        Route { pirq, ioapic_pin }
    }

    /// The register of an input.
    pub fn read(&self, pirq: u8) -> u8 {
        let state = self.state();
        let pirq = state.pirqs.get(usize::from(pirq));
        pirq.map_or(DISABLED, |pirq| pirq.register)
    }

    /// The guest moves an input to another interrupt. One that is active moves along.
    pub fn write(&self, pirq: u8, value: u8) {
        let mut state = self.state();
        let Some(pirq) = state.pirqs.get_mut(usize::from(pirq)) else {
            return;
        };
        let before = *pirq;
        pirq.register = value & (DISABLED | IRQ);
        if pirq.active == 0 || pirq.register == before.register {
            return;
        }
        if let Some(irq) = before.irq() {
            self.controller.isa(irq, None, false);
        }
        if let Some(irq) = pirq.irq() {
            self.controller.isa(irq, None, true);
        }
    }

    /// What the interrupt line register of a function says that is wired so.
    pub fn interrupt_line(&self, route: Route) -> u8 {
        self.read(route.pirq) & IRQ
    }

    /// An interrupt pin that is wired so changes its level.
    pub fn set(&self, route: Route, asserted: bool) {
        let mut state = self.state();
        let Some(pirq) = state.pirqs.get_mut(usize::from(route.pirq)) else {
            return;
        };
        let edge = if asserted {
            pirq.active += 1;
            pirq.active == 1
        } else {
            pirq.active = pirq.active.saturating_sub(1);
            pirq.active == 0
        };
        match (pirq.irq().filter(|_| edge), route.ioapic_pin) {
            (Some(irq), pin) => self.controller.isa(irq, pin, asserted),
            (None, Some(pin)) => self.controller.ioapic(pin, asserted),
            (None, None) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first one with the lowest count.
fn least(counts: impl Iterator<Item = Option<u32>>) -> Option<u8> {
    let counted = counts.zip(0..).filter_map(|(count, n)| Some((count?, n)));
    counted.min().map(|(_, n)| n)
}

#[cfg(test)]
mod tests {
    use super::super::interrupts::tests::Recorder;
    use super::*;

    fn router(pins: u8) -> (PirqRouter, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        (PirqRouter::new(recorder.clone(), pins), recorder)
    }

    #[test]
    fn pins_are_spread_over_inputs_interrupts_and_the_io_apic() {
        let (router, recorder) = router(32);
        router.reserve(4);
        router.reserve(3);
        router.share(9);
        let routes: Vec<Route> = (0..10).map(|_| router.route()).collect();
        let pirqs: Vec<u8> = routes.iter().map(|route| route.pirq).collect();
        assert_eq!(pirqs, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]);
        let pins: Vec<u8> = routes.iter().filter_map(|route| route.ioapic_pin).collect();
        assert_eq!(pins, (16..26).collect::<Vec<u8>>());
        let irqs: Vec<u8> = (0..PIRQS).map(|pirq| router.read(pirq)).collect();
        assert_eq!(irqs, [5, 6, 7, 10, 11, 12, 14, 15]);
        assert_eq!(*recorder.level.lock().unwrap(), irqs);
        assert_eq!(router.interrupt_line(routes[9]), 6);
    }

    #[test]
    fn io_apic_pins_start_over_and_may_be_missing() {
        let (some, _) = router(18);
        let pins: Vec<_> = (0..3).map(|_| some.route().ioapic_pin).collect();
        assert_eq!(pins, [Some(16), Some(17), Some(16)]);
        let (none, _) = router(16);
        assert_eq!(none.route().ioapic_pin, None);
    }

    #[test]
    fn a_shared_input_is_a_wired_or() {
        let (router, recorder) = router(24);
        let a = router.route();
        let b = Route {
            pirq: a.pirq,
            ioapic_pin: Some(20),
        };
        router.set(a, true);
        router.set(b, true);
        router.set(a, false);
        router.set(b, false);
        let irq = router.read(a.pirq);
        let isa = [(irq, Some(16), true), (irq, Some(20), false)];
        assert_eq!(*recorder.isa.lock().unwrap(), isa);
        assert_eq!(*recorder.ioapic.lock().unwrap(), [(20, true), (16, false)]);
    }

    #[test]
    fn an_active_input_moves_to_its_new_interrupt() {
        let (router, recorder) = router(24);
        let route = router.route();
        router.set(route, true);
        router.write(route.pirq, 11);
        router.write(route.pirq, 11);
        router.write(route.pirq, 2);
        assert_eq!(router.read(route.pirq), 2);
        router.set(route, false);
        let isa = [
            (3, Some(16), true),
            (3, None, false),
            (11, None, true),
            (11, None, false),
        ];
        assert_eq!(*recorder.isa.lock().unwrap(), isa);
        assert_eq!(*recorder.ioapic.lock().unwrap(), [(16, false)]);
        router.write(route.pirq, 0xff);
        assert_eq!(router.read(route.pirq), 0x8f);
        router.write(200, 3);
        assert_eq!(router.read(200), DISABLED);
    }
}
