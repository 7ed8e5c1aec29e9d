//! A loader for FreeBSD/amd64 kernels that needs no userboot.so: what FreeBSD's loader(8)
//! does between the disk and the kernel's first instruction. In reading order: the files'
//! settings ([`conf`]) become the kernel's [`environment`]; kernel and modules are found and
//! placed in memory ([`loader`]; [`image`] and [`object`] for the ELF files, [`hints`] and
//! [`modmetadata`] for what depends on what); the list of all that ([`preload`]) and the
//! state of the first instruction ([`start`]) make it a [`Plan`](crate::plan::Plan).

#![forbid(unsafe_code)]

pub mod conf;
pub mod environment;
pub mod fstab;
pub mod hints;
pub mod image;
pub mod loader;
pub mod modmetadata;
pub mod object;
pub mod preload;
pub mod start;

#[cfg(test)]
pub(crate) mod tests;
