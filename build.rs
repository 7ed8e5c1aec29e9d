//! With feature `ko`: makes vmm_rs.ko for FreeBSD out of the core's staticlib and the C
//! shim. `make ko` builds the staticlib first, then runs this; what it leaves in build/:
//!
//! * `build/ko/rust.o`: the core as one object, for the Linux lab module too;
//! * `build/vmm_rs.ko`: what `kldload` loads on FreeBSD 15, `build/vmm_rs-14.ko` on 14.
//!
//! On FreeBSD kmod/Makefile does the same with the system's own bsd.kmod.mk.
//!
//! Without the feature it needs no kernel target, so that plain cargo works.
//!
//! Tells the end-to-end tests which host they are for: `freebsd_host` with feature
//! `freebsd-host` or on FreeBSD, and `native_host` in the latter case.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_set = |variable: &str| std::env::var_os(variable).is_some();
    let native = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "freebsd");
    for (name, is) in [
        (
            "freebsd_host",
            native || is_set("CARGO_FEATURE_FREEBSD_HOST"),
        ),
        ("native_host", native),
    ] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if is {
            println!("cargo:rustc-cfg={name}");
        }
    }
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

    use vmm_headers::{Headers, Kernel};

    const STATICLIB: &str = "target/kernel/x86_64-unknown-none/kernel/libvmm_rs.a";
    const SHIM: &str = "kmod/shim/freebsd";
    const MERGE: &str = "kmod/build/merge";
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

    pub fn build() -> Result<(), String> {
        let headers = vmm_headers::find()?;
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
        let build = Path::new("build");
        fs::create_dir_all(build.join("ko")).map_err(|e| format!("build/ko: {e}"))?;

        let rust_o = build.join("ko/rust.o");
        run(Command::new(MERGE)
            .arg(&rust_o)
            .env("LD", headers.tool("ld.lld"))
            .env("NM", headers.tool("llvm-nm")))?;
        for kernel in headers.kernels()? {
            let out = out.join(format!("freebsd-{}", kernel.release));
            fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
            let shim = compile_shim(&headers, &kernel, &out)?;
            link(&headers, &shim, &rust_o, &kernel.module)?;
        }

        for path in [
            STATICLIB,
            SHIM,
            "kmod/shim/host.h",
            MERGE,
            "kmod/build/merge.lds",
            LINK_SCRIPT,
        ] {
            println!("cargo:rerun-if-changed={path}");
        }
        for line in vmm_headers::RERUN_IF {
            println!("{line}");
        }
        Ok(())
    }

    fn compile_shim(
        headers: &Headers,
        kernel: &Kernel,
        out: &Path,
    ) -> Result<Vec<PathBuf>, String> {
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
            .flag(format!("-ffile-prefix-map={}=.", here()?.display()))
            .files(&sources);
        for flag in kernel
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
        cc.try_compile_intermediates()
            .map_err(|e| format!("{SHIM}, for FreeBSD {}: {e}", kernel.release))
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
