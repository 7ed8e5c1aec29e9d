# What `lab bench` measures, on one CPU: the lab's TSC ticks once per instruction, so that
# the numbers are costs in instructions and repeat. Lines that tests/lab/bench.rs reads.
set -e
for m in irqbypass kvm kvm-intel; do
	gunzip -c /root/kvm/$m.ko.gz >/tmp/$m.ko
	insmod /tmp/$m.ko
	rm /tmp/$m.ko
done
echo "== kvm"
bench_kvm /guests/bench 128
rmmod kvm-intel kvm irqbypass

insmod /root/vmm_rs.ko
echo "== vmm_rs"
bhyveload -m 128 --kernel=/guests/bench bench >/dev/null
bhyve -x -m 128 -s 0,hostbridge -s 1,lpc -l com1,stdio bench </dev/null || [ $? = 1 ]
bhyvectl --vm=bench --destroy
rmmod vmm_rs
echo "== boot"
# The guest's TSC is the host's.
echo 'echo "script at $(guestcheck tsc)"' >/tmp/script
# docs/lab.md says why the CPU may not deliver Linux' interrupts by itself here.
insmod /root/vmm_rs.ko tunables=vmx.use_apic_vid=0
start=$(guestcheck tsc)
/linux/run-guest -n linux -a quiet -s /tmp/script </dev/null >/tmp/log || [ $? = 1 ]
at() { tr -d '\r' </tmp/log | sed -n "s/^.*$1 at \([0-9]*\)$/\1/p"; }
echo "bench: kernel_to_init ticks $(($(at init) - start))"
echo "bench: kernel_to_script ticks $(($(at script) - start))"
echo "== exits"
bhyvectl --vm=linux --get-stats
bhyvectl --vm=linux --destroy
rmmod vmm_rs
