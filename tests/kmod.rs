//! kmod/Makefile, which FreeBSD's make(1) reads, with a stand-in for what FreeBSD's own
//! makefiles do with it: it must bring all sources, the core in Rust and nothing else, and
//! the module must be one that the kernel takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmm_rs_e2e::check_ko::{Kpi, check};

/// What bsd.kmod.mk does, in short: generated headers, objects, the link without symbols
/// for others, clean and install.
const BSD_KMOD_MK: &str = "
.SUFFIXES: .c .o
KMODDIR?=	/boot/kernel
OBJS+=	${SRCS:N*.h:R:S/$/.o/g}
PROG=	${KMOD}.ko
all: ${PROG}
${OBJS:Ncore.o}: ${SRCS:M*.h}
${SRCS:M*.h}:
	:> ${.TARGET}
.c.o:
	${CC} ${CFLAGS} -c -o ${.TARGET} ${.IMPSRC}
${PROG}: ${OBJS}
	${LD} -m elf_x86_64_fbsd -r -o ${.TARGET} ${OBJS}
	${OBJCOPY} --strip-debug --wildcard '--localize-symbol=*' ${.TARGET}
install:
	mkdir -p ${DESTDIR}${KMODDIR}
	cp ${PROG} ${DESTDIR}${KMODDIR}/
clean:
	rm -f ${PROG} ${OBJS} ${SRCS:M*.h} ${CLEANFILES}
";

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// FreeBSD's make in kmod/, with its objects in `dir`.
fn make(dir: &Dir, targets: &[&str]) -> Output {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let headers = vmm_headers::find().unwrap();
    let kernel = &headers.kernels().unwrap()[0];
    let mut cflags = kernel.clang_args();
    cflags.extend(
        [
            "-O2",
            "-mcmodel=kernel",
            "-mno-red-zone",
            "-mno-sse",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-asynchronous-unwind-tables",
            "-Werror",
        ]
        .map(str::to_owned),
    );
    let make = if cfg!(target_os = "freebsd") {
        "make"
    } else {
        "bmake"
    };
    Command::new(make)
        // Not another make's variables.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("MFLAGS")
        .arg("-C")
        .arg(top.join("kmod"))
        .arg("-m")
        .arg(&dir.0)
        .arg(format!("OBJECTS={}", dir.0.join("objects").display()))
        .arg(format!("DESTDIR={}", dir.0.join("stage").display()))
        .arg(format!("CC={}", headers.clang.display()))
        .arg(format!("CFLAGS={}", cflags.join(" ")))
        .arg(format!("LD={}", headers.tool("ld.lld").display()))
        .arg(format!("NM={}", headers.tool("llvm-nm").display()))
        .arg(format!(
            "OBJCOPY={}",
            headers.tool("llvm-objcopy").display()
        ))
        .args(targets)
        .output()
        .expect("FreeBSD's make; `make setup` installs it")
}

#[track_caller]
fn made(dir: &Dir, targets: &[&str]) -> String {
    let output = make(dir, targets);
    assert!(output.status.success(), "{targets:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn freebsds_make_builds_installs_and_cleans_the_module() {
    let dir = Dir(std::env::temp_dir().join(format!("vmm_rs-kmod-{}", std::process::id())));
    fs::create_dir_all(&dir.0).unwrap();
    fs::write(dir.0.join("bsd.kmod.mk"), BSD_KMOD_MK).unwrap();
    // make(1) has no rules of its own without it.
    fs::write(dir.0.join("sys.mk"), "").unwrap();

    made(&dir, &[]);
    let list = fs::read_to_string(Kpi::PATH).unwrap();
    let kpi = Kpi::parse(&list).unwrap();
    let module = dir.0.join("objects/vmm_rs.ko");
    let checked = check(&fs::read(&module).unwrap(), &kpi).unwrap();
    assert_eq!(checked.problems, []);
    // The same code as build.rs links: neither part of it is missing.
    let cross = check(&fs::read("build/vmm_rs.ko").unwrap(), &kpi).unwrap();
    assert_eq!(checked.needed, cross.needed);

    // Nothing has changed, so nothing is linked.
    let again = made(&dir, &[]);
    assert!(!again.contains("-o vmm_rs.ko"), "{again}");

    made(&dir, &["install"]);
    assert!(dir.0.join("stage/boot/modules/vmm_rs.ko").is_file());

    made(&dir, &["clean"]);
    let left: Vec<_> = fs::read_dir(dir.0.join("objects"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
