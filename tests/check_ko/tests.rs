//! Each check of `make check-ko`, seen to fail on a small object made for it with clang,
//! and to pass on one like the module.

use std::fs;
use std::path::Path;
use std::process::Command;

use vmm_rs_e2e::check_ko::{Kpi, Problem, check};

/// Linker sets and a use of printf(9), as a module has them.
const MODULE: &str = r#"
    int printf(const char *, ...);
    int helper(int value);
    #define IN_SET(set, name) \
        static const int *name __attribute__((section(set), used)) = &data;
    static int data = 1;
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
    check(
        &fs::read(&o).unwrap(),
        &Kpi::parse("printf sys/systm.h").unwrap(),
    )
    .unwrap()
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
    let quiet = MODULE.replace("return (printf(\"%d\\n\", value));", "return (value);");
    assert_eq!(
        problems_of("unneeded", &quiet, &KERNEL),
        [Problem::Unneeded {
            symbol: "printf".to_owned()
        }]
    );
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
    let problems = problems_of("nosets", "int data;", &KERNEL);
    let missing = problems
        .iter()
        .filter(|problem| matches!(problem, Problem::LinkerSet { .. }))
        .count();
    assert_eq!(missing, 4, "{problems:?}");
}

#[test]
fn what_is_no_object_for_this_cpu_is_an_error() {
    let kpi = Kpi::parse("").unwrap();
    assert!(check(b"#!/bin/sh\n", &kpi).is_err());
    assert!(Kpi::parse("printf").is_err());
    assert!(Kpi::parse("printf sys/systm.h\nprintf sys/systm.h").is_err());
}
