//! What differs between hosts, with the same functions and constants for each, and the only
//! unsafe code of bhyveload: FreeBSD's userboot.so is C, loaded into this process and called
//! with a table of functions ([`userboot`]).

pub mod userboot;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as host;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as host;

pub use host::{HAS_USERBOOT, is_outside, open_beneath};
