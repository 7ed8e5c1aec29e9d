//! Each guest program's place: at 1 MiB for a multiboot loader, or where FreeBSD's kernel is.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = |bin: &str, name: &str| {
        println!("cargo:rustc-link-arg-bin={bin}=-T{folder}/{name}");
        println!("cargo:rerun-if-changed={name}");
    };
    for bin in [
        "demo", "modes", "exits", "memory", "spin", "tables", "apic", "xsave", "bench", "testdev",
        "echo",
    ] {
        script(bin, "guest.ld");
    }
    script("freebsd", "freebsd.ld");
    // FreeBSD's emulation gives the file FreeBSD's OSABI; the symbols stay, to be loaded.
    for argument in ["-melf_x86_64_fbsd", "--strip-debug"] {
        println!("cargo:rustc-link-arg-bin=freebsd={argument}");
    }
}
