//! Tests of controllers through their registers, as a guest's driver uses them: on a real
//! PCI bus, with command lists in (anonymous) guest memory and image files as disks.

mod cd;
mod disk;
mod driver;
mod hba;
mod random;
