//! Port 0x84: what bhyve's guests write to as a POST code display, and read back as zeros.

#![forbid(unsafe_code)]

use crate::ports::{PortDevice, Width};

pub const PORT: u16 = 0x84;

pub struct Post;

impl PortDevice for Post {
    fn read(&self, _offset: u16, _width: Width) -> u32 {
        0
    }
    fn write(&self, _offset: u16, _width: Width, _value: u32) {}
}
