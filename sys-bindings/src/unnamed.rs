//! Names for the union of `struct vm_exit` and for those of its members whose structures
//! have none in C, so that bindgen numbers them. `vm_exit_<member>` is the type of
//! `vm_exit.u.<member>`; tests/layout.rs builds each member from it.

#![allow(non_camel_case_types)]

use crate as sys;

pub type vm_exit_u = sys::vm_exit__bindgen_ty_1;
pub type vm_exit_paging = sys::vm_exit__bindgen_ty_1__bindgen_ty_1;
pub type vm_exit_inst_emul = sys::vm_exit__bindgen_ty_1__bindgen_ty_2;
pub type vm_exit_vmx = sys::vm_exit__bindgen_ty_1__bindgen_ty_3;
pub type vm_exit_svm = sys::vm_exit__bindgen_ty_1__bindgen_ty_4;
pub type vm_exit_bpt = sys::vm_exit__bindgen_ty_1__bindgen_ty_5;
pub type vm_exit_dbg = sys::vm_exit__bindgen_ty_1__bindgen_ty_6;
pub type vm_exit_msr = sys::vm_exit__bindgen_ty_1__bindgen_ty_7;
pub type vm_exit_spinup_ap = sys::vm_exit__bindgen_ty_1__bindgen_ty_8;
pub type vm_exit_hlt = sys::vm_exit__bindgen_ty_1__bindgen_ty_9;
pub type vm_exit_ioapic_eoi = sys::vm_exit__bindgen_ty_1__bindgen_ty_10;
pub type vm_exit_suspended = sys::vm_exit__bindgen_ty_1__bindgen_ty_11;
pub type vm_exit_ipi = sys::vm_exit__bindgen_ty_1__bindgen_ty_12;
