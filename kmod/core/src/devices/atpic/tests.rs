//! The 8259As, along Intel 231468.
