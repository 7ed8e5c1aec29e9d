# The session of the demonstration, after the one in the seed article: run on the lab host
# by `lab demo`. Ends with the first thing that is not as it should be.
vm=guest0
guest=/guests/demo

say() { echo "# $*"; "$@"; }
nodes() { echo "# ls /dev/vmm"; ls /dev/vmm 2>/dev/null || echo "(nothing)"; }
fail() { echo "demo: $*"; dmesg | tail -n 20; exit 1; }

say insmod /root/vmm_rs.ko || fail "the module does not load"
dmesg | grep vmm_rs
[ -c /dev/vmmctl ] || fail "no /dev/vmmctl"
nodes
[ -z "$(ls /dev/vmm 2>/dev/null)" ] || fail "/dev/vmm is not empty"

say bhyveload -m 64 --kernel=$guest $vm || fail "bhyveload failed"
nodes
[ -c /dev/vmm/$vm ] || fail "no node /dev/vmm/$vm"

echo "# bhyve -m 64 -l com1,stdio $vm"
{ bhyve -m 64 -l com1,stdio $vm; echo "# bhyve ended with status $?"; } 2>&1 </dev/null | tee /tmp/out
grep -q "Hello from a guest of vmm_rs" /tmp/out || fail "the guest did not say hello"
grep -q "GUEST-OK" /tmp/out || fail "the guest did not come to its end"
grep -q "bhyve ended with status 1" /tmp/out || fail "bhyve did not report the guest's poweroff"

nodes
[ -c /dev/vmm/$vm ] || fail "the node went away with bhyve"
say bhyvectl --vm=$vm --get-stats || fail "no statistics"
say bhyvectl --vm=$vm --destroy || fail "the VM can't be destroyed"
nodes
[ ! -e /dev/vmm/$vm ] || fail "the node is still there"
say rmmod vmm_rs || fail "the module does not unload"
[ ! -e /dev/vmmctl ] || fail "/dev/vmmctl is still there"
dmesg | grep vmm_rs | tail -n 3
