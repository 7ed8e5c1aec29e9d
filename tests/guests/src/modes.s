# Runs in each mode of the CPU before long mode and leaves what it found in `mode_results`:
# protected mode without paging, 32-bit paging with a 4 MiB page, PAE paging, real mode
# (SDM vol. 3A, 4.3, 4.4, 10.9), and comes back each time.

	.section .boot, "awx"
	.code32
	.globl early32
early32:
	pusha
	# Protected mode without paging: CPUID, port I/O, arithmetic.
	mov $0x40000000, %eax
	cpuid
	mov %ebx, mode_results + 0
	mov $0x3fd, %edx
	in (%dx), %al
	movzbl %al, %eax
	mov %eax, mode_results + 4

	# 32-bit paging: [0, 4 MiB) and [1 GiB, 1 GiB + 4 MiB) on the same 4 MiB page.
	movl $0x00000083, mode_pd
	movl $0x00000083, mode_pd + 4 * 256
	mov %cr4, %eax
	or $0x10, %eax			# PSE
	mov %eax, %cr4
	mov $mode_pd, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	movl $0x11223344, mode_word
	mov mode_word + 0x40000000, %eax
	mov %eax, mode_results + 8
	# The accessed and dirty bits are the CPU's work.
	mov mode_pd + 4 * 256, %eax
	mov %eax, mode_results + 12
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0

	# PAE: 2 MiB pages, the second GiB again on the same memory, through another PDPTE.
	movl $mode_pae_pd + 1, mode_pdpt
	movl $mode_pae_pd + 1, mode_pdpt + 8
	movl $0x00000083, mode_pae_pd
	mov %cr4, %eax
	or $0x20, %eax			# PAE
	mov %eax, %cr4
	mov $mode_pdpt, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	movl $0x55667788, mode_word
	mov mode_word + 0x40000000, %eax
	mov %eax, mode_results + 16
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov %cr4, %eax
	and $~0x30, %eax
	mov %eax, %cr4

	# Real mode, at 0x8000: an interrupt through the vector table, a string OUT.
	mov $real_start, %esi
	mov $0x8000, %edi
	mov $real_end - real_start, %ecx
	rep movsb
	mov %esp, mode_esp
	ljmp $0x20, $0x8000		# 16-bit code segment
mode_back:
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov mode_esp, %esp
	lgdt boot_gdtr
	mov 0x9000, %eax
	mov %eax, mode_results + 20
	mov 0x9004, %eax
	mov %eax, mode_results + 24
	popa
	ret

	.code16
real_start:
	# Real mode keeps limits and attributes: all six come from a 64 KiB data segment
	# (SDM vol. 3A, 10.9.2). A null FS would stay without a type, which a VM entry refuses.
	mov $0x28, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov %cr0, %eax
	and $0xfffffffe, %eax
	mov %eax, %cr0
	ljmp $0, $0x8000 + (1f - real_start)
1:	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7c00, %sp
	lidtw 0x8000 + (real_idtr - real_start)
	# INT 0x21 through the vector table at 0.
	movw $0x8000 + (real_int - real_start), 0x21 * 4
	movw $0, 0x21 * 4 + 2
	movl $0, 0x9000
	int $0x21
	# A far address above 64 KiB: 0x1234 * 16 + 8.
	mov $0x1234, %ax
	mov %ax, %fs
	movl $0xcafef00d, %fs:8
	mov $0x1000, %ax
	mov %ax, %gs
	mov %gs:0x2348, %eax
	mov %eax, 0x9004
	# OUTS with REP to the console.
	cld
	mov $0x8000 + (real_text - real_start), %si
	mov $real_text_end - real_text, %cx
	mov $0x3f8, %dx
	rep outsb
	lgdtl 0x8000 + (real_gdtr - real_start)
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $0x18, $mode_back
real_int:
	movl $0x600d0021, 0x9000
	iret
real_idtr:
	.word 0x3ff
	.long 0
real_gdtr:
	.word 0x2f
	.long boot_gdt
real_text: .ascii "written by OUTS in real mode\r\n"
real_text_end:
real_end:
	.code64

	.section .bss
	.align 4096
mode_pd: .skip 4096
mode_pae_pd: .skip 4096
mode_pdpt: .skip 4096
	.globl mode_results
mode_results: .skip 64
mode_word: .skip 8
mode_esp: .skip 8
