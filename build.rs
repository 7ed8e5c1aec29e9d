//! With feature `ko`: makes vmm_rs.ko for FreeBSD out of the core's staticlib and the C
//! shim. `make ko` builds the staticlib first, then runs this; what it leaves in build/:
//!
//! * `build/ko/rust.o`: the core as one object, for the Linux lab module too;
//! * `build/vmm_rs.ko`: what `kldload` loads.
//!
//! Without the feature it does nothing, so that plain cargo needs no kernel target.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "ko")]
    if let Err(message) = ko::build() {
        eprintln!("vmm_rs.ko: {message}");
        std::process::exit(1);
    }
}

#[cfg(feature = "ko")]
mod ko {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use vmm_headers::Headers;

    const STATICLIB: &str = "target/kernel/x86_64-unknown-none/kernel/libvmm_rs.a";
    const SHIM: &str = "kmod/shim/freebsd";
    const MERGE_SCRIPT: &str = "kmod/build/merge.lds";
    const LINK_SCRIPT: &str = "kmod/build/kmod.lds";

    /// What FreeBSD's bsd.kmod.mk gives clang on amd64, as far as a module needs it.
    const KERNEL_FLAGS: [&str; 14] = [
        "-mcmodel=kernel",
        "-mno-red-zone",
        "-mno-mmx",
        "-mno-sse",
        "-msoft-float",
        "-ffreestanding",
        "-fwrapv",
        // As the kernel itself: its headers and atomics pun types.
        "-fno-strict-aliasing",
        "-fno-common",
        "-fno-asynchronous-unwind-tables",
        // Else clang loads __stack_chk_guard through the GOT, which kldload refuses.
        "-fno-stack-protector",
        "-fno-omit-frame-pointer",
        "-gz=none",
        "-O2",
    ];

    /// SMP decides sizes of the kernel's structures (cpuset_t, pmap, vmspace). The wheel's
    /// headers lack __FreeBSD_version; a host's own sys/param.h defines it.
    const DEFINES: [&str; 3] = ["_KERNEL", "KLD_MODULE", "SMP"];
    const WHEEL_FREEBSD_VERSION: &str = "1500068";

    pub fn build() -> Result<(), String> {
        let headers = vmm_headers::find()?;
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
        let build = Path::new("build");
        fs::create_dir_all(build.join("ko")).map_err(|e| format!("build/ko: {e}"))?;

        let rust_o = build.join("ko/rust.o");
        merge(&headers, &rust_o)?;
        let shim = compile_shim(&headers, &out)?;
        link(&headers, &shim, &rust_o, &build.join("vmm_rs.ko"))?;

        for path in [
            STATICLIB,
            SHIM,
            "kmod/shim/host.h",
            MERGE_SCRIPT,
            LINK_SCRIPT,
        ] {
            println!("cargo:rerun-if-changed={path}");
        }
        for line in vmm_headers::RERUN_IF {
            println!("{line}");
        }
        Ok(())
    }

    /// The staticlib as one relocatable object that holds what the entry points reach.
    fn merge(headers: &Headers, rust_o: &Path) -> Result<(), String> {
        if !Path::new(STATICLIB).is_file() {
            return Err(format!("{STATICLIB} is missing; build it with `make ko`"));
        }
        let entry_points = entry_points(headers)?;
        let mut ld = Command::new(headers.tool("ld.lld"));
        ld.args([
            "-m",
            "elf_x86_64_fbsd",
            "-r",
            "--gc-sections",
            "-T",
            MERGE_SCRIPT,
            "-o",
        ])
        .arg(rust_o);
        for symbol in &entry_points {
            ld.args(["-u", symbol]);
        }
        run(ld.arg(STATICLIB))
    }

    /// The `vmm_rs_*` functions of the staticlib: what kmod/shim/host.h says the shim calls.
    fn entry_points(headers: &Headers) -> Result<Vec<String>, String> {
        let mut nm = Command::new(headers.tool("llvm-nm"));
        let output = nm
            .args([
                "--defined-only",
                "--extern-only",
                "--format=just-symbols",
                "--quiet",
                STATICLIB,
            ])
            .output()
            .map_err(|e| format!("{nm:?}: {e}"))?;
        let names = String::from_utf8_lossy(&output.stdout);
        let found: Vec<String> = names
            .lines()
            .filter(|name| name.starts_with("vmm_rs_"))
            .map(str::to_owned)
            .collect();
        if found.is_empty() {
            return Err(format!("{STATICLIB} exports no vmm_rs_* function"));
        }
        Ok(found)
    }

    fn compile_shim(headers: &Headers, out: &Path) -> Result<Vec<PathBuf>, String> {
        let mut sources: Vec<PathBuf> = fs::read_dir(SHIM)
            .map_err(|e| format!("{SHIM}: {e}"))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
            .collect();
        sources.sort();
        if sources.is_empty() {
            return Err(format!("{SHIM} holds no C source"));
        }
        let mut cc = cc::Build::new();
        cc.compiler(&headers.clang)
            .target("x86_64-unknown-freebsd")
            .no_default_flags(true)
            .out_dir(out)
            .include("kmod/shim")
            // Empty stand-ins for headers that FreeBSD generates and the wheel lacks.
            .include("kmod/shim/freebsd/include")
            .flag(format!("-ffile-prefix-map={}=.", here()?.display()))
            .files(&sources);
        for flag in headers
            .clang_args()
            .iter()
            .map(String::as_str)
            .chain(KERNEL_FLAGS)
        {
            cc.flag(flag);
        }
        for flag in [
            "-std=gnu17",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-parameter",
        ] {
            cc.flag(flag);
        }
        for define in DEFINES {
            cc.define(define, None);
        }
        if !cfg!(target_os = "freebsd") {
            cc.define("__FreeBSD_version", WHEEL_FREEBSD_VERSION);
        }
        cc.try_compile_intermediates()
            .map_err(|e| format!("{SHIM}: {e}"))
    }

    /// Links without garbage collection: the kernel finds linker sets by section name only.
    fn link(headers: &Headers, shim: &[PathBuf], rust_o: &Path, ko: &Path) -> Result<(), String> {
        run(Command::new(headers.tool("ld.lld"))
            .args([
                "-m",
                "elf_x86_64_fbsd",
                "-r",
                "--build-id=sha1",
                "-warn-common",
                "-T",
                LINK_SCRIPT,
                "-o",
            ])
            .arg(ko)
            .args(shim)
            .arg(rust_o))?;
        // No symbol of ours is for other modules.
        run(Command::new(headers.tool("llvm-objcopy"))
            .args(["--strip-debug", "--wildcard", "--localize-symbol=*"])
            .arg(ko))
    }

    fn here() -> Result<PathBuf, String> {
        std::env::current_dir().map_err(|e| e.to_string())
    }

    fn run(command: &mut Command) -> Result<(), String> {
        let output = command
            .output()
            .map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}
