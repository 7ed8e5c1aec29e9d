//! What is at the other end of a guest's network card (bhyve(8), "Network device
//! backends"): an interface of the host ([`tap`]), or a TCP/IP stack in this process that
//! needs no rights on the host ([`slirp`]). [`options`] turns the command line into
//! variables and [`open`] those into a [`NetBackend`]; a card's address is in [`mac`].

#![forbid(unsafe_code)]

pub mod error;
pub mod mac;
pub mod slirp;
pub mod tap;

use std::sync::Arc;

pub use error::NetError;

use crate::config::NodeMut;
use crate::config::View;
use crate::pci::DeviceError;
use crate::platform::tap::HAS_NETGRAPH;

/// The longest frame that cards and backends exchange, as in bhyve(8): one of 64 KiB with
/// its headers.
pub const MAX_FRAME: usize = 65536 + 64;
/// The shortest one that says where it goes: an Ethernet header.
pub const MIN_FRAME: usize = 14;

/// The least that Ethernet carries, and the most that its length can say.
pub const MIN_MTU: u64 = 46;
pub const MAX_MTU: u64 = 65535;
/// Where nobody says otherwise.
pub const ETHERMTU: u16 = 1500;

/// The other end. One thread receives, another one may send at the same time.
pub trait NetBackend: Send + Sync {
    /// Sends a frame. One that can't be sent is lost, as on a wire.
    fn send(&self, frame: &[u8]);

    /// Waits for the next frame and puts it into `buffer`, which has room for any frame.
    fn receive(&self, buffer: &mut [u8]) -> Received;

    /// Makes [`NetBackend::receive`] say [`Received::Stopped`]: the one that waits now, and
    /// all later ones.
    fn stop(&self);
}

/// What came out of waiting for a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// A frame of that many bytes.
    Frame(usize),
    Stopped,
    /// There won't be any more, for the reason given: the cable is out.
    Gone(String),
}

/// `backend[,option…]` behind a card's name becomes variables.
pub fn options(node: &mut NodeMut<'_>, text: Option<&str>) -> Result<(), DeviceError> {
    let Some(text) = text else {
        return Ok(());
    };
    let (backend, options) = text.split_once(',').unwrap_or((text, ""));
    node.set("backend", backend)?;
    Ok(node.set_options(options)?)
}

/// A kind of backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tap,
    /// A node of FreeBSD's netgraph(4) with a device, which is used as a tap is.
    Ngd,
    Slirp,
    /// Of bhyve, and not here.
    NotPart,
}

/// How the variable `type`, or `backend` without it, begins.
const KINDS: [(&str, Kind); 7] = [
    ("tap", Kind::Tap),
    ("vmnet", Kind::Tap),
    ("ngd", Kind::Ngd),
    ("slirp", Kind::Slirp),
    ("netgraph", Kind::NotPart),
    ("netmap", Kind::NotPart),
    ("vale", Kind::NotPart),
];

/// Opens what a card's node says; `None` if it has no backend. `threads` is what
/// its threads' names begin with, and `mtu` the card's MTU, if one is set.
pub fn open(
    config: &View<'_>,
    threads: &str,
    mtu: Option<u16>,
) -> Result<Option<Arc<dyn NetBackend>>, DeviceError> {
    let Some(backend) = config.get("backend") else {
        return Ok(None);
    };
    let kind = config.get("type").unwrap_or_else(|| backend.clone());
    let known = KINDS.iter().find(|(prefix, _)| kind.starts_with(prefix));
    Ok(Some(match known {
        Some((_, Kind::Tap)) => Arc::new(tap::Tap::open(&backend, true)?),
        Some((_, Kind::Ngd)) if HAS_NETGRAPH => Arc::new(tap::Tap::open(&backend, false)?),
        Some((_, Kind::Slirp)) => {
            let settings = slirp::Settings {
                open: config.bool("open", false)?,
                forwards: slirp::forwards(config.get("hostfwd").as_deref())?,
                mtu: mtu.unwrap_or(ETHERMTU),
            };
            Arc::new(slirp::UserNet::start(settings, threads)?)
        }
        Some((prefix, Kind::Ngd | Kind::NotPart)) => return Err(NetError::NotPart(prefix).into()),
        None => return Err(NetError::Unknown(kind).into()),
    }))
}

#[cfg(test)]
pub mod cable;
#[cfg(test)]
mod tests;
