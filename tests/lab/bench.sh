# What `lab bench` measures, on one CPU: the lab's TSC ticks once per instruction, so that
# the numbers are costs in instructions and repeat.
set -e
insmod /root/vmm_rs.ko
bhyveload -m 64 --kernel=/guests/demo bench >/dev/null
bhyve -m 64 -l com1,stdio bench </dev/null 2>&1 | grep ticks
bhyvectl --vm=bench --destroy
rmmod vmm_rs
