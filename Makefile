# What a person types. Written for both GNU make and FreeBSD's make; the work is done by
# cargo, build.rs and the small scripts named here. VERBOSE=1 shows all output.

STEP = tests/step
# The kernel's, the guests' and the lab's programs are built beside each other. (GNU make;
# FreeBSD's takes -j2 from the command line.)
MAKEFLAGS += -j2

.PHONY: all help setup ko lab-module userland freebsd-userland guests lab-userland image linux-guest check-ko \
	freebsd-image-parts run demo lab test freebsd-test fuzz bench fmt lint install uninstall clean

# What a host builds, and what its tests need. The Linux lab's parts are Debian's.
OS != uname -s
ALL_Linux = ko userland lab-module freebsd-userland
ALL_FreeBSD = ko freebsd-userland
TESTED_Linux = linux-guest freebsd-userland check-ko
TESTED_FreeBSD = guests freebsd-userland check-ko

all: $(ALL_$(OS)) ## everything for this machine: vmm_rs.ko for FreeBSD, lab module, userland

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | \
	while IFS='|' read -r name what; do printf '  make %-18s %s\n' "$$name" "$$what"; done

setup: ## install what is missing (apt or pkg, a Python environment in build/)
	@tests/setup.sh

ko: setup ## build/vmm_rs.ko, the FreeBSD kernel module; vmm_rs-14.ko is for FreeBSD 14
	@$(STEP) core "kernel core (Rust)" kmod/build/core
	@$(STEP) ko "vmm_rs.ko for FreeBSD" cargo build --package vmm_rs_e2e --lib --features ko

userland: setup ## bhyve, bhyveload and bhyvectl for this machine, in target/release
	@$(STEP) userland "userland" cargo build --release --package bhyve --package bhyveload --package bhyvectl

freebsd-userland: setup ## build/freebsd: the userland for FreeBSD 14 and 15
	@$(STEP) freebsd-userland "userland for FreeBSD" userland/build/freebsd

lab-module: ko ## build/lab/vmm_rs.ko, the module for the lab's Linux host
	@$(STEP) lab-module "lab module (Linux)" kmod/build/lab-module

guests: setup ## the guest programs of the tests, in build/lab/root
	@[ ! -x tests/guests/build ] || $(STEP) guests "guest programs" tests/guests/build

lab-userland: setup ## the userland and the tests' programs for the lab's host, in build/lab/userland
	@$(STEP) lab-userland "userland for the lab (static)" userland/build/lab

image: lab-module guests lab-userland ## the lab's root file system with all that runs there
	@$(STEP) image "lab image" tests/lab/linux/image

linux-guest: image ## Debian's kernel and an ext4 disk, for the lab host to run as a guest
	@$(STEP) linux-guest "Linux guest" tests/linux/build

check-ko: ko ## check the module: relocations, kernel symbols and layouts, registers, red zone, linker sets
	@cargo run --quiet --bin check_ko -- build/vmm_rs*.ko

run: linux-guest ## the main job: in the lab, boot Debian's kernel as a guest; interactive with a terminal
	@cargo run --quiet --bin lab -- linux

demo: image ## the life of a VM step by step, in the lab, with a small guest program
	@cargo run --quiet --bin lab -- demo

lab: linux-guest ## an interactive shell on the lab host; `exit` leaves
	@cargo run --quiet --bin lab -- shell

test: $(TESTED_$(OS)) ## all tests: unit tests here, link check, end-to-end tests in the lab
	@tests/run-tests

freebsd-test: ## the end-to-end tests on a FreeBSD host; FREEBSD=<folder with kernel.txz and base.txz>, or they are fetched
	@MAKE='$(MAKE)' tests/lab/freebsd/test '$(FREEBSD)'

# What the image of the lab's FreeBSD host is made of, besides a release.
freebsd-image-parts: linux-guest freebsd-userland

FUZZ_SECONDS = 300
fuzz: setup ## the fuzz targets, FUZZ_SECONDS (300) each
	@tests/fuzz/run $(FUZZ_SECONDS)

bench: linux-guest ## what exits and a boot cost, in the lab, beside KVM; build/bench.json
	@cargo run --quiet --bin lab -- bench

fmt: ## format all Rust sources
	@cargo fmt --all

lint: ko ## formatting, clippy over everything, shell syntax
	@tests/lint

# The variables of install: PREFIX, DESTDIR, KMODDIR, MODULE and OPSYS, see userland/build/install.
PREFIX ?= /usr/local
INSTALL = PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' KMODDIR='$(KMODDIR)' MODULE='$(MODULE)' OPSYS='$(OPSYS)' userland/build/install

install: ## put what was built below PREFIX (/usr/local); DESTDIR=/stage for packages
	@$(INSTALL)

uninstall: ## remove what install put there
	@$(INSTALL) --uninstall

clean: ## remove everything built, but not what setup fetched
	rm -rf target build/fuzz build/ko build/kmod build/freebsd build/logs build/vmm_rs*.ko build/lab/kmod build/lab/userland build/lab/root build/lab/linux build/lab/runs
