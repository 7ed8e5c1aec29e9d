//! The wiring, with all devices in place.
