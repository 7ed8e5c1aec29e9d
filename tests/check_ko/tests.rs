//! Each check of `make check-ko`, seen to fail on a small object made for it with clang,
//! and to pass on one like the module.

use std::fs;
use std::path::Path;
use std::process::Command;

use vmm_rs_e2e::check_ko::{Checked, Kpi, Problem, check, check_headers, check_layouts, unneeded};

/// Linker sets and a use of printf(9), as a module has them.
const MODULE: &str = r#"
    int printf(const char *, ...);
    int helper(int value);
    #define IN_SET(set, name) \
        static const int *name __attribute__((section(set), used)) = &data;
    static int data = 1;
    static const int _m_depend_on_kernel[3] __attribute__((used)) = { 1500068, 1500068, 1599999 };
    IN_SET("set_sysinit_set", a) IN_SET("set_sysuninit_set", b)
    IN_SET("set_sysctl_set", c) IN_SET("set_modmetadata_set", d)
    extern const int *__start_set_sysctl_set[];
    int first(void) { return (*__start_set_sysctl_set[0] + data); }
    int say(int value) { return (printf("%d\n", value)); }
"#;

const KERNEL: [&str; 5] = [
    "-O2",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-mno-sse",
    "-mno-mmx",
];

/// Compiles C for FreeBSD and checks the object against a list with printf.
fn problems_of(name: &str, source: &str, flags: &[&str]) -> Vec<Problem> {
    checked(name, source, flags, "printf function sys/systm.h 15").problems
}

fn checked(name: &str, source: &str, flags: &[&str], list: &str) -> Checked {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, o) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}.o")),
    );
    fs::write(&c, source).unwrap();
    let headers = vmm_headers::find().unwrap();
    let output = Command::new(&headers.clang)
        .args(headers.clang_args())
        .args([
            "-ffreestanding",
            "-fno-asynchronous-unwind-tables",
            "-c",
            "-w",
        ])
        .args(flags)
        .arg("-o")
        .arg(&o)
        .arg(&c)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    check(&fs::read(&o).unwrap(), &Kpi::parse(list).unwrap()).unwrap()
}

/// The problems that `code` adds to a module without any.
fn problems_with(name: &str, code: &str, flags: &[&str]) -> Vec<Problem> {
    problems_of(name, &format!("{MODULE}{code}"), flags)
}

fn vector_instructions(problems: &[Problem]) -> usize {
    problems
        .iter()
        .filter(|problem| matches!(problem, Problem::VectorRegister { .. }))
        .count()
}

fn red_zone_places(problems: &[Problem]) -> Vec<&str> {
    problems
        .iter()
        .filter_map(|problem| match problem {
            Problem::RedZone { place, .. } => place.split('+').next(),
            _ => None,
        })
        .collect()
}

#[test]
fn a_module_like_ours_has_no_problem() {
    assert_eq!(problems_with("good", "", &KERNEL), []);
    // Nor has one that isn't optimized and keeps a frame pointer.
    let frame = "int deep(int value) { volatile int a[40]; a[value] = say(value); return (a[1]); }";
    assert_eq!(
        problems_with(
            "frame",
            frame,
            &["-O0", "-mcmodel=kernel", "-mno-red-zone", "-mno-sse"]
        ),
        []
    );
}

#[test]
fn saving_the_guests_vector_state_is_no_use_of_it() {
    let code = r#"void save(void *p) { __asm__ volatile("xsave64 (%0)\n fninit\n xrstor64 (%0)" :: "r"(p), "a"(7), "d"(0)); }"#;
    assert_eq!(problems_with("xsave", code, &KERNEL), []);
}

#[test]
fn relocations_through_a_got_and_32_bit_unsigned_ones_are_refused() {
    let got = problems_with(
        "got",
        "extern int printf_count; int *where(void) { return ((int *)printf); }",
        &["-O2", "-fPIC"],
    );
    assert!(
        got.iter().any(
            |problem| matches!(problem, Problem::Relocation { symbol, .. } if symbol == "printf")
        ),
        "{got:?}"
    );
    let unsigned = problems_with(
        "r32",
        "int r32(void); __asm__(\"r32: movl $data, %eax\\n ret\");",
        &KERNEL,
    );
    assert!(
        unsigned
            .iter()
            .any(|problem| matches!(problem, Problem::Relocation { kind: 10, .. })),
        "{unsigned:?}"
    );
}

#[test]
fn a_symbol_that_is_not_on_the_list_is_refused() {
    let problems = problems_with(
        "undefined",
        "int vmm_secret(void); int call(void) { return (vmm_secret()); }",
        &KERNEL,
    );
    assert_eq!(
        problems,
        [Problem::Undefined {
            symbol: "vmm_secret".to_owned()
        }]
    );
    // Bounds of a linker set that the object doesn't have are undefined as well.
    let bounds =
        "extern int *__start_set_other[]; int *other(void) { return (__start_set_other[0]); }";
    let problems = problems_with("bounds", bounds, &KERNEL);
    assert_eq!(
        problems,
        [Problem::Undefined {
            symbol: "__start_set_other".to_owned()
        }]
    );
}

#[test]
fn a_list_with_a_symbol_that_nothing_needs_is_refused() {
    let list = "printf function sys/systm.h 15\nsnprintf function sys/systm.h 15";
    let kpi = Kpi::parse(list).unwrap();
    let module = checked("unneeded", MODULE, &KERNEL, list);
    let snprintf = Problem::Unneeded {
        symbol: "snprintf".to_owned(),
    };
    assert_eq!(unneeded(&kpi, &[module]), [snprintf]);
    // Another release's module, which isn't here, may need it.
    let list = "printf function sys/systm.h 15\nsnprintf function sys/systm.h 14";
    let kpi = Kpi::parse(list).unwrap();
    let module = checked("needed", MODULE, &KERNEL, list);
    assert_eq!(unneeded(&kpi, &[module]), []);
}

#[test]
fn a_symbol_that_some_kernels_lack_is_refused() {
    let problems = |releases: &str| {
        let list = format!("printf function sys/systm.h {releases}");
        checked("missing", MODULE, &KERNEL, &list).problems
    };
    for releases in ["14", "14 15.1"] {
        let missing = Problem::Missing {
            symbol: "printf".to_owned(),
            version: 1_500_068,
        };
        assert_eq!(problems(releases), [missing]);
    }
    assert_eq!(problems("15"), []);
}

#[test]
fn a_list_that_headers_contradict_is_refused() {
    let headers = vmm_headers::find().unwrap();
    let differences = |line: &str| -> Vec<String> {
        let kpi = Kpi::parse(line).unwrap();
        let kernels = headers.kernels().unwrap();
        let problems = kernels
            .iter()
            .flat_map(|kernel| check_headers(&headers, kernel, &kpi).unwrap());
        problems.map(|problem| problem.to_string()).collect()
    };
    assert_eq!(differences("printf function sys/systm.h 14 15"), [""; 0]);
    for (line, release, problem) in [
        (
            "printf function sys/malloc.h 14 15",
            15,
            "a function of sys/systm.h",
        ),
        (
            "printf variable sys/systm.h 14 15",
            15,
            "a function of sys/systm.h",
        ),
        (
            "physmem function sys/systm.h 14 15",
            15,
            "a variable of sys/systm.h",
        ),
        (
            "no_such_function function sys/systm.h 14 15",
            15,
            "don't declare it",
        ),
        (
            "kva_layout variable machine/pmap.h 14 15",
            14,
            "FreeBSD 14, whose headers don't declare it",
        ),
        (
            "kick_proc0 function sys/proc.h 14 15",
            15,
            "FreeBSD 15, whose headers don't declare it",
        ),
        (
            "printf function sys/systm.h 15",
            14,
            "in FreeBSD 14 as well",
        ),
    ] {
        // On FreeBSD only the host's own headers are there.
        if headers
            .kernels()
            .unwrap()
            .iter()
            .any(|k| k.release == release)
        {
            let found = differences(line);
            assert!(
                found.iter().any(|found| found.contains(problem)),
                "{line}: {found:?}"
            );
        }
    }
}

#[test]
fn vector_and_floating_point_registers_are_refused() {
    let sse = problems_with(
        "sse",
        "double half(double x) { return (x / 2); }",
        &["-O2", "-mcmodel=kernel", "-mno-red-zone"],
    );
    assert!(vector_instructions(&sse) > 0, "{sse:?}");
    for (name, assembly) in [
        ("movaps", "movaps %xmm1, %xmm0"),
        ("avx", "vpaddd %ymm0, %ymm1, %ymm2"),
        ("avx512", "vpaddd %zmm0, %zmm1, %zmm2"),
        ("mmx", "paddd %mm0, %mm1"),
        ("x87", "fld1"),
    ] {
        let problems = problems_with(
            name,
            &format!("void f(void) {{ __asm__ volatile(\"{assembly}\"); }}"),
            &KERNEL,
        );
        assert_eq!(
            (vector_instructions(&problems), problems.len()),
            (1, 1),
            "{assembly}: {problems:?}"
        );
    }
}

#[test]
fn use_of_the_red_zone_is_refused() {
    let leaf =
        "long leaf(long x) { volatile long a[4]; a[1] = x; a[3] = x; return (a[1] + a[3]); }";
    // Through RSP, as optimized code does it.
    let problems = problems_with("redzone_rsp", leaf, &["-O2", "-mcmodel=kernel", "-mno-sse"]);
    assert!(red_zone_places(&problems).contains(&"leaf"), "{problems:?}");
    // Through RBP, as code with a frame pointer does it.
    let problems = problems_with(
        "redzone_rbp",
        leaf,
        &[
            "-O0",
            "-fno-omit-frame-pointer",
            "-mcmodel=kernel",
            "-mno-sse",
        ],
    );
    assert!(red_zone_places(&problems).contains(&"leaf"), "{problems:?}");
    assert_eq!(problems_with("noredzone", leaf, &KERNEL), []);
}

#[test]
fn each_missing_linker_set_is_named() {
    for set in [
        "set_sysinit_set",
        "set_sysuninit_set",
        "set_modmetadata_set",
    ] {
        let problems = problems_of(set, &MODULE.replace(set, "set_else"), &KERNEL);
        assert_eq!(
            problems,
            [Problem::LinkerSet {
                name: set.to_owned()
            }]
        );
    }
    let problems = problems_of(
        "nosets",
        "int _m_depend_on_kernel[3] = { 1500068 };",
        &KERNEL,
    );
    let missing = problems
        .iter()
        .filter(|problem| matches!(problem, Problem::LinkerSet { .. }))
        .count();
    assert_eq!(missing, 4, "{problems:?}");
}

#[test]
fn a_member_whose_place_is_not_asserted_is_found() {
    let shim = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layouts");
    fs::create_dir_all(&shim).unwrap();
    let write = |name: &str, text: &str| fs::write(shim.join(name), text).unwrap();
    write(
        "kbi.c",
        "#include <sys/param.h>\n#include <sys/systm.h>\n#include <sys/proc.h>\n#define OFFSET(...)\n\
         OFFSET(struct thread, td_ucred, 1, 2);\n",
    );
    write(
        "shim.c",
        "#include <sys/param.h>\n#include <sys/systm.h>\n#include <sys/proc.h>\n\
         struct ours { int number; };\n\
         static inline int unused(struct thread *td) { return (td->td_oncpu); }\n\
         static inline int used(struct thread *td) { return (td->td_tid); }\n\
         int f(struct thread *td, struct ours *o);\n\
         int f(struct thread *td, struct ours *o) { return (used(td) + o->number + (td->td_ucred != 0)); }\n\
         int g(struct thread *td) { return (td->td_ast); }\n",
    );
    let headers = vmm_headers::find().unwrap();
    for kernel in headers.kernels().unwrap() {
        let problems = check_layouts(&headers, &kernel, &shim).unwrap();
        let members: Vec<&str> = problems
            .iter()
            .map(|problem| match problem {
                Problem::Layout { member, .. } => member.as_str(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(members, ["td_ast", "td_tid"]);
    }
}

#[test]
fn what_is_no_module_or_no_list_is_an_error() {
    let kpi = Kpi::parse("").unwrap();
    assert!(check(b"#!/bin/sh\n", &kpi).is_err());
    for list in [
        "printf",
        "printf function sys/systm.h",
        "printf macro sys/systm.h 15",
        "printf function sys/systm.h fifteen",
        "printf function sys/systm.h 15\nprintf function sys/systm.h 15",
    ] {
        assert!(Kpi::parse(list).is_err(), "{list}");
    }
}
