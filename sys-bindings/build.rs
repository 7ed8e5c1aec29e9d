//! Runs bindgen over the FreeBSD headers (include/freebsd.h) and over the kernel
//! interface (kmod/shim/host.h). The same Rust comes out for every target: the ABI is
//! FreeBSD/amd64's, whoever speaks it.

use std::env;
use std::path::{Path, PathBuf};

use bindgen::{Builder, EnumVariation, RustEdition, RustTarget};
use vmm_headers::Headers;

fn main() {
    if let Err(e) = run() {
        eprintln!("vmm_sys: {e}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let headers = vmm_headers::find()?;
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    use_libclang(&headers.libclang);

    let wrapper = here.join("include/freebsd.h");
    let abi = builder(&headers, &wrapper)?
        .allowlist_type("vm_.*|vmmctl_.*|seg_desc|vie|vie_op|x2apic_state|task_switch_reason|cpuset_t|domainset_t")
        .allowlist_var("VM_.*|MAX_VM_STATS|X2APIC_.*|CPU_MODE_.*|PAGING_MODE_.*|TSR_.*|CPU_SETSIZE|VIE_INST_SIZE")
        .allowlist_var("VMMCTL_CREATE_.*|DOMAINSET_.*|EDGE_TRIGGER|LEVEL_TRIGGER|STRUCT_V.*|IOCPARM_MAX")
        .blocklist_function(".*");
    write(abi, &out.join("freebsd.rs"))?;

    let host_h = here.join("../kmod/shim/host.h");
    let host = builder(&headers, &host_h)?.allowlist_file(".*/host\\.h");
    write(host, &out.join("host.rs"))?;

    for path in [&wrapper, &host_h] {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    for line in vmm_headers::RERUN_IF {
        println!("{line}");
    }
    Ok(())
}

/// bindgen loads libclang at run time, from the place this variable names.
fn use_libclang(dir: &Path) {
    if env::var_os("LIBCLANG_PATH").is_none() {
        // SAFETY: a build script has one thread at this point.
        unsafe { env::set_var("LIBCLANG_PATH", dir) };
    }
}

fn builder(headers: &Headers, header: &Path) -> Result<Builder, String> {
    let target =
        RustTarget::stable(85, 0).map_err(|e| format!("bindgen doesn't know Rust 1.85: {e}"))?;
    Ok(bindgen::builder()
        .header(header.to_string_lossy())
        .clang_args(headers.clang_args())
        .rust_target(target)
        .rust_edition(RustEdition::Edition2024)
        .use_core()
        .ctypes_prefix("core::ffi")
        .default_enum_style(EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .derive_eq(true)
        .layout_tests(true)
        .generate_comments(false)
        .formatter(bindgen::Formatter::None))
}

fn write(builder: Builder, to: &Path) -> Result<(), String> {
    let bindings = builder.generate().map_err(|e| format!("bindgen: {e}"))?;
    bindings
        .write_to_file(to)
        .map_err(|e| format!("{}: {e}", to.display()))
}
