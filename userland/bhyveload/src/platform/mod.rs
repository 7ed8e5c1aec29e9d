//! The only unsafe code of bhyveload: FreeBSD's userboot.so is C, loaded into this process
//! and called with a table of functions ([`userboot`]).

pub mod userboot;
