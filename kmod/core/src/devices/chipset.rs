//! The VM's chipset as far as the kernel has it.
