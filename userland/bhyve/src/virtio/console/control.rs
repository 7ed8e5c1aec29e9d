//! What driver and device tell each other about ports (virtio 1.2, 5.3.6.2): which ports
//! there are, and whether somebody is at their ends. No message waits in a list: each port
//! knows what its driver has to hear, so that a driver that talks all the time and never
//! listens makes nothing grow.

#![forbid(unsafe_code)]

/// Bytes of a message without a name.
pub const MESSAGE_LEN: usize = 8;

/// What messages are about.
pub mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const PORT_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The port's number.
    pub id: u32,
    pub event: u16,
    pub value: u16,
}

impl Message {
    pub fn from_bytes(bytes: [u8; MESSAGE_LEN]) -> Self {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = bytes;
        Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            event: u16::from_le_bytes([e0, e1]),
            value: u16::from_le_bytes([v0, v1]),
        }
    }

    pub fn to_bytes(self) -> [u8; MESSAGE_LEN] {
        let [i0, i1, i2, i3] = self.id.to_le_bytes();
        let [e0, e1] = self.event.to_le_bytes();
        let [v0, v1] = self.value.to_le_bytes();
        [i0, i1, i2, i3, e0, e1, v0, v1]
    }
}

/// A port, as the messages are about it.
#[derive(Clone, Debug)]
pub struct PortTalk {
    number: usize,
    name: String,
    console: bool,
    /// Somebody is at the host's end.
    host_open: bool,
    /// What the driver has said.
    ready: bool,
    guest_open: bool,
    /// What it has heard, and has to hear.
    told_open: bool,
    tell: Tell,
}

#[derive(Clone, Copy, Default, Debug)]
struct Tell {
    add: bool,
    console: bool,
    name: bool,
    /// That the one at the host's end has left, even if there is another one now.
    closed: bool,
}

impl PortTalk {
    pub fn new(number: usize, name: &str, console: bool) -> Self {
        Self {
            number,
            name: name.to_owned(),
            console,
            host_open: false,
            ready: false,
            guest_open: false,
            told_open: false,
            tell: Tell::default(),
        }
    }

    /// Another driver comes.
    pub fn reset(&mut self) {
        *self = Self {
            host_open: self.host_open,
            ..Self::new(self.number, &self.name, self.console)
        };
    }

    /// Whether somebody in the guest reads what comes.
    pub fn guest_open(&self) -> bool {
        self.guest_open
    }

    /// Somebody comes to the host's end, or leaves it.
    pub fn set_host_open(&mut self, open: bool) {
        if !open && self.told_open {
            self.tell.closed = true;
        }
        self.host_open = open;
    }

    /// What the driver says.
    pub fn hear(&mut self, message: Message) {
        if message.event == event::DEVICE_READY {
            self.tell.add |= message.value == 1;
        }
        if message.id as usize != self.number {
            return;
        }
        match message.event {
            event::PORT_READY => {
                self.ready = message.value == 1;
                self.told_open = false;
                self.tell = Tell {
                    add: self.tell.add,
                    console: self.console,
                    name: true,
                    closed: false,
                };
            }
            event::PORT_OPEN => self.guest_open = message.value != 0,
            _ => {}
        }
    }

    /// The next message for the driver, for which there is room now, so that it counts as
    /// told. There is none of the window's size: it never changes.
    pub fn tell(&mut self) -> Option<Vec<u8>> {
        let (event, value) = self.next_event()?;
        let message = Message {
            id: self.number as u32,
            event,
            value,
        };
        let mut bytes = message.to_bytes().to_vec();
        if event == event::PORT_NAME {
            bytes.extend_from_slice(self.name.as_bytes());
        }
        Some(bytes)
    }

    fn next_event(&mut self) -> Option<(u16, u16)> {
        if std::mem::take(&mut self.tell.add) {
            return Some((event::PORT_ADD, 1));
        }
        if !self.ready {
            return None;
        }
        if std::mem::take(&mut self.tell.console) {
            return Some((event::CONSOLE_PORT, 1));
        }
        if std::mem::take(&mut self.tell.name) {
            return Some((event::PORT_NAME, 1));
        }
        if std::mem::take(&mut self.tell.closed) {
            self.told_open = false;
            return Some((event::PORT_OPEN, 0));
        }
        if self.host_open && !self.told_open {
            self.told_open = true;
            return Some((event::PORT_OPEN, 1));
        }
        None
    }

    /// Whether [`PortTalk::tell`] has something to say.
    pub fn has_news(&self) -> bool {
        self.clone().next_event().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(id: u32, event: u16, value: u16) -> Message {
        Message { id, event, value }
    }

    /// All that it has to say: (event, value).
    fn told(port: &mut PortTalk) -> Vec<(u16, u16)> {
        let mut all = Vec::new();
        while let Some(bytes) = port.tell() {
            let head = Message::from_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(head.id as usize, port.number);
            let named = head.event == event::PORT_NAME;
            assert_eq!(&bytes[8..], if named { &b"name"[..] } else { b"" });
            all.push((head.event, head.value));
        }
        assert!(!port.has_news());
        all
    }

    #[test]
    fn a_port_is_added_then_named_then_opened() {
        let mut port = PortTalk::new(3, "name", true);
        port.set_host_open(true);
        assert_eq!(told(&mut port), []);
        port.hear(message(0, event::DEVICE_READY, 1));
        assert_eq!(told(&mut port), [(event::PORT_ADD, 1)]);
        port.hear(message(2, event::PORT_READY, 1));
        port.hear(message(2, event::PORT_OPEN, 1));
        assert_eq!(told(&mut port), []);
        assert!(!port.guest_open(), "another port");
        port.hear(message(3, event::PORT_READY, 1));
        assert_eq!(
            told(&mut port),
            [
                (event::CONSOLE_PORT, 1),
                (event::PORT_NAME, 1),
                (event::PORT_OPEN, 1)
            ]
        );
        port.hear(message(3, event::PORT_OPEN, 1));
        assert!(port.guest_open());
        port.set_host_open(false);
        assert_eq!(told(&mut port), [(event::PORT_OPEN, 0)]);
        port.hear(message(3, event::PORT_OPEN, 0));
        assert!(!port.guest_open());
    }

    #[test]
    fn one_who_leaves_is_told_of_before_the_next_one() {
        let mut port = PortTalk::new(0, "name", false);
        port.hear(message(0, event::PORT_READY, 1));
        port.set_host_open(true);
        assert_eq!(
            told(&mut port),
            [(event::PORT_NAME, 1), (event::PORT_OPEN, 1)]
        );
        port.set_host_open(false);
        port.set_host_open(true);
        assert_eq!(
            told(&mut port),
            [(event::PORT_OPEN, 0), (event::PORT_OPEN, 1)]
        );
        port.set_host_open(false);
        port.set_host_open(true);
        port.set_host_open(false);
        assert_eq!(told(&mut port), [(event::PORT_OPEN, 0)]);
        port.set_host_open(true);
        port.set_host_open(false);
        assert_eq!(told(&mut port), [], "nobody knew that it was open");
    }

    #[test]
    fn another_driver_hears_all_of_it_again() {
        let mut port = PortTalk::new(0, "name", false);
        port.set_host_open(true);
        for _ in 0..2 {
            port.hear(message(0, event::DEVICE_READY, 1));
            port.hear(message(0, event::PORT_READY, 1));
            port.hear(message(0, event::PORT_OPEN, 1));
            assert_eq!(told(&mut port).len(), 3);
            port.reset();
            assert_eq!(told(&mut port), []);
            assert!(!port.guest_open());
        }
        port.hear(message(0, event::DEVICE_READY, 0));
        port.hear(message(0, event::PORT_READY, 0));
        assert_eq!(told(&mut port), [], "it couldn't add the port");
    }

    proptest! {
        #[test]
        fn whatever_is_said_little_is_answered_and_the_end_is_known(
            said in proptest::collection::vec(
                prop_oneof![
                    4 => (0_u32..3, 0_u16..9, 0_u16..3).prop_map(|(i, e, v)| Ok(message(i, e, v))),
                    1 => any::<[u8; 8]>().prop_map(|bytes| Ok(Message::from_bytes(bytes))),
                    2 => any::<bool>().prop_map(Err),
                ],
                0..60,
            ),
            listens in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut port = PortTalk::new(1, "name", true);
            let (mut open_told, mut host_open) = (false, false);
            for (said, listens) in said.into_iter().zip(listens) {
                match said {
                    Ok(message) => {
                        prop_assert_eq!(Message::from_bytes(message.to_bytes()), message);
                        if message.id == 1 && message.event == event::PORT_READY {
                            // The driver's port is new.
                            open_told = false;
                        }
                        port.hear(message);
                    }
                    Err(open) => {
                        port.set_host_open(open);
                        host_open = open;
                    }
                }
                if listens {
                    let told = told(&mut port);
                    prop_assert!(told.len() <= 5);
                    for (event, value) in told {
                        if event == event::PORT_OPEN {
                            prop_assert_ne!(open_told, value == 1, "told twice");
                            open_told = value == 1;
                        }
                    }
                }
            }
            port.hear(message(1, event::PORT_READY, 1));
            let opened = told(&mut port).contains(&(event::PORT_OPEN, 1));
            prop_assert_eq!(opened, host_open);
        }
    }
}
