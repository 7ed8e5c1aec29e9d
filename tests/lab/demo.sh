# The session of the demonstration, after the one in the seed article: run on the lab host
# by `lab demo`. Ends with the first thing that is not as it should be.
vm=guest0
guest=/root/guests/demo.elf
expected='Hello from the guest'

say() { echo "# $*"; "$@"; }
fail() { echo "demo: $*"; dmesg | tail -n 20; exit 1; }

say insmod /root/vmm_rs.ko || fail "the module does not load"
dmesg | grep vmm_rs
[ -c /dev/vmmctl ] || fail "no /dev/vmmctl"
say ls /dev/vmm || [ ! -e /dev/vmm ]
[ -z "$(ls /dev/vmm 2>/dev/null)" ] || fail "/dev/vmm is not empty"

say bhyveload -k "$guest" -m 64 $vm || fail "bhyveload failed"
say ls /dev/vmm
[ -c /dev/vmm/$vm ] || fail "no node /dev/vmm/$vm"

say bhyve -c 1 -m 64 -l com1,stdio $vm >/tmp/out 2>&1 </dev/null
status=$?
cat /tmp/out
echo "# bhyve ended with status $status"
grep -q "$expected" /tmp/out || fail "the guest did not say '$expected'"

say ls /dev/vmm
[ -c /dev/vmm/$vm ] || fail "the node went away with bhyve"
say bhyvectl --vm=$vm --get-stats || fail "no statistics"
say bhyvectl --vm=$vm --destroy || fail "the VM can't be destroyed"
say ls /dev/vmm
[ ! -e /dev/vmm/$vm ] || fail "the node is still there"
say rmmod vmm_rs || fail "the module does not unload"
[ ! -e /dev/vmmctl ] || fail "/dev/vmmctl is still there"
dmesg | grep vmm_rs | tail -n 3
