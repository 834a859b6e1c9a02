/* Memory, registers, COM1 and time of a PC. SPDX-License-Identifier: MIT */
#include "hw-fixtures/target/baremetal/machine.h"

#include "hw-fixtures/target/baremetal/cpu.h"
#include "hw-fixtures/target/baremetal/layout.h"

#include <string.h>

/* ---- memory ----------------------------------------------------------- */

enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80 };

#define ADDRESS_MASK 0x000FFFFFFFFFF000u

static void *at_physical(uint64_t address)
{
	return (void *)(uintptr_t)(address + OFFSET);
}

static bool is_memory(uint64_t physical)
{
	return physical < (uint64_t)LOW_MIB << 20;
}

/* Walks the page tables, because a fault in here would end the debuggee.
 * Returns how many bytes from address on share one mapping; 0: none does. */
static size_t translate(uint64_t address, uint64_t *physical)
{
	uint64_t table = read_cr3() & ADDRESS_MASK;

	if ((uint64_t)((int64_t)(address << 16) >> 16) != address)
		return 0;
	for (unsigned shift = 39; shift >= 12; shift -= 9) {
		uint64_t entry, span = 1ull << shift;

		if (!is_memory(table))
			return 0;
		entry = ((const uint64_t *)at_physical(table))[address >> shift & 511];
		if (!(entry & PRESENT))
			return 0;
		table = entry & ADDRESS_MASK;
		if (shift == 12 || (shift < 39 && entry & LARGE)) {
			*physical = (table & ~(span - 1)) + (address & (span - 1));
			return is_memory(*physical) ? span - (address & (span - 1)) : 0;
		}
	}
	return 0;
}

typedef size_t map_fn(uint64_t address, uint64_t *physical);

static size_t map_physical(uint64_t address, uint64_t *physical)
{
	*physical = address;
	return is_memory(address) ? ((uint64_t)LOW_MIB << 20) - address : 0;
}

static size_t copy_out(map_fn *map, uint64_t address, uint8_t *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		uint64_t physical;
		size_t part = map(address + done, &physical);

		if (!part)
			break;
		if (part > n - done)
			part = n - done;
		memcpy(buf + done, at_physical(physical), part);
		done += part;
	}
	return done;
}

/* Through the alias of physical memory, which is writable whatever the
 * debugged mapping says: code must take breakpoints. */
static size_t copy_in(map_fn *map, uint64_t address, const uint8_t *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		uint64_t physical;
		size_t part = map(address + done, &physical);

		if (!part)
			break;
		if (part > n - done)
			part = n - done;
		memcpy(at_physical(physical), buf + done, part);
		done += part;
	}
	return done;
}

static size_t read_virtual(void *m, uint64_t address, uint8_t *buf, size_t n)
{
	(void)m;
	return copy_out(translate, address, buf, n);
}

static size_t write_virtual(void *m, uint64_t address, const uint8_t *buf, size_t n)
{
	(void)m;
	return copy_in(translate, address, buf, n);
}

static size_t read_physical(void *m, uint64_t address, uint8_t *buf, size_t n)
{
	(void)m;
	return copy_out(map_physical, address, buf, n);
}

static size_t write_physical(void *m, uint64_t address, const uint8_t *buf, size_t n)
{
	(void)m;
	return copy_in(map_physical, address, buf, n);
}

/* ---- registers -------------------------------------------------------- */

/* CONTEXT holds the registers from rax on in the CPU's own order. */
static void list_registers(struct trap_frame *f, uint64_t *regs[16])
{
	uint64_t *const all[16] = { &f->rax, &f->rcx, &f->rdx, &f->rbx, &f->rsp, &f->rbp,
		                    &f->rsi, &f->rdi, &f->r8,  &f->r9,  &f->r10, &f->r11,
		                    &f->r12, &f->r13, &f->r14, &f->r15 };

	memcpy(regs, all, sizeof(all));
}

enum {
	CONTEXT_FLAGS = 0x30,
	CONTEXT_MXCSR = 0x34,
	CONTEXT_CS = 0x38,
	CONTEXT_SS = 0x42,
	CONTEXT_EFLAGS = 0x44,
	CONTEXT_RAX = 0x78,
	CONTEXT_RIP = 0xF8,
	MXCSR_DEFAULT = 0x1F80,
	FLAGS_FIXED = 0x2,
};

static void get_context(void *data, uint8_t *context)
{
	struct machine *m = data;
	struct trap_frame *f = m->frame;
	uint64_t *regs[16];

	memset(context, 0, KDP_CONTEXT_AMD64_LEN);
	kdp_put_u32(context + CONTEXT_FLAGS, 0x00100007); /* control, integer, segments */
	kdp_put_u32(context + CONTEXT_MXCSR, MXCSR_DEFAULT);
	kdp_put_u16(context + CONTEXT_CS, (uint16_t)f->cs);
	for (unsigned i = 1; i < 5; i++) /* ds, es, fs, gs */
		kdp_put_u16(context + CONTEXT_CS + 2 * i, SELECTOR_DATA_USER);
	kdp_put_u16(context + CONTEXT_SS, (uint16_t)f->ss);
	kdp_put_u32(context + CONTEXT_EFLAGS, (uint32_t)f->rflags);
	list_registers(f, regs);
	for (unsigned i = 0; i < 16; i++)
		kdp_put_u64(context + CONTEXT_RAX + 8 * i, *regs[i]);
	kdp_put_u64(context + CONTEXT_RIP, f->rip);
}

/* Segments stay as they are: a wrong one could not be returned to. */
static void set_context(void *data, const uint8_t *context)
{
	struct machine *m = data;
	struct trap_frame *f = m->frame;
	uint64_t *regs[16];

	f->rflags = kdp_get_u32(context + CONTEXT_EFLAGS) | FLAGS_FIXED;
	list_registers(f, regs);
	for (unsigned i = 0; i < 16; i++)
		*regs[i] = kdp_get_u64(context + CONTEXT_RAX + 8 * i);
	f->rip = kdp_get_u64(context + CONTEXT_RIP);
}

static void put_msr(uint8_t *p, uint32_t msr)
{
	uint64_t value;

	if (probe_rdmsr(msr, &value))
		kdp_put_u64(p, value);
}

static void get_special(void *data, uint8_t *special)
{
	struct machine *m = data;
	uint8_t gdtr[10], idtr[10];
	uint16_t tr, ldtr;

	memset(special, 0, KDP_SPECIAL_AMD64_LEN);
	kdp_put_u64(special + 0x00, read_cr0());
	kdp_put_u64(special + 0x08, read_cr2());
	kdp_put_u64(special + 0x10, read_cr3());
	kdp_put_u64(special + 0x18, read_cr4());
	kdp_put_u64(special + 0x20, read_dr0());
	kdp_put_u64(special + 0x28, read_dr1());
	kdp_put_u64(special + 0x30, read_dr2());
	kdp_put_u64(special + 0x38, read_dr3());
	kdp_put_u64(special + 0x40, m->dr6);
	kdp_put_u64(special + 0x48, m->dr7);
	__asm__ volatile("sgdt %0" : "=m"(gdtr));
	__asm__ volatile("sidt %0" : "=m"(idtr));
	__asm__ volatile("str %0" : "=r"(tr));
	__asm__ volatile("sldt %0" : "=r"(ldtr));
	memcpy(special + 0x56, gdtr, sizeof(gdtr));
	memcpy(special + 0x66, idtr, sizeof(idtr));
	kdp_put_u16(special + 0x70, tr);
	kdp_put_u16(special + 0x72, ldtr);
	kdp_put_u32(special + 0x74, MXCSR_DEFAULT);
	kdp_put_u64(special + 0xA0, read_cr8());
	put_msr(special + 0xA8, 0xC0000101); /* GS.base */
	put_msr(special + 0xB0, 0xC0000102); /* KERNEL_GS.base */
	put_msr(special + 0xB8, 0xC0000081); /* STAR */
	put_msr(special + 0xC0, 0xC0000082); /* LSTAR */
	put_msr(special + 0xC8, 0xC0000083); /* CSTAR */
	put_msr(special + 0xD0, 0xC0000084); /* SFMASK */
}

/* Of these, the debug registers and the page tables can be changed. */
static void set_special(void *data, const uint8_t *special)
{
	struct machine *m = data;
	uint64_t cr3 = kdp_get_u64(special + 0x10);

	if (cr3 != read_cr3())
		write_cr3(cr3);
	write_dr0(kdp_get_u64(special + 0x20));
	write_dr1(kdp_get_u64(special + 0x28));
	write_dr2(kdp_get_u64(special + 0x30));
	write_dr3(kdp_get_u64(special + 0x38));
	/* The upper halves must be zero, or loading them traps. */
	m->dr6 = (uint32_t)kdp_get_u64(special + 0x40);
	m->dr7 = (uint32_t)kdp_get_u64(special + 0x48);
}

static bool read_port(void *m, uint16_t port, unsigned size, uint32_t *value)
{
	(void)m;
	*value = size == 1 ? in8(port) : size == 2 ? in16(port) : in32(port);
	return true;
}

static bool write_port(void *m, uint16_t port, unsigned size, uint32_t value)
{
	(void)m;
	if (size == 1)
		out8(port, (uint8_t)value);
	else if (size == 2)
		out16(port, (uint16_t)value);
	else
		out32(port, value);
	return true;
}

static bool read_msr(void *m, uint32_t msr, uint64_t *value)
{
	(void)m;
	return probe_rdmsr(msr, value);
}

static bool write_msr(void *m, uint32_t msr, uint64_t value)
{
	(void)m;
	return probe_wrmsr(msr, value);
}

const struct tgt_machine_ops machine_ops = {
	.read_virtual = read_virtual,
	.write_virtual = write_virtual,
	.read_physical = read_physical,
	.write_physical = write_physical,
	.get_context = get_context,
	.set_context = set_context,
	.get_special = get_special,
	.set_special = set_special,
	.read_port = read_port,
	.write_port = write_port,
	.read_msr = read_msr,
	.write_msr = write_msr,
};

/* ---- time ------------------------------------------------------------- */

enum {
	PIT_HZ = 1193182,
	PIT_CHANNEL0 = 0x40,
	PIT_CHANNEL2 = 0x42,
	PIT_MODE = 0x43,
	PIT_GATE = 0x61,
	PIC1 = 0x20,
	PIC2 = 0xA0,
	PIC_EOI = 0x20,
	CALIBRATE_MS = 10,
	TICK_HZ = 100,
};

void machine_start_clock(struct machine *m)
{
	uint16_t count = PIT_HZ * CALIBRATE_MS / 1000;

	out8(PIT_GATE, (in8(PIT_GATE) & ~2) | 1); /* gate on, speaker off */
	out8(PIT_MODE, 0xB0);                     /* channel 2, one shot */
	out8(PIT_CHANNEL2, (uint8_t)count);
	out8(PIT_CHANNEL2, (uint8_t)(count >> 8));
	m->tsc_start = read_tsc();
	while (!(in8(PIT_GATE) & 0x20)) {
	}
	m->tsc_per_ms = (read_tsc() - m->tsc_start) / CALIBRATE_MS;
	if (!m->tsc_per_ms)
		m->tsc_per_ms = 1;
}

int64_t machine_now_ms(const struct machine *m)
{
	return (int64_t)((read_tsc() - m->tsc_start) / m->tsc_per_ms);
}

void timer_start(void)
{
	uint16_t count = PIT_HZ / TICK_HZ;

	out8(PIC1, 0x11);
	out8(PIC2, 0x11);
	out8(PIC1 + 1, VECTOR_TIMER);
	out8(PIC2 + 1, VECTOR_TIMER + 8);
	out8(PIC1 + 1, 4);
	out8(PIC2 + 1, 2);
	out8(PIC1 + 1, 1);
	out8(PIC2 + 1, 1);
	out8(PIC1 + 1, 0xEE); /* IRQ 0 and IRQ 4 */
	out8(PIC2 + 1, 0xFF);
	out8(PIT_MODE, 0x34);
	out8(PIT_CHANNEL0, (uint8_t)count);
	out8(PIT_CHANNEL0, (uint8_t)(count >> 8));
}

void timer_acknowledge(void)
{
	out8(PIC1, PIC_EOI);
}

void machine_reset(void)
{
	static const struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} no_idt;

	out8(0xCF9, 0x06);
	out8(0x64, 0xFE);
	/* Neither the chipset nor the keyboard controller took it. */
	__asm__ volatile("lidt %0; int3" : : "m"(no_idt));
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* ---- COM1 ------------------------------------------------------------- */

enum {
	COM1 = 0x3F8,
	UART_DATA = COM1,
	UART_IER = COM1 + 1,
	UART_FCR = COM1 + 2,
	UART_LCR = COM1 + 3,
	UART_MCR = COM1 + 4,
	UART_LSR = COM1 + 5,
	LSR_DATA = 0x01,
	LSR_EMPTY = 0x20,
	FIFO_LEN = 16,
};

void uart_start(void)
{
	out8(UART_IER, 0);
	out8(UART_LCR, 0x80); /* the divisor */
	out8(UART_DATA, 1);   /* 115200 */
	out8(UART_IER, 0);
	out8(UART_LCR, 0x03); /* 8N1 */
	out8(UART_FCR, 0x07); /* FIFOs on, emptied, trigger at one byte */
	out8(UART_MCR, 0x0B); /* DTR, RTS, interrupts */
	/* Received bytes wake a halted CPU; they are read by polling. */
	out8(UART_IER, 0x01);
}

size_t uart_read(uint8_t *buf, size_t cap)
{
	size_t n = 0;

	while (n < cap && in8(UART_LSR) & LSR_DATA)
		buf[n++] = in8(UART_DATA);
	return n;
}

size_t uart_write(const uint8_t *buf, size_t n)
{
	if (!n || !(in8(UART_LSR) & LSR_EMPTY))
		return 0;
	if (n > FIFO_LEN)
		n = FIFO_LEN;
	for (size_t i = 0; i < n; i++)
		out8(UART_DATA, buf[i]);
	return n;
}
