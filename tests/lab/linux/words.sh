# What tests ask of the host, on Linux: sh functions, read before each command. The FreeBSD
# host has the same words (../freebsd/words.sh); docs/lab.md lists them.
load_module() { insmod /root/vmm_rs.ko ${1:+tunables="$1"}; }
unload_module() { rmmod vmm_rs; }
module_loaded() { [ -e /sys/module/vmm_rs ]; }
# All that a loaded module shows of itself; nothing when there is none.
module_traces() {
	ls -d /dev/vmm* /sys/module/vmm_rs /sys/class/vmm 2>/dev/null
	grep vmm /proc/modules /proc/devices || true
}
# What refusing to unload a module in use is called here.
BUSY='Resource temporarily unavailable'

kernel_log() { dmesg; }
clear_kernel_log() { dmesg -c >/dev/null; }
# Lines of a kernel in which something is wrong.
COMPLAINTS='WARNING:|BUG|Call Trace|rcu_sched detected|soft lockup|scheduling while atomic'

pid_of() { pidof "$1"; }
# hw_vmm NAME: a value of sysctl hw.vmm.
hw_vmm() { cat "/proc/sys/hw/vmm/$(echo "$1" | tr . /)"; }
# set_hw_vmm NAME NUMBER
set_hw_vmm() { echo "$2" >"/proc/sys/hw/vmm/$(echo "$1" | tr . /)"; }
# The host CPUs that each vcpu's thread may run on, "vcpu N: CPUS" each.
vcpu_affinity() {
	for task in /proc/"$(pid_of bhyve)"/task/*; do
		name=$(cat "$task/comm")
		case $name in
		'vcpu '*) echo "$name: $(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$task/status")" ;;
		esac
	done | sort
}
# The kernel's memory in use, "NAME KIB" each; that which is free counts with a minus. What
# is freed later (RCU, work queues) gets the time to be. MemFree lacks the pages that a CPU
# keeps for itself, which zoneinfo counts.
kernel_memory() {
	sleep 2
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 1
	kept=$(awk '$1 == "count:" { pages += $2 } END { print 4 * pages }' /proc/zoneinfo)
	awk -v kept="$kept" '
		$1 == "MemFree:" { print "MemFree", -($2 + kept) }
		/^(SUnreclaim|VmallocUsed|Percpu|PageTables|KernelStack|Shmem):/ { sub(":", "", $1); print $1, $2 }
	' /proc/meminfo
}
# limit_guest_memory PAGES: guests get so many more together; without PAGES as many as at first.
limit_guest_memory() { echo "${1-0}" >/sys/module/vmm_rs/parameters/max_guest_pages; }
# verify_records DISK COUNT: the first COUNT records of guestcheck are in a Linux guest's disk.
verify_records() (
	insmod /linux/loop.ko
	mkdir -p /tmp/mnt
	losetup /dev/loop0 "$1" && mount -t ext4 /dev/loop0 /tmp/mnt || exit 1
	guestcheck verify /tmp/mnt/root/records "$2"
	status=$?
	umount /tmp/mnt
	losetup -d /dev/loop0
	rmmod loop
	exit $status
)
host_cpus() { nproc; }
# The CPU's flags have it.
has_vt_x() { grep -m 1 '^flags' /proc/cpuinfo | grep -qw vmx; }
