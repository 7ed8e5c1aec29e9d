//! bhyvectl(8): shows and changes a VM from outside. In reading order: the [`options`],
//! the [`request`] that they make, how it is carried out ([`act`]), what is printed
//! ([`show`]), and the fields of the VMCS with their options ([`control`], [`msr_bitmap`]).

pub mod act;
pub mod control;
pub mod msr_bitmap;
pub mod options;
pub mod platform;
pub mod request;
pub mod show;
