//! The I/O APIC, along Intel 290566.
