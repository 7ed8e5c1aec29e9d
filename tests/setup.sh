#!/bin/sh
# Installs what the build, the tests and the lab need, and nothing that is there already:
#   tests/setup.sh          everything          tests/setup.sh --check   only say what is missing
# Debian and Ubuntu: apt packages, and a Python environment in build/venv for the FreeBSD
# headers and cross linker. FreeBSD: pkg. Elsewhere: a list of what is needed. SETUP=no: this
# is a port's or a package's build, which has seen to it.
set -eu
[ "${SETUP-}" != no ] || exit 0
cd "$(dirname "$0")/.."
log=build/logs/setup.log
mkdir -p build/logs

zig=0.17.0
zig_14=0.15.1
say() { echo "setup: $*"; }
die() {
	echo "setup: $*" >&2
	exit 1
}
# Runs a long step with its output in the log.
step() {
	what=$1
	shift
	say "$what"
	"$@" >>"$log" 2>&1 || die "failed: $what; see $log"
}
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

check_rust() {
	command -v cargo >/dev/null ||
		die "no cargo on the PATH: install Rust's stable toolchain first (https://rustup.rs)"
}

# ---- Debian and Ubuntu -------------------------------------------------------------

# Build and lab tools under the same name everywhere, then those that differ.
apt_packages="build-essential python3 python3-venv clang-19 lld-19 llvm-19 libclang1-19 \
	bochs bochs-term bochsbios vgabios grub-pc-bin grub-common xorriso mtools busybox-static cpio gzip acpica-tools \
	e2fsprogs mandoc makefs fdisk bmake libslirp0"

apt_missing() {
	for package in "$@"; do
		dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
	done
}
# The first of these packages that the archive has.
apt_first() {
	for package in "$@"; do
		if apt-cache show "$package" >/dev/null 2>&1; then
			echo "$package"
			return
		fi
	done
}
lab_release() { tests/lab/kernel-release 2>/dev/null; }

setup_apt() {
	wanted=$(apt_missing $apt_packages)
	rust=
	kmod/build/cargo-kernel --which >/dev/null 2>&1 || rust=1
	headers=
	lab_release >/dev/null || headers=1
	if [ -n "$wanted$rust$headers" ]; then
		[ -z "$check" ] || die "missing: $wanted${rust:+ rust library sources}${headers:+ kernel headers of the lab}"
		step "apt-get update" as_root apt-get update
		[ -z "$rust" ] || rust=$(rust_packages)
		[ -z "$headers" ] || headers=$(kernel_packages)
		# Word splitting is meant: these are lists.
		# shellcheck disable=SC2086
		set -- $wanted $rust $headers
		[ $# = 0 ] || step "apt-get install $*" as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y --no-install-recommends "$@"
	fi
	kmod/build/cargo-kernel --which >/dev/null 2>&1 ||
		step "rustup component add rust-src" rustup component add rust-src
	lab_kernel
	pc_kernel
	venv
	headers_14
}

# Debian's own compiler has the library sources that go with it. Elsewhere rustup's
# component does, which setup_apt adds.
rust_packages() {
	[ -z "$(apt_first rust-web-src)" ] || echo rustc-web cargo-web rust-web-src
}

# The lab's kernel (Debian's for clouds: small, few drivers) is not installed, only its
# headers and their compiler.
kernel_packages() {
	metapackage=$(apt_first linux-headers-cloud-amd64 linux-headers-virtual)
	[ -n "$metapackage" ] || die "no linux-headers-cloud-amd64 or linux-headers-virtual in the archive"
	echo "$metapackage $(apt_first gcc-12 gcc)"
}

# Fetches the kernel image that goes with the headers into build/lab/kernel, its KVM, which
# the tests need as the other hypervisor, and the drivers it needs as a guest.
lab_kernel() {
	release=$(lab_release) || die "the lab's kernel headers are not installed; see $log"
	[ -r "build/lab/kernel/vmlinuz-$release" ] && [ -r "build/lab/kernel/kvm-$release/kvm-intel.ko.gz" ] &&
		[ -r "build/lab/kernel/guest-$release/virtio_console.ko" ] && return
	[ -z "$check" ] || die "missing: build/lab/kernel/vmlinuz-$release and its modules"
	mkdir -p build/lab/kernel/deb
	if [ -r "/boot/vmlinuz-$release" ] && [ -e "/lib/modules/$release/kernel/virt/lib" ]; then
		lab_kernel_from ""
	else
		(
			cd build/lab/kernel/deb
			rm -rf ./*
			log=$OLDPWD/$log
			step "kernel image of the lab ($release)" apt-get download "linux-image-$release"
			dpkg-deb --fsys-tarfile ./*.deb |
				tar -x --wildcards './boot/vmlinuz-*' '*/kernel/virt/lib/*' '*/kernel/arch/x86/kvm/*' \
					'*/kernel/drivers/*' '*/kernel/net/core/*'
		)
		lab_kernel_from build/lab/kernel/deb
	fi
	rm -r build/lab/kernel/deb
}
lab_kernel_from() {
	from=$1
	kvm=build/lab/kernel/kvm-$release
	mkdir -p "$kvm"
	for module in virt/lib/irqbypass arch/x86/kvm/kvm arch/x86/kvm/kvm-intel; do
		lab_module $module >"$kvm/${module##*/}.ko"
		gzip -9nf "$kvm/${module##*/}.ko"
	done
	guest=build/lab/kernel/guest-$release
	mkdir -p "$guest"
	# The last one is what says that all are there.
	for module in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev \
		virtio/virtio_pci block/virtio_blk char/hw_random/virtio-rng acpi/button ../net/core/failover \
		net/net_failover net/virtio_net block/loop net/tun char/virtio_console; do
		lab_module drivers/$module >"$guest/${module##*/}.ko"
	done
	cp "$from/boot/vmlinuz-$release" build/lab/kernel/
}
# Debian's kernel for PCs, of the same version: the guest that tests disks, for the one for
# clouds has no AHCI driver. With the modules for that, in the order in which they load.
pc_modules="drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev \
	drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/block/virtio_blk \
	drivers/scsi/scsi_common drivers/scsi/scsi_mod crypto/crct10dif_common lib/crc-t10dif lib/crc64 lib/crc64-rocksoft \
	block/t10-pi drivers/scsi/sd_mod drivers/cdrom/cdrom drivers/scsi/sr_mod fs/isofs/isofs \
	drivers/ata/libata drivers/ata/libahci drivers/ata/ahci"
pc_kernel() {
	to=build/lab/kernel/pc-$release
	[ -r "$to/vmlinuz" ] && return
	[ -z "$check" ] || die "missing: $to"
	pc=$(echo "$release" | sed s/-cloud//)
	rm -rf "$to" build/lab/kernel/deb
	mkdir -p "$to" build/lab/kernel/deb
	(
		cd build/lab/kernel/deb
		log=$OLDPWD/$log
		step "kernel image of the disk tests' guest ($pc)" apt-get download "linux-image-$pc"
		dpkg-deb --fsys-tarfile ./*.deb |
			tar -x --wildcards './boot/vmlinuz-*' '*/kernel/drivers/*' '*/kernel/fs/*' '*/kernel/lib/*' '*/kernel/crypto/*' '*/kernel/block/*'
	)
	from=build/lab/kernel/deb
	for module in $pc_modules; do
		(release=$pc && lab_module "$module") >"$to/${module##*/}.ko"
		echo "${module##*/}.ko" >>"$to/order"
	done
	cp "$from/boot/vmlinuz-$pc" "$to/vmlinuz"
	rm -r "$from"
}
# A module of the lab's kernel, unpacked, to stdout.
lab_module() {
	packed=$(ls "$from"/lib/modules/"$release"/kernel/"$1".ko* "$from"/usr/lib/modules/"$release"/kernel/"$1".ko* 2>/dev/null | head -n 1)
	case $packed in
	*.ko) cat "$packed" ;;
	*.xz) xz -dc "$packed" ;;
	*.zst) zstd -dc "$packed" ;;
	*) die "no module $1.ko for kernel $release" ;;
	esac
}

# ziglang brings FreeBSD's headers and a linker for its userland.
venv() {
	[ -f "build/venv/ziglang-$zig" ] && return
	[ -z "$check" ] || die "missing: build/venv with ziglang $zig"
	step "python environment build/venv" python3 -m venv --clear build/venv
	step "ziglang $zig from PyPI" build/venv/bin/pip install --disable-pip-version-check "ziglang==$zig"
	touch "build/venv/ziglang-$zig"
}

# An older ziglang has the headers of FreeBSD 14: two folders of its wheel are kept.
headers_14() {
	[ -f "build/freebsd-14/ziglang-$zig_14" ] && return
	[ -z "$check" ] || die "missing: build/freebsd-14, the headers in ziglang $zig_14"
	rm -rf build/freebsd-14
	mkdir -p build/freebsd-14
	step "FreeBSD 14's headers, from ziglang $zig_14 on PyPI" build/venv/bin/pip download --disable-pip-version-check \
		--no-cache-dir --no-deps --only-binary :all: --dest build/freebsd-14 "ziglang==$zig_14"
	step "unpacking them" build/venv/bin/python -c '
import pathlib, sys, zipfile
wheel, to = sys.argv[1], pathlib.Path(sys.argv[2])
top = "ziglang/lib/libc/include/"
with zipfile.ZipFile(wheel) as files:
    for name in files.namelist():
        if name.startswith((top + "x86_64-freebsd-none/", top + "generic-freebsd/")) and not name.endswith("/"):
            path = to / name[len(top):]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.read(name))
' build/freebsd-14/*.whl build/freebsd-14/include
	rm build/freebsd-14/*.whl
	touch "build/freebsd-14/ziglang-$zig_14"
}

# ---- FreeBSD -----------------------------------------------------------------------

setup_pkg() {
	wanted=
	for package in llvm19 gmake bochs acpica-tools; do
		pkg info -e "$package" || wanted="$wanted $package"
	done
	if [ -n "$wanted" ]; then
		[ -z "$check" ] || die "missing:$wanted"
		# shellcheck disable=SC2086
		step "pkg install$wanted" as_root pkg install -y $wanted
	fi
	kmod/build/cargo-kernel --which >/dev/null 2>&1 ||
		step "rustup component add rust-src" rustup component add rust-src
}

# ---- The choice --------------------------------------------------------------------

check=
[ "${1-}" != --check ] || check=1
check_rust
if [ "$(uname -s)" = FreeBSD ]; then
	setup_pkg
elif command -v apt-get >/dev/null; then
	setup_apt
else
	die "neither apt-get nor FreeBSD's pkg here. Needed by hand: clang, lld and llvm 19 or newer with libclang;
  the rust-src component of the active Rust toolchain; python3 with venv, then
  \`python3 -m venv build/venv && build/venv/bin/pip install ziglang==$zig\`;
  the FreeBSD headers of ziglang $zig_14 in build/freebsd-14/include; and for the lab: bochs 2.7 with its
  BIOS images, grub (i386-pc), xorriso, makefs, sfdisk, mtools, a static busybox, cpio, and headers, image and compiler of a Linux 6.1 kernel."
fi
[ -n "$check" ] || say "everything needed is here"
