//! The decoder beside an independent one (iced-x86), and each family of instructions on a
//! machine of memory, a device and a page that isn't there.

mod alu;
mod families;
mod faults;
mod machine;
mod oracle;
mod strings;
mod vie;
