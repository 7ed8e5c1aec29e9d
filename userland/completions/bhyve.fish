# Completion of bhyve for fish.

# Slots with each device: "2," becomes "2,ahci", "2,ahci-cd" and so on.
function __bhyve_slots
	set -l slot (string split -m 1 , -- (commandline -ct))[1]
	for device in ahci \
		ahci-cd \
		ahci-hd \
		amd_hostbridge \
		hostbridge \
		lpc \
		uart \
		virtio-blk \
		virtio-console \
		virtio-net \
		virtio-rnd
		echo "$slot,$device"
	end
end

complete -c bhyve -f
complete -c bhyve -x -a '(ls /dev/vmm 2>/dev/null)' -d 'virtual machine'
complete -c bhyve -s a -d 'local APIC in xAPIC mode'
complete -c bhyve -s c -x -d 'number of vcpus, or sockets=,cores=,threads='
complete -c bhyve -s C -d 'guest memory in core files'
complete -c bhyve -s D -d 'destroy the VM when it is powered off'
complete -c bhyve -s e -d 'end on I/O ports that nobody has'
complete -c bhyve -s f -x -d 'fw_cfg file: name,string=text or name,file=path'
complete -c bhyve -s h -d 'help'
complete -c bhyve -s H -d 'give the CPU away while the guest halts'
complete -c bhyve -s k -r -F -d 'configuration file'
complete -c bhyve -s l -x -a 'com1 com2 com3 com4 pc-testdev help' -d 'LPC device'
complete -c bhyve -s m -x -d 'memory'
complete -c bhyve -s o -x -d 'configuration variable: name=value'
complete -c bhyve -s p -x -d 'pin vcpu:hostcpu'
complete -c bhyve -s P -d 'exit on PAUSE'
complete -c bhyve -s s -x -a '(__bhyve_slots)' -d 'PCI device: slot,device,options'
complete -c bhyve -s S -d 'wire guest memory'
complete -c bhyve -s u -d 'the guest\'s clock has UTC'
complete -c bhyve -s U -x -d 'UUID of the machine'
complete -c bhyve -s w -d 'ignore unknown MSRs'
complete -c bhyve -s W -d 'virtio with MSI, not MSI-X'
complete -c bhyve -s x -d 'local APIC in x2APIC mode'
complete -c bhyve -s Y -d 'no MP table'
