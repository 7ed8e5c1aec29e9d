# Completion of bhyve, bhyveload and bhyvectl for bash. Source it, or install it where
# bash-completion looks (make install does). VMM_DEV is for tests.

# ---- bhyve ----
_bhyve_options="-a -c -C -D -e -f -h -H -k -l -m -o -p -P -s -S -u -U -w -W -x -Y"
_bhyve_devices="ahci ahci-cd ahci-hd amd_hostbridge hostbridge lpc uart virtio-blk virtio-console virtio-net
	virtio-rnd"
_bhyve_lpc="com1 com2 com3 com4 pc-testdev"

# ---- bhyveload ----
_bhyveload_options="-C -S -c -d -e -h -i -k -l -m --entry= --format= --help --initrd= --kernel= --load-address=
	--loader= --module="
_bhyveload_formats="auto flat elf multiboot linux pvh freebsd"
_bhyveload_loaders="auto userboot native"

# ---- bhyvectl ----
_bhyvectl_options="--vm= --cpu= --set-mem= --capname= --setcap= --getcap --get-stats --get-memmap --get-memseg
	--get-all --run --create --destroy --force-reset --force-poweroff --get-active-cpus
	--get-debug-cpus --get-suspended-cpus --get-cpu-topology --set-efer= --set-cr0= --set-cr2=
	--set-cr3= --set-cr4= --set-dr0= --set-dr1= --set-dr2= --set-dr3= --set-dr6= --set-dr7=
	--set-rsp= --set-rip= --set-rax= --set-rflags= --desc-base= --desc-limit= --desc-access=
	--set-cs= --set-ds= --set-es= --set-fs= --set-gs= --set-ss= --set-tr= --set-ldtr=
	--set-x2apic-state= --unassign-pptdev= --get-gpa-pmap= --assert-lapic-lvt= --get-rtc-time
	--set-rtc-time= --rtc-nvram-offset= --get-rtc-nvram --set-rtc-nvram= --get-desc-ds --set-desc-ds
	--get-desc-es --set-desc-es --get-desc-ss --set-desc-ss --get-desc-cs --set-desc-cs
	--get-desc-fs --set-desc-fs --get-desc-gs --set-desc-gs --get-desc-tr --set-desc-tr
	--set-desc-ldtr --get-desc-ldtr --set-desc-gdtr --get-desc-gdtr --set-desc-idtr --get-desc-idtr
	--get-efer --get-cr0 --get-cr2 --get-cr3 --get-cr4 --get-dr0 --get-dr1 --get-dr2 --get-dr3
	--get-dr6 --get-dr7 --get-rsp --get-rip --get-rax --get-rbx --get-rcx --get-rdx --get-rsi
	--get-rdi --get-rbp --get-r8 --get-r9 --get-r10 --get-r11 --get-r12 --get-r13 --get-r14
	--get-r15 --get-rflags --get-cs --get-ds --get-es --get-fs --get-gs --get-ss --get-tr --get-ldtr
	--get-eptp --get-exception-bitmap --get-io-bitmap-address --get-tsc-offset --get-msr-bitmap
	--get-msr-bitmap-address --get-guest-pat --get-guest-sysenter --get-exit-reason
	--get-x2apic-state --inject-nmi --get-intinfo --get-vmcs-pinbased-ctls --get-vmcs-procbased-ctls
	--get-vmcs-procbased-ctls2 --get-vmcs-guest-linear-address --get-vmcs-guest-physical-address
	--get-vmcs-entry-interruption-info --get-vmcs-cr0-mask --get-vmcs-cr0-shadow --get-vmcs-cr4-mask
	--get-vmcs-cr4-shadow --get-vmcs-cr3-targets --get-vmcs-tpr-threshold --get-vmcs-vpid
	--get-vmcs-exit-ctls --get-vmcs-entry-ctls --get-vmcs-instruction-error --get-vmcs-host-pat
	--get-vmcs-host-cr0 --get-vmcs-exit-qualification --get-vmcs-exit-inst-length
	--get-vmcs-interruptibility --get-vmcs-exit-interruption-error --get-vmcs-exit-interruption-info
	--get-vmcs-link --get-vmcs-host-cr3 --get-vmcs-host-cr4 --get-vmcs-host-rip --get-vmcs-host-rsp
	--get-apic-access-address --get-virtual-apic-address --get-vmcb-intercepts --get-vmcb-asid
	--get-vmcb-exit-details --get-vmcb-tlb-ctrl --get-vmcb-virq --get-avic-apic-bar
	--get-avic-backing-page --get-avic-table --gla2gpa= --help --set-rbx= --set-rcx= --set-rdx=
	--set-rsi= --set-rdi= --set-rbp= --set-r8= --set-r9= --set-r10= --set-r11= --set-r12= --set-r13=
	--set-r14= --set-r15="
_bhyvectl_capabilities="hlt_exit mtrap_exit pause_exit unrestricted_guest enable_invpcid bpt_exit rdpid rdtscp ipi_exit
	mask_hwintr rflags_tf"

# ---- completion ----
_vmm_vms() {
	ls "${VMM_DEV:-/dev/vmm}" 2>/dev/null
}

# The word at the cursor and the one before it as typed: bash's own are split at : and =.
_vmm_words() {
	local line=${COMP_LINE:0:COMP_POINT} words
	read -ra words <<<"$line"
	word=${line##*[[:space:]]}
	if [ -n "$word" ]; then
		prev=${words[${#words[@]} - 2]}
	else
		prev=${words[${#words[@]} - 1]}
	fi
}

# Offers what begins like the word, without the part that bash has split off.
_vmm_offer() {
	local head candidate
	head=${word%"${word##*[:=]}"}
	COMPREPLY=()
	while IFS= read -r candidate; do
		[ -z "$candidate" ] || COMPREPLY+=("${candidate#"$head"}")
	done
}

_vmm_list() {
	_vmm_offer < <(compgen -W "$1" -- "$word")
}

# Files behind the word's last comma, colon or equals sign.
_vmm_files() {
	local tail=${word##*[,:=]}
	_vmm_offer < <(compgen -P "${word%"$tail"}" -f -- "$tail")
}

_bhyve() {
	local word prev slot device
	_vmm_words
	case $prev in
	-k) _vmm_files ;;
	-l)
		case $word in
		*,*) _vmm_files ;;
		*) _vmm_list "$_bhyve_lpc help" ;;
		esac
		;;
	-s)
		case $word in
		*,*,*) _vmm_files ;;
		*,*)
			slot=${word%%,*}
			_vmm_offer < <(for device in $_bhyve_devices; do compgen -W "$slot,$device" -- "$word"; done)
			;;
		*) _vmm_list help ;;
		esac
		;;
	-[cfmopU]) COMPREPLY=() ;;
	*)
		case $word in
		-*) _vmm_list "$_bhyve_options" ;;
		*) _vmm_list "$(_vmm_vms)" ;;
		esac
		;;
	esac
}

_bhyveload() {
	local word prev
	_vmm_words
	case $word in
	--format=*)
		_vmm_list "$(printf -- '--format=%s ' $_bhyveload_formats)"
		return
		;;
	--loader=*)
		_vmm_list "$(printf -- '--loader=%s ' $_bhyveload_loaders)"
		return
		;;
	esac
	case $prev in
	-[cdhikl] | --kernel | --initrd | --module) _vmm_files ;;
	--format) _vmm_list "$_bhyveload_formats" ;;
	--loader) _vmm_list "$_bhyveload_loaders" ;;
	-[em] | --entry | --load-address) COMPREPLY=() ;;
	*)
		case $word in
		--kernel=* | --initrd=* | --module=*) _vmm_files ;;
		-*) _vmm_list "$_bhyveload_options" ;;
		*) _vmm_list "$(_vmm_vms)" ;;
		esac
		;;
	esac
}

_bhyvectl() {
	local word prev
	_vmm_words
	case $word in
	--vm=*) _vmm_offer < <(compgen -P --vm= -W "$(_vmm_vms)" -- "${word#*=}") ;;
	--capname=*) _vmm_offer < <(compgen -P --capname= -W "$_bhyvectl_capabilities" -- "${word#*=}") ;;
	*)
		case $prev in
		--vm) _vmm_list "$(_vmm_vms)" ;;
		--capname) _vmm_list "$_bhyvectl_capabilities" ;;
		*) _vmm_list "$_bhyvectl_options" ;;
		esac
		;;
	esac
	# The value of --vm= and its like comes without a space before it.
	case ${COMPREPLY[0]-} in *=) compopt -o nospace 2>/dev/null ;; esac
}

complete -F _bhyve bhyve
complete -F _bhyveload bhyveload
complete -F _bhyvectl bhyvectl
