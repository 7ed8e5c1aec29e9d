//! bhyveload(8): creates a VM, places a program in its memory and sets its first vcpu to
//! the program's entry. In reading order: the command line ([`options`]), the formats
//! ([`flat`], [`elf`], [`multiboot`], [`pvh`], [`bzimage`]; an [`image`] is what they all
//! become), where things lie ([`layout`]), the first instruction's surroundings ([`boot`],
//! for Linux [`linux`]), all of it as a [`plan`], and the plan carried out ([`load`]).
//! FreeBSD's kernel comes with its modules and its environment ([`freebsd`]) from a disk or
//! directory ([`fs`]), or by FreeBSD's own loader ([`userboot`]). [`run`] puts these together; [`console`] is where progress is shown.

#![deny(unsafe_code)]

pub mod boot;
pub mod bzimage;
pub mod console;
pub mod elf;
pub mod flat;
pub mod freebsd;
pub mod fs;
pub mod image;
pub mod layout;
pub mod linux;
pub mod load;
pub mod multiboot;
pub mod options;
pub mod plan;
#[allow(unsafe_code)]
pub mod platform;
pub mod pvh;
pub mod run;
pub mod terminal;
pub mod userboot;
