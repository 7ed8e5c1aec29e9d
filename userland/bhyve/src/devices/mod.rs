//! The devices of the guest, each a state machine that knows ports and bytes only. What
//! they cause outside comes in as closures: ending the VM, moving an interrupt line.

#![forbid(unsafe_code)]

pub mod bvmcons;
pub mod fwcfg;
pub mod kbdc;
pub mod pctestdev;
pub mod pm;
pub mod post;
pub mod serial;
pub mod uart;

use std::sync::Arc;

use vmmapi::SuspendHow;

/// Asks for the end of the VM (vm_suspend).
pub type Suspend = Arc<dyn Fn(SuspendHow) + Send + Sync>;

/// Moves an interrupt line.
pub type IrqLine = Box<dyn Fn(bool) + Send + Sync>;
