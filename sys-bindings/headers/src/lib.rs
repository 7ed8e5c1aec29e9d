//! Where the FreeBSD headers and a clang that can read them are on the build machine.
//! Used by the build scripts that run bindgen (sys-bindings) or compile the C shim
//! (the root build.rs), so that both see the same headers.
//!
//! The headers are never vendored. On FreeBSD they are the host's own; elsewhere they come
//! with the `ziglang` wheel that `make setup` puts into build/venv. Those of FreeBSD 14, for
//! which the module is built as well, are in build/freebsd-14. Overrides:
//!
//! * `VMM_RS_FREEBSD_INCLUDE`: include directories, colon separated, in search order;
//! * `VMM_RS_CLANG`: the clang to run; `LIBCLANG_PATH`: the directory of libclang.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest clang this project is built with.
const OLDEST_CLANG: u32 = 19;
/// Versions that Debian and Ubuntu install beside each other under /usr/lib/llvm-N.
const NEWEST_CLANG: u32 = 30;

/// Headers and compiler, each checked to exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Headers {
    /// Directories for `-isystem`, in search order.
    pub include_dirs: Vec<PathBuf>,
    /// The clang to compile C with, version 19 or newer.
    pub clang: PathBuf,
    /// The directory that holds libclang.so (`LIBCLANG_PATH`).
    pub libclang: PathBuf,
}

impl Headers {
    /// Arguments of clang for a file that reads the FreeBSD headers: target, no host
    /// headers, these include directories.
    pub fn clang_args(&self) -> Vec<String> {
        clang_args(15, &self.include_dirs)
    }

    /// The FreeBSD kernels that the module can be built for here. The first is the one
    /// these headers are of.
    pub fn kernels(&self) -> Result<Vec<Kernel>, String> {
        let mut kernels = vec![Kernel {
            release: 15,
            version: 1_500_068,
            include_dirs: self.include_dirs.clone(),
            module: PathBuf::from("build/vmm_rs.ko"),
        }];
        if env::var_os("VMM_RS_FREEBSD_INCLUDE").is_none() && !cfg!(target_os = "freebsd") {
            kernels.push(Kernel {
                release: 14,
                version: 1_400_097,
                include_dirs: freebsd_14_dirs()?,
                module: PathBuf::from("build/vmm_rs-14.ko"),
            });
        }
        Ok(kernels)
    }

    /// A program of the same LLVM (`ld.lld`, `llvm-objcopy`), else one on the PATH.
    pub fn tool(&self, name: &str) -> PathBuf {
        let beside = self.clang.with_file_name(name);
        if beside.is_file() {
            beside
        } else {
            PathBuf::from(name)
        }
    }
}

/// A FreeBSD kernel to build the module for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// The major release.
    pub release: u32,
    /// `__FreeBSD_version` of that release's first, whose modules all later ones load. The
    /// wheels' headers lack it; a FreeBSD system's own sys/param.h overrides it.
    pub version: u32,
    /// Directories for `-isystem`, in search order.
    pub include_dirs: Vec<PathBuf>,
    /// What the module is called, from the top of the workspace.
    pub module: PathBuf,
}

impl Kernel {
    /// Arguments of clang for a file of this kernel or of a module.
    pub fn clang_args(&self) -> Vec<String> {
        let mut args = clang_args(self.release, &self.include_dirs);
        // SMP decides sizes of the kernel's structures (cpuset_t, pmap, vmspace).
        args.extend(["_KERNEL", "KLD_MODULE", "SMP"].map(|name| format!("-D{name}")));
        args.push(format!("-D__FreeBSD_version={}", self.version));
        // Empty stand-ins for headers that FreeBSD generates and the wheels lack.
        let generated = workspace().join("kmod/shim/freebsd/include");
        args.push(format!("-I{}", generated.display()));
        args
    }
}

fn clang_args(release: u32, include_dirs: &[PathBuf]) -> Vec<String> {
    let mut args = vec![
        format!("--target=x86_64-unknown-freebsd{release}.0"),
        "-nostdinc".to_owned(),
    ];
    for dir in include_dirs {
        args.push("-isystem".to_owned());
        args.push(dir.display().to_string());
    }
    args
}

/// What a build script prints so that it runs again when the answer of [`find`] may change.
pub const RERUN_IF: [&str; 3] = [
    "cargo:rerun-if-env-changed=VMM_RS_FREEBSD_INCLUDE",
    "cargo:rerun-if-env-changed=VMM_RS_CLANG",
    "cargo:rerun-if-env-changed=LIBCLANG_PATH",
];

/// Finds headers and clang, or says what is missing and what to do.
pub fn find() -> Result<Headers, String> {
    let include_dirs = include_dirs()?;
    let clang = clang()?;
    let libclang = find_libclang(&clang)?;
    Ok(Headers {
        include_dirs,
        clang,
        libclang,
    })
}

/// The top of the workspace, where `build/` is.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn include_dirs() -> Result<Vec<PathBuf>, String> {
    let dirs = if let Some(list) = env::var_os("VMM_RS_FREEBSD_INCLUDE") {
        env::split_paths(&list).collect()
    } else if cfg!(target_os = "freebsd") {
        vec![PathBuf::from("/usr/include")]
    } else {
        wheel_dirs()?
    };
    let dirs: Vec<PathBuf> = dirs;
    if let Some(version) = system_version(&dirs).filter(|version| version / 100_000 != 15) {
        return Err(format!(
            "{dirs:?} has the headers of FreeBSD {}.{}, and the ABI is that of 15: set VMM_RS_FREEBSD_INCLUDE to \
             the include directory of a FreeBSD 15 system",
            version / 100_000,
            version % 100_000 / 1000
        ));
    }
    let has = |name: &str| dirs.iter().any(|dir| dir.join(name).is_file());
    match ["machine/vmm.h", "machine/vmm_dev.h", "sys/param.h"]
        .into_iter()
        .find(|name| !has(name))
    {
        None => Ok(dirs),
        Some(name) => Err(format!(
            "FreeBSD 15 headers: {name} is not in {dirs:?}; run `make setup`, or set VMM_RS_FREEBSD_INCLUDE \
             to the include directory of a FreeBSD 15 system"
        )),
    }
}

/// `__FreeBSD_version` of a system's own headers; the wheels' have none.
fn system_version(dirs: &[PathBuf]) -> Option<u32> {
    dirs.iter()
        .filter_map(|dir| fs::read_to_string(dir.join("sys/param.h")).ok())
        .find_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("#define __FreeBSD_version"))?;
            line.split_whitespace().next()?.parse().ok()
        })
}

/// The include directories of the ziglang wheel in build/venv.
fn wheel_dirs() -> Result<Vec<PathBuf>, String> {
    let lib = workspace().join("build/venv/lib");
    let missing = || {
        format!(
            "FreeBSD headers: no ziglang wheel under {}; run `make setup`",
            lib.display()
        )
    };
    let pythons = lib.read_dir().map_err(|_| missing())?;
    pythons
        .flatten()
        .map(|python| python.path().join("site-packages/ziglang/lib/libc/include"))
        .find_map(|top| {
            // The real path, because build scripts and their output outlive the current directory.
            Some(ziglang_dirs(&top.canonicalize().ok()?))
        })
        .ok_or_else(missing)
}

/// The include directories for FreeBSD in a copy of ziglang's.
fn ziglang_dirs(top: &Path) -> Vec<PathBuf> {
    ["x86_64-freebsd-none", "generic-freebsd"]
        .map(|name| top.join(name))
        .to_vec()
}

/// The headers of FreeBSD 14.
fn freebsd_14_dirs() -> Result<Vec<PathBuf>, String> {
    let dir = workspace().join("build/freebsd-14/include");
    dir.canonicalize()
        .map(|top| ziglang_dirs(&top))
        .map_err(|_| {
            format!(
                "FreeBSD 14 headers: {} is missing; run `make setup`",
                dir.display()
            )
        })
}

fn clang() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("VMM_RS_CLANG").map(PathBuf::from) {
        return match clang_version(&path) {
            Some(version) if version >= OLDEST_CLANG => Ok(path),
            Some(version) => Err(format!(
                "VMM_RS_CLANG={}: version {version}, {OLDEST_CLANG} or newer is needed",
                path.display()
            )),
            None => Err(format!(
                "VMM_RS_CLANG={}: does not run as clang",
                path.display()
            )),
        };
    }
    (OLDEST_CLANG..=NEWEST_CLANG)
        .map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/bin/clang")))
        .chain([PathBuf::from("clang"), PathBuf::from("cc")])
        .find(|path| clang_version(path).is_some_and(|version| version >= OLDEST_CLANG))
        .ok_or_else(|| {
            format!("clang {OLDEST_CLANG} or newer is needed and was not found; run `make setup`, or set VMM_RS_CLANG")
        })
}

/// The major version, if the program is a clang.
fn clang_version(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("clang version ")?;
    rest.split('.').next()?.trim().parse().ok()
}

fn find_libclang(clang: &Path) -> Result<PathBuf, String> {
    if let Some(dir) = env::var_os("LIBCLANG_PATH") {
        return Ok(PathBuf::from(dir));
    }
    // Beside the compiler (/usr/lib/llvm-19/{bin,lib}), or where the system keeps libraries.
    let beside = clang
        .parent()
        .and_then(Path::parent)
        .map(|top| top.join("lib"));
    beside
        .into_iter()
        .chain(["/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib"].map(PathBuf::from))
        .chain((OLDEST_CLANG..=NEWEST_CLANG).flat_map(|version| {
            [
                format!("/usr/lib/llvm-{version}/lib"),
                format!("/usr/local/llvm{version}/lib"),
            ]
            .map(PathBuf::from)
        }))
        .find(|dir| holds_libclang(dir))
        .ok_or_else(|| {
            format!(
                "libclang for {} was not found; run `make setup`, or set LIBCLANG_PATH",
                clang.display()
            )
        })
}

fn holds_libclang(dir: &Path) -> bool {
    dir.read_dir().is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libclang.so") || name.starts_with("libclang-") && name.contains(".so")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_can_compile_the_vmm_headers() {
        let headers = find().unwrap();
        let status = Command::new(&headers.clang)
            .args(headers.clang_args())
            .args([
                "-fsyntax-only",
                "-x",
                "c",
                "-include",
                "sys/param.h",
                "-include",
                "machine/vmm.h",
                "/dev/null",
            ])
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn each_kernel_has_its_own_headers() {
        for kernel in find().unwrap().kernels().unwrap() {
            let status = Command::new(find().unwrap().clang)
                .args(kernel.clang_args())
                .args(["-fsyntax-only", "-x", "c", "-include", "sys/param.h"])
                .args(["-include", "sys/systm.h", "-include", "machine/vmm.h"])
                .arg("/dev/null")
                .status()
                .unwrap();
            assert!(status.success(), "{kernel:?}");
        }
    }

    #[test]
    fn the_version_of_a_systems_headers_is_read() {
        let dir = env::temp_dir().join(format!("vmm_headers-{}", std::process::id()));
        fs::create_dir_all(dir.join("sys")).unwrap();
        let dirs = [PathBuf::from("/nonexistent"), dir.clone()];
        let mut versions = Vec::new();
        for text in [
            "#undef __FreeBSD_version\n#define __FreeBSD_version 1402000 /* Master */\n",
            "/* zig patch */\n",
        ] {
            fs::write(dir.join("sys/param.h"), text).unwrap();
            versions.push(system_version(&dirs));
        }
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(versions, [Some(1_402_000), None]);
    }

    #[test]
    fn a_compiler_that_is_not_clang_has_no_version() {
        assert_eq!(clang_version(Path::new("/bin/sh")), None);
        assert_eq!(clang_version(Path::new("/nonexistent/clang")), None);
    }
}
