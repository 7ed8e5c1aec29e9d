# From the multiboot1 entry (32-bit protected mode, paging off; Multiboot Specification
# 0.6.96, section 3.2) to long mode with the first 4 GiB mapped one to one (SDM vol. 3A,
# 10.8.5). A program may have an `early32` of its own, called before paging is turned on.

	.section .multiboot, "a"
	.align 4
	.long 0x1badb002		# magic
	.long 0x00000002		# flags: memory information wanted
	.long -(0x1badb002 + 0x00000002)

	.section .boot, "awx"
	.code32
	.globl _start
_start:
	cli
	cld
	mov %eax, boot_magic
	mov %ebx, boot_info
	mov $boot_stack_top, %esp

	# SSE for Rust's code is not needed (soft float), so CR4 gets PAE only, below.
	lgdt boot_gdtr
	ljmp $0x18, $1f
1:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs

	mov $early32, %eax		# guest.ld: 0 when the program has none
	test %eax, %eax
	jz 2f
	call *%eax
2:
	# PML4[0] -> PDPT, PDPT[0..3] -> four page directories of 2 MiB pages.
	movl $boot_pdpt + 3, boot_pml4
	movl $0, boot_pml4 + 4
	mov $boot_pd + 3, %eax
	mov $boot_pdpt, %edi
	mov $4, %ecx
3:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $4096, %eax
	add $8, %edi
	loop 3b
	mov $0x83, %eax			# present, writable, 2 MiB
	mov $boot_pd, %edi
	mov $2048, %ecx
4:	mov %eax, (%edi)
	movl $0, 4(%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 4b

	mov %cr4, %eax
	or $0x20, %eax			# PAE
	mov %eax, %cr4
	mov $boot_pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx		# EFER: LME and NXE
	rdmsr
	or $0x900, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80010000, %eax		# PG, WP
	mov %eax, %cr0
	ljmp $0x08, $5f

	.code64
5:	mov $boot_stack_top, %rsp
	mov boot_magic, %edi
	mov boot_info, %esi
	call kit_main
6:	cli
	hlt
	jmp 6b

	.section .data
	.align 8
	.globl boot_gdt, boot_gdtr
boot_gdt:
	.quad 0
	.quad 0x00af9b000000ffff	# 0x08: 64-bit code
	.quad 0x00cf93000000ffff	# 0x10: flat data
	.quad 0x00cf9b000000ffff	# 0x18: 32-bit code
	.quad 0x000f9b000000ffff	# 0x20: 16-bit code
	.quad 0x000f93000000ffff	# 0x28: 16-bit data
boot_gdt_end:
boot_gdtr:
	.word boot_gdt_end - boot_gdt - 1
	.quad boot_gdt

	.globl boot_magic, boot_info
boot_magic: .long 0
boot_info: .long 0

	.section .bss
	.align 4096
	.globl boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
boot_stack: .skip 32768
	.globl boot_stack_top
boot_stack_top:

# Exceptions: 32 stubs, each pushing what `kit_exception` takes (vector, error code), and
# the table of their addresses.
	.section .text
	.code64
	.macro stub vector, has_error
stub_\vector:
	.if \has_error == 0
	push $0
	.endif
	push $\vector
	jmp exception_common
	.endm

	.irp v, 0,1,2,3,4,5,6,7,9,15,16,18,19,20,22,23,24,25,26,27,28,31
	stub \v, 0
	.endr
	.irp v, 8,10,11,12,13,14,17,21,29,30
	stub \v, 1
	.endr

# The stubs of external interrupts, 16 bytes each from vector 32 on.
	.align 16
	.globl interrupt_stubs
interrupt_stubs:
	.set vector, 32
	.rept 224
	.align 16
	push $0
	push $vector
	jmp exception_common
	.set vector, vector + 1
	.endr

exception_common:
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, %rdi
	mov %rsp, %rbp
	and $-16, %rsp
	call kit_exception
	mov %rbp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

	.section .rodata
	.align 8
	.globl exception_stubs
exception_stubs:
	.irp v, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	.quad stub_\v
	.endr
