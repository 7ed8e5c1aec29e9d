//! The Rust side of the ABI against the C compiler's: every request's number, and size,
//! alignment and offset of every structure, member and bit-field. What the headers have
//! and these lists lack is a failure too.

mod c_side;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};

use vmm_sys::{host, ioctl};

const FREEBSD_H: &str = "freebsd.h";
const HOST_H: &str = "host.h";

/// A structure as Rust lays it out.
struct Layout {
    name: &'static str,
    size: usize,
    align: usize,
    /// Path, offset and size of each member that is no bit-field.
    members: Vec<(String, usize, usize)>,
}

macro_rules! layouts {
    ($module:ident: $($name:ident { $($($part:ident).+),* $(,)? };)*) => {
        vec![$(Layout {
            name: stringify!($name),
            size: size_of::<$module::$name>(),
            align: align_of::<$module::$name>(),
            members: vec![$((
                // stringify!() may put spaces around the dots.
                stringify!($($part).+).replace(' ', ""),
                offset_of!($module::$name, $($part).+),
                // SAFETY: the closure is there for its type and is never called.
                size_of_member(|s: *const $module::$name| unsafe { &raw const (*s).$($part).+ }),
            )),*],
        }),*]
    };
}

/// The size of what a projection of a pointer points to.
fn size_of_member<S, T>(_projection: impl Fn(*const S) -> *const T) -> usize {
    size_of::<T>()
}

fn freebsd_layouts() -> Vec<Layout> {
    layouts! { vmm_sys:
        timeval { tv_sec, tv_usec };
        _domainset { __bits };
        _cpuset { __bits };
        seg_desc { base, limit, access };
        vm_guest_paging { cr3, cpl, cpu_mode, paging_mode };
        vie_op { op_byte, op_type, op_flags };
        vie {
            inst, num_valid, num_processed, disp_bytes, imm_bytes, scale, _sparebytes,
            base_register, index_register, segment_register, displacement, immediate, decoded,
            _sparebyte, op,
        };
        vm_inout { port, eax };
        vm_inout_str {
            inout, paging, rflags, cr0, index, count, addrsize, seg_name, seg_desc, cs_d, cs_base,
        };
        vm_task_switch { tsssel, ext, errcode, errcode_valid, reason, paging };
        vm_exit {
            exitcode, inst_length, rip, u, u.inout, u.inout_str, u.paging, u.paging.gpa,
            u.paging.fault_type, u.inst_emul, u.inst_emul.gpa, u.inst_emul.gla, u.inst_emul.cs_base,
            u.inst_emul.cs_d, u.inst_emul.paging, u.inst_emul.vie, u.vmx, u.vmx.status,
            u.vmx.exit_reason, u.vmx.exit_qualification, u.vmx.inst_type, u.vmx.inst_error, u.svm,
            u.svm.exitcode, u.svm.exitinfo1, u.svm.exitinfo2, u.bpt, u.bpt.inst_length, u.dbg,
            u.dbg.trace_trap, u.dbg.pushf_intercept, u.dbg.tf_shadow_val, u.dbg.paging, u.msr,
            u.msr.code, u.msr.wval, u.spinup_ap, u.spinup_ap.vcpu, u.spinup_ap.rip, u.hlt,
            u.hlt.rflags, u.hlt.intr_status, u.ioapic_eoi, u.ioapic_eoi.vector, u.suspended,
            u.suspended.how, u.ipi, u.ipi.mode, u.ipi.vector, u.task_switch,
        };
        vm_snapshot_buffer { buf_start, buf_size, buf, buf_rem };
        vm_snapshot_meta { dev_data, dev_name, dev_req, buffer, op };
        vm_memmap { gpa, segid, segoff, len, prot, flags };
        vm_munmap { gpa, len };
        vm_memseg { segid, len, name, ds_mask, ds_mask_size, ds_policy };
        vm_register { cpuid, regnum, regval };
        vm_seg_desc { cpuid, regnum, desc };
        vm_register_set { cpuid, count, regnums, regvals };
        vm_run { cpuid, cpuset, cpusetsize, vm_exit };
        vm_exception { cpuid, vector, error_code, error_code_valid, restart_instruction };
        vm_lapic_msi { msg, addr };
        vm_lapic_irq { cpuid, vector };
        vm_ioapic_irq { irq };
        vm_isa_irq { atpic_irq, ioapic_irq };
        vm_isa_irq_trigger { atpic_irq, trigger };
        vm_capability { cpuid, captype, capval, allcpus };
        vm_pptdev { bus, slot, func };
        vm_pptdev_mmio { bus, slot, func, gpa, hpa, len };
        vm_pptdev_msi { vcpu, bus, slot, func, numvec, msg, addr };
        vm_pptdev_msix { vcpu, bus, slot, func, idx, msg, vector_control, addr };
        vm_nmi { cpuid };
        vm_stats { cpuid, index, num_entries, tv, statbuf };
        vm_stat_desc { index, desc };
        vm_x2apic { cpuid, state };
        vm_gpa_pte { gpa, pte, ptenum };
        vm_hpet_cap { capabilities };
        vm_suspend { how };
        vm_gla2gpa { vcpuid, prot, gla, paging, fault, gpa };
        vm_activate_cpu { vcpuid };
        vm_cpuset { which, cpusetsize, cpus };
        vm_intinfo { vcpuid, info1, info2 };
        vm_rtc_time { secs };
        vm_rtc_data { offset, value };
        vm_cpu_topology { sockets, cores, threads, maxcpus };
        vm_readwrite_kernemu_device { vcpuid, gpa, value };
        vmmctl_vm_create { name, flags, reserved };
        vmmctl_vm_destroy { name, reserved };
        vm_memseg_12 { segid, len, name };
        vm_memseg_14 { segid, len, name };
        vm_exit_13 { exitcode, inst_length, rip, u };
        vm_exit_ipi_13 { mode, vector, dmask };
        vm_run_13 { cpuid, vm_exit };
        vm_stats_13 { cpuid, num_entries, tv, statbuf };
    }
}

fn host_layouts() -> Vec<Layout> {
    layouts! { host:
        host_numa { policy, mask, mask_size };
        host_page { hpa, order, fresh };
        vmm_rs_info { name, descr, value, writable };
    }
}

/// A bit-field as Rust has it.
struct BitField {
    of: &'static str,
    /// C's name of it.
    name: String,
    /// First bit in the structure, and width.
    bits: (u64, u64),
}

macro_rules! bit_fields {
    ($($name:ident.$unit:ident { $($field:ident $set:ident),* $(,)? };)*) => {
        vec![$($({
            let mut value = vmm_sys::$name::default();
            value.$set(!0);
            let bits = size_of_val(&value.$unit) * 8;
            let set: Vec<usize> = (0..bits).filter(|bit| value.$unit.get_bit(*bit)).collect();
            let first = set[0];
            assert!(set.iter().copied().eq(first..first + set.len()), "{set:?}");
            BitField {
                of: stringify!($name),
                // bindgen appends a _ to a keyword.
                name: stringify!($field).trim_end_matches('_').to_owned(),
                bits: ((offset_of!(vmm_sys::$name, $unit) * 8 + first) as u64, set.len() as u64),
            }
        },)*)*]
    };
}

fn freebsd_bit_fields() -> Vec<BitField> {
    bit_fields! {
        vie._bitfield_1 {
            addrsize set_addrsize, opsize set_opsize, rex_w set_rex_w, rex_r set_rex_r, rex_x set_rex_x,
            rex_b set_rex_b, rex_present set_rex_present, repz_present set_repz_present,
            repnz_present set_repnz_present, opsize_override set_opsize_override,
            addrsize_override set_addrsize_override, segment_override set_segment_override,
            mod_ set_mod, reg set_reg, rm set_rm, ss set_ss, vex_present set_vex_present,
            vex_l set_vex_l, index set_index, base set_base,
        };
        vie._bitfield_2 { vex_reg set_vex_reg, vex_pp set_vex_pp, _sparebits set__sparebits };
        vm_inout._bitfield_1 { bytes set_bytes, in_ set_in, string set_string, rep set_rep };
        vm_readwrite_kernemu_device._bitfield_1 { access_width set_access_width, _unused set__unused };
    }
}

/// Compares all structures of a list with the C compiler's; returns the comparison as a
/// table, and panics with the lines that differ.
fn compare(header: &str, layouts: &[Layout]) -> usize {
    let mut expressions = Vec::new();
    for layout in layouts {
        let c = format!("struct {}", layout.name);
        expressions.push(format!("sizeof({c})"));
        expressions.push(format!("_Alignof({c})"));
        for (path, ..) in &layout.members {
            expressions.push(format!("__builtin_offsetof({c}, {path})"));
            expressions.push(format!("sizeof((({c} *)0)->{path})"));
        }
    }
    let rust = layouts.iter().flat_map(|layout| {
        let members = layout
            .members
            .iter()
            .flat_map(|(_, offset, size)| [*offset, *size]);
        [layout.size, layout.align].into_iter().chain(members)
    });
    let c = c_side::constants(header, &expressions);
    let mut differences = String::new();
    for ((expression, c), rust) in expressions.iter().zip(&c).zip(rust) {
        println!("{expression}: C {c}, Rust {rust}");
        if *c != rust as u64 {
            writeln!(differences, "{expression}: C {c}, Rust {rust}").unwrap();
        }
    }
    assert!(differences.is_empty(), "{header}:\n{differences}");
    expressions.len()
}

/// Fails with what one side has and the other lacks.
fn same<T: Ord + std::fmt::Debug>(what: &str, c: BTreeSet<T>, rust: BTreeSet<T>) {
    let only_c: Vec<_> = c.difference(&rust).collect();
    let only_rust: Vec<_> = rust.difference(&c).collect();
    assert!(
        only_c.is_empty() && only_rust.is_empty(),
        "{what}: only in the headers {only_c:?}, only in Rust {only_rust:?}"
    );
}

#[test]
fn every_structure_and_member_is_where_the_c_compiler_has_it() {
    assert!(compare(FREEBSD_H, &freebsd_layouts()) > 400);
    assert!(compare(HOST_H, &host_layouts()) > 15);
}

#[test]
fn the_lists_have_every_structure_and_member_of_the_headers() {
    let ours = |name: &str| {
        ["vm_", "vmmctl_", "vie", "host_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || ["seg_desc", "timeval", "_cpuset", "_domainset"].contains(&name)
    };
    for (header, layouts) in [(FREEBSD_H, freebsd_layouts()), (HOST_H, host_layouts())] {
        let records = c_side::records(header);
        for (name, record) in records.iter().filter(|(name, _)| ours(name)) {
            let Some(layout) = layouts.iter().find(|layout| layout.name == name) else {
                panic!("struct {name} of {header} is not in the list of tests/layout.rs");
            };
            assert_eq!(
                (layout.size as u64, layout.align as u64),
                (record.size, record.align),
                "{name}"
            );
            let in_c = record
                .members
                .iter()
                .filter(|member| member.bits.is_none())
                .map(|member| &member.path);
            let in_rust = layout.members.iter().map(|(path, ..)| path);
            same(
                &format!("members of struct {name}"),
                in_c.cloned().collect(),
                in_rust.cloned().collect(),
            );
        }
        for layout in layouts {
            assert!(
                records.contains_key(layout.name),
                "struct {} is not in {header}",
                layout.name
            );
        }
    }
}

#[test]
fn every_bit_field_is_where_the_c_compiler_has_it() {
    let rust: BTreeSet<_> = freebsd_bit_fields()
        .into_iter()
        .map(|field| (field.of.to_owned(), field.name, field.bits))
        .collect();
    let records = c_side::records(FREEBSD_H);
    let c: BTreeSet<_> = freebsd_layouts()
        .iter()
        .flat_map(|layout| {
            records[layout.name]
                .members
                .iter()
                .map(|member| (layout.name, member))
        })
        .filter_map(|(name, member)| Some((name.to_owned(), member.path.clone(), member.bits?)))
        .collect();
    same("bit-fields", c, rust);
}

#[test]
fn every_request_has_the_number_that_the_c_compiler_computes() {
    let names: Vec<String> = ioctl::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    for (value, (name, request)) in c_side::constants(FREEBSD_H, &names)
        .into_iter()
        .zip(ioctl::ALL)
    {
        let rust = u64::from(request.code());
        println!("{name}: C {value:#x}, Rust {rust:#x}");
        assert_eq!(value, rust, "{name}: C (left), Rust (right)");
        assert_eq!(
            ioctl::Ioctl::from_code(request.code()),
            Some(*request),
            "{name}"
        );
    }
}

#[test]
fn the_list_has_every_request_of_the_headers() {
    let c: BTreeSet<String> = c_side::requests(FREEBSD_H).into_iter().collect();
    let rust: BTreeSet<String> = ioctl::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert!(c.len() > 60, "found only {c:?}");
    assert_eq!(
        c, rust,
        "requests of the headers (left) and of src/ioctl.rs (right)"
    );
}

#[test]
fn the_names_for_unnamed_structures_are_the_unions_members() {
    use vmm_sys::vm_exit_u as U;
    // It compiles only if each name is its member's type.
    let members = [
        U {
            paging: vmm_sys::vm_exit_paging::default(),
        },
        U {
            inst_emul: vmm_sys::vm_exit_inst_emul::default(),
        },
        U {
            vmx: vmm_sys::vm_exit_vmx::default(),
        },
        U {
            svm: vmm_sys::vm_exit_svm::default(),
        },
        U {
            bpt: vmm_sys::vm_exit_bpt::default(),
        },
        U {
            dbg: vmm_sys::vm_exit_dbg::default(),
        },
        U {
            msr: vmm_sys::vm_exit_msr::default(),
        },
        U {
            spinup_ap: vmm_sys::vm_exit_spinup_ap::default(),
        },
        U {
            hlt: vmm_sys::vm_exit_hlt::default(),
        },
        U {
            ioapic_eoi: vmm_sys::vm_exit_ioapic_eoi::default(),
        },
        U {
            suspended: vmm_sys::vm_exit_suspended::default(),
        },
        U {
            ipi: vmm_sys::vm_exit_ipi::default(),
        },
    ];
    let unnamed = c_side::records(FREEBSD_H)["vm_exit"]
        .members
        .iter()
        .filter(|member| member.path.matches('.').count() == 2)
        .map(|member| member.path.rsplit_once('.').unwrap().0.to_owned())
        .collect::<BTreeSet<_>>();
    assert_eq!(members.len(), unnamed.len(), "{unnamed:?}");
}

#[test]
fn numbers_that_are_no_request_have_no_name() {
    assert_eq!(ioctl::Ioctl::from_code(0), None);
    assert_eq!(ioctl::Ioctl::from_code(0xe000_0000), None);
    let unknown = ioctl::Ioctl {
        size: 31,
        ..ioctl::VM_RUN
    };
    assert_eq!(unknown.name(), None);
    assert_eq!(ioctl::VM_GET_MEMSEG_14.name(), Some("VM_GET_MEMSEG_14"));
}
