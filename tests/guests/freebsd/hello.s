# A kernel module for the guest program freebsd: an object with the linker set by which
# FreeBSD's loader learns that it has module `hello` and needs module `kernel`.
	.section .text, "ax"
hello:	ret

	.section .data, "aw"
	.asciz "hello from a module"
	.balign 8
version:
	.long 1, 3
	.quad version_number, hello_name
depend:
	.long 1, 1
	.quad kernel_versions, kernel_name
version_number:
	.long 1
kernel_versions:
	.long 1500000, 1500000, 1599999
hello_name:
	.asciz "hello"
kernel_name:
	.asciz "kernel"

	.section set_modmetadata_set, "aw"
	.quad version, depend
