//! What the end-to-end tests and the commands of the Makefile share: the lab (an emulated
//! machine with VT-x whose host kernel runs the module) and the checks of vmm_rs.ko.

pub mod check_ko;
pub mod lab;
