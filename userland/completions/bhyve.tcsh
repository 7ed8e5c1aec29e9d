# Completion of bhyve, bhyveload and bhyvectl for tcsh(1), FreeBSD's csh: source this file in
# ~/.tcshrc.

# ---- bhyve ----
complete bhyve \
	'n/-l/(com1 com2 com3 com4 pc-testdev help)/' \
	'n/-k/f/' \
	'n/-[cfmopsU]/n/' \
	'c/-/(a c C D e f h H k l m o p P s S u U w W x Y)/' \
	'p@*@`ls /dev/vmm`@'

# ---- bhyveload ----
complete bhyveload \
	'c/--/(entry= format= help initrd= kernel= load-address= loader= module=)/' \
	'n/-h/d/' \
	'n/-[cdikl]/f/' \
	'n/-[em]/n/' \
	'c/-/(C S c d e h i k l m)/' \
	'p@*@`ls /dev/vmm`@'

# ---- bhyvectl ----
complete bhyvectl \
	'c@--vm=@`ls /dev/vmm`@' \
	'c/--capname=/(hlt_exit mtrap_exit pause_exit unrestricted_guest enable_invpcid bpt_exit rdpid rdtscp ipi_exit mask_hwintr rflags_tf)/' \
	'c/--/(vm= cpu= set-mem= capname= setcap= getcap get-stats get-memmap get-memseg get-all run create destroy force-reset force-poweroff get-active-cpus get-debug-cpus get-suspended-cpus get-cpu-topology set-efer= set-cr0= set-cr2= set-cr3= set-cr4= set-dr0= set-dr1= set-dr2= set-dr3= set-dr6= set-dr7= set-rsp= set-rip= set-rax= set-rflags= desc-base= desc-limit= desc-access= set-cs= set-ds= set-es= set-fs= set-gs= set-ss= set-tr= set-ldtr= set-x2apic-state= unassign-pptdev= get-gpa-pmap= assert-lapic-lvt= get-rtc-time set-rtc-time= rtc-nvram-offset= get-rtc-nvram set-rtc-nvram= get-desc-ds set-desc-ds get-desc-es set-desc-es get-desc-ss set-desc-ss get-desc-cs set-desc-cs get-desc-fs set-desc-fs get-desc-gs set-desc-gs get-desc-tr set-desc-tr set-desc-ldtr get-desc-ldtr set-desc-gdtr get-desc-gdtr set-desc-idtr get-desc-idtr get-efer get-cr0 get-cr2 get-cr3 get-cr4 get-dr0 get-dr1 get-dr2 get-dr3 get-dr6 get-dr7 get-rsp get-rip get-rax get-rbx get-rcx get-rdx get-rsi get-rdi get-rbp get-r8 get-r9 get-r10 get-r11 get-r12 get-r13 get-r14 get-r15 get-rflags get-cs get-ds get-es get-fs get-gs get-ss get-tr get-ldtr get-eptp get-exception-bitmap get-io-bitmap-address get-tsc-offset get-msr-bitmap get-msr-bitmap-address get-guest-pat get-guest-sysenter get-exit-reason get-x2apic-state inject-nmi get-intinfo get-vmcs-pinbased-ctls get-vmcs-procbased-ctls get-vmcs-procbased-ctls2 get-vmcs-guest-linear-address get-vmcs-guest-physical-address get-vmcs-entry-interruption-info get-vmcs-cr0-mask get-vmcs-cr0-shadow get-vmcs-cr4-mask get-vmcs-cr4-shadow get-vmcs-cr3-targets get-vmcs-tpr-threshold get-vmcs-vpid get-vmcs-exit-ctls get-vmcs-entry-ctls get-vmcs-instruction-error get-vmcs-host-pat get-vmcs-host-cr0 get-vmcs-exit-qualification get-vmcs-exit-inst-length get-vmcs-interruptibility get-vmcs-exit-interruption-error get-vmcs-exit-interruption-info get-vmcs-link get-vmcs-host-cr3 get-vmcs-host-cr4 get-vmcs-host-rip get-vmcs-host-rsp get-apic-access-address get-virtual-apic-address get-vmcb-intercepts get-vmcb-asid get-vmcb-exit-details get-vmcb-tlb-ctrl get-vmcb-virq get-avic-apic-bar get-avic-backing-page get-avic-table gla2gpa= help set-rbx= set-rcx= set-rdx= set-rsi= set-rdi= set-rbp= set-r8= set-r9= set-r10= set-r11= set-r12= set-r13= set-r14= set-r15=)/'
