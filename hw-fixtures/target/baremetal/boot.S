/* From the boot loader's 32-bit world into the high half of a 64-bit one.
 * SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/baremetal/layout.h"

#define LOW(symbol) ((symbol) - OFFSET)

/* The first page is the image's header page: the MZ/PE header and the counters
 * are written at run time, the multiboot header lies behind them. */
	.section .header, "aw"
	.globl image_header
image_header:
	.org MULTIBOOT_AT
multiboot:
	.long 0x1BADB002
	.long 0x00010001              /* pages aligned; addresses follow */
	.long -(0x1BADB002 + 0x00010001)
	.long LOW(multiboot)
	.long LOW(image_header)
	.long LOW(image_data_end)
	.long LOW(image_end)
	.long LOW(start32)
	.org 0x1000

/* The functions that kdtarget has, at the same places. */
	.section .fixed, "ax"
	.globl idle_loop
idle_loop:
	push %rbp
	mov %rsp, %rbp
	sub $0x20, %rsp
1:	movl $8, -4(%rbp)
2:	call work
	decl -4(%rbp)
	jne 2b
	hlt
	jmp 1b

	.org 0x100
work:	push %rbp
	mov %rsp, %rbp
	mov $5, %ecx
3:	call leaf
	loop 3b
	nop
	pop %rbp
	ret

	.org 0x180
leaf:	push %rbp
	mov %rsp, %rbp
	inc %eax
	add $3, %eax
	xor %edx, %edx
	add %eax, %edx
	pop %rbp
	ret

/* void status_break(uint32_t status): Windows hands the status over in rcx,
 * and the int3 must be the function's first byte. */
	.org 0x200
	.globl status_break_int3
status_break_int3:
	int3
	ret

	.org 0x210
	.globl service_int3
service_int3:
	int3
	ret

	.org 0x220
	.globl hard_int3
hard_int3:
	int3
	ret

	.text
	.globl status_break
status_break:
	push %rbp
	mov %rsp, %rbp
	mov %edi, %ecx
	call status_break_int3
	pop %rbp
	ret

/* Reading an MSR that does not exist traps; msr_fault takes over then. */
	.globl probe_rdmsr, probe_wrmsr, msr_read_insn, msr_write_insn, msr_fault
probe_rdmsr:                          /* bool (uint32_t msr, uint64_t *value) */
	mov %edi, %ecx
msr_read_insn:
	rdmsr
	mov %eax, (%rsi)
	mov %edx, 4(%rsi)
	mov $1, %eax
	ret
probe_wrmsr:                          /* bool (uint32_t msr, uint64_t value) */
	mov %edi, %ecx
	mov %esi, %eax
	mov %rsi, %rdx
	shr $32, %rdx
msr_write_insn:
	wrmsr
	mov $1, %eax
	ret
msr_fault:
	xor %eax, %eax
	ret

	.globl load_tables
load_tables:                          /* (gdtr, idtr) */
	lgdt (%rdi)
	lidt (%rsi)
	mov $SELECTOR_DATA_USER, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %fs
	mov %eax, %gs
	mov $SELECTOR_DATA, %eax
	mov %eax, %ss
	ret

/* ---- traps ------------------------------------------------------------- */

	.balign 16
	.globl trap_entries
trap_entries:
	.set n, 0
	.rept VECTORS
	.balign 16
	/* Where the CPU pushes no error code, a zero stands in for it. */
	.if (n != 8) && (n < 10 || n > 14) && (n != 17) && (n != 21) && (n != 29) && (n != 30)
	pushq $0
	.endif
	pushq $n
	jmp trap_common
	.set n, n + 1
	.endr

trap_common:
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
	cld
	call trap
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

/* ---- start ------------------------------------------------------------- */

	.section .boot, "ax"
	.code32
	.globl start32
start32:
	cli
	mov $LOW(boot_stack_end), %esp
	/* PML4: low memory at 0 and at OFFSET, the region at REGION. */
	mov $LOW(pdpt_low) + 3, %eax
	mov %eax, LOW(pml4)
	mov %eax, LOW(pml4) + 8 * PML4_INDEX(OFFSET)
	movl $LOW(pdpt_region) + 3, LOW(pml4) + 8 * PML4_INDEX(REGION)
	movl $LOW(pd_low) + 3, LOW(pdpt_low)
	movl $LOW(pd_region) + 3, LOW(pdpt_region)
	/* Pages of 2 MiB, present, writable. */
	xor %ecx, %ecx
	mov $0x83, %eax
4:	mov %eax, LOW(pd_low)(, %ecx, 8)
	add $0x200000, %eax
	inc %ecx
	cmp $LOW_MIB / 2, %ecx
	jne 4b
	xor %ecx, %ecx
	mov $REGION_PHYSICAL + 0x83, %eax
5:	mov %eax, LOW(pd_region)(, %ecx, 8)
	add $0x200000, %eax
	inc %ecx
	cmp $REGION_MIB / 2, %ecx
	jne 5b
	mov $LOW(pml4), %eax
	mov %eax, %cr3
	mov %cr4, %eax
	or $0x220, %eax               /* PAE, FXSAVE */
	mov %eax, %cr4
	mov $0xC0000080, %ecx         /* EFER: long mode */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80010001, %eax          /* paging, write protection */
	mov %eax, %cr0
	lgdt LOW(boot_gdtr)
	ljmp $SELECTOR_CODE, $LOW(start64_low)

	.code64
start64_low:
	movabs $start64, %rax
	jmp *%rax

	.text
start64:
	lea boot_stack_end(%rip), %rsp
	xor %ebp, %ebp
	push %rbp                     /* the chain of frames ends here */
	push %rbp
	call kernel_main
6:	hlt
	jmp 6b

	.section .boot, "ax"
	.balign 8
boot_gdt:
	.quad 0, 0
	.quad 0x00AF9B000000FFFF      /* SELECTOR_CODE */
	.quad 0x00CF93000000FFFF      /* SELECTOR_DATA */
boot_gdtr:
	.word . - boot_gdt - 1
	.long LOW(boot_gdt)

	.bss
	.balign 4096
	.globl pml4
pml4:	.skip 4096
pdpt_low: .skip 4096
pdpt_region: .skip 4096
pd_low:	.skip 4096
pd_region: .skip 4096
	.skip 32768
boot_stack_end:

	.section .note.GNU-stack, "", @progbits
