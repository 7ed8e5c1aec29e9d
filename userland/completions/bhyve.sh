# For sh(1), which completes commands and files but has no completion that a program could
# add to: a short command for what one does with virtual machines all day. Source it in
# ~/.shrc:
#
#   vmm                 the machines, and which of them run
#   vmm stop NAME       press the power button (SIGTERM), and wait for the guest to end
#   vmm kill NAME       cut the power
#   vmm destroy NAME    remove the machine
#   vmm stats NAME      its statistics
#
# NAME may be left out if there is one machine, and be shortened while it stays the only one
# that begins so. `vmm bhyvectl NAME --get-rip` and the like do what else bhyvectl(8) can.

# The machines.
vmm_names() {
	ls "${VMM_DEV:-/dev/vmm}" 2>/dev/null
}

# The process of machine $1's bhyve: the VM's name is its last argument.
vmm_pid() {
	pgrep -f "(^|/)bhyve(:| .*) $1\$" | head -n 1
}

# The machine that $1 means.
vmm_name() {
	vmm_found=
	for vmm_each in $(vmm_names); do
		case $vmm_each in
		"$1")
			vmm_found=$1
			break
			;;
		"$1"*) vmm_found="$vmm_found${vmm_found:+ }$vmm_each" ;;
		esac
	done
	case $vmm_found in
	'') echo "vmm: no machine begins with \"$1\"; there are: $(vmm_names | tr '\n' ' ')" >&2 ;;
	*' '*) echo "vmm: \"$1\" may be: $vmm_found" >&2 ;;
	*)
		echo "$vmm_found"
		return
		;;
	esac
	return 1
}

vmm() {
	vmm_do=${1-list}
	[ $# = 0 ] || shift
	if [ "$vmm_do" = list ]; then
		for vmm_each in $(vmm_names); do
			vmm_pid=$(vmm_pid "$vmm_each")
			case $vmm_pid in
			'') echo "$vmm_each does not run" ;;
			*) echo "$vmm_each runs as process $vmm_pid" ;;
			esac
		done
		return
	fi
	vmm_vm=$(vmm_name "${1-}") || return
	[ $# = 0 ] || shift
	case $vmm_do in
	stop)
		vmm_pid=$(vmm_pid "$vmm_vm")
		if [ -z "$vmm_pid" ]; then
			echo "vmm: $vmm_vm does not run" >&2
			return 1
		fi
		kill -TERM "$vmm_pid"
		while kill -0 "$vmm_pid" 2>/dev/null; do sleep 1; done
		;;
	kill) bhyvectl --vm="$vmm_vm" --force-poweroff ;;
	destroy) bhyvectl --vm="$vmm_vm" --destroy ;;
	stats) bhyvectl --vm="$vmm_vm" --get-stats ;;
	bhyvectl) bhyvectl --vm="$vmm_vm" "$@" ;;
	*)
		echo "usage: vmm [list | stop | kill | destroy | stats | bhyvectl] [NAME]" >&2
		return 1
		;;
	esac
}
