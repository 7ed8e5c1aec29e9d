//! The 8254, along Intel 231164.
