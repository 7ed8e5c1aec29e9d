# What tests ask of the host, on FreeBSD: sh functions, read before each command. The Linux
# host has the same words (../linux/words.sh); docs/lab.md lists them.
load_module() {
	# Tunables of an earlier load, which are not this one's.
	for variable in $(cat /tmp/.tunables 2>/dev/null); do
		kenv -q -u "$variable"
	done
	rm -f /tmp/.tunables
	for tunable in $(echo "${1-}" | tr , ' '); do
		kenv "hw.vmm.$tunable" >/dev/null || return
		echo "hw.vmm.${tunable%%=*}" >>/tmp/.tunables
	done
	kldload /root/vmm_rs.ko
}
unload_module() { kldunload vmm_rs; }
module_loaded() { kldstat -q -n vmm_rs.ko; }
# All that a loaded module shows of itself; nothing when there is none.
module_traces() {
	ls -d /dev/vmm* 2>/dev/null
	kldstat | grep vmm
	sysctl hw.vmm 2>/dev/null
	true
}
# What refusing to unload a module in use is called here.
BUSY='Device busy'

kernel_log() { dmesg; }
clear_kernel_log() { sysctl kern.msgbuf_clear=1 >/dev/null; }
# Lines of a kernel in which something is wrong.
COMPLAINTS='lock order reversal|panic:|KDB: stack backtrace|Sleeping on|sleeping thread|[Mm]emory leak|MSI-X? leak|Fatal trap'

pid_of() { pgrep -x "$1"; }
# hw_vmm NAME: a value of sysctl hw.vmm.
hw_vmm() { sysctl -n "hw.vmm.$1"; }
# set_hw_vmm NAME NUMBER
set_hw_vmm() { sysctl "hw.vmm.$1=$2" >/dev/null; }
# The host CPUs that each vcpu's thread may run on, "vcpu N: CPUS" each.
vcpu_affinity() {
	procstat -h cpuset "$(pid_of bhyve)" |
		sed -n 's/.*\(vcpu [0-9]*\) .* \([0-9][0-9,-]*\) *$/\1: \2/p' | sort
}
# The kernel's memory in use, "NAME KIB" each.
kernel_memory() {
	sleep 2
	sync
	# What the first look reads from the disk is in the buffer cache at the second.
	kernel_memory_now >/dev/null
	kernel_memory_now
}
kernel_memory_now() {
	sysctl -n vm.stats.vm.v_wire_count | awk '{ print "wired", 4 * $1 }'
	# The number behind InUse is MemUse in bytes; a type's name may have several words.
	vmstat -m | awk 'NR > 1 { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+$/) { bytes += $(i + 1); break } } END { print "malloc", int(bytes / 1024) }'
}
# limit_guest_memory PAGES: guests get so many more together; without PAGES as many as at first.
limit_guest_memory() {
	[ -e /tmp/.max_user_wired ] || sysctl -n vm.max_user_wired >/tmp/.max_user_wired
	limit=$(cat /tmp/.max_user_wired)
	[ $# = 0 ] || limit=$(($(sysctl -n vm.stats.vm.v_user_wire_count) + $1))
	sysctl vm.max_user_wired="$limit" >/dev/null
}
# verify_records DISK COUNT: the first COUNT records of guestcheck are in a Linux guest's
# disk, as a guest sees it: there is no driver for the journal here.
verify_records() (
	echo "guestcheck verify /root/records $2" >/tmp/script.verify
	/linux/run-guest -n verify -1 -a quiet -d "$1" -s /tmp/script.verify </dev/null
	status=$?
	bhyvectl --vm=verify --destroy && [ $status = 1 ]
)
host_cpus() { sysctl -n hw.ncpu; }
# The CPU's flags had it at boot.
has_vt_x() { grep -q VT-x: /var/run/dmesg.boot; }
