//! The HPET, along IA-PC HPET 1.0a.
