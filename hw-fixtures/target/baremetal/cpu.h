/* The instructions that C has no words for. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_BAREMETAL_CPU_H
#define HW_FIXTURES_TARGET_BAREMETAL_CPU_H

#include <stdbool.h>
#include <stdint.h>

static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void out16(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint16_t in16(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

#define READ_REGISTER(name)                                                                        \
	static inline uint64_t read_##name(void)                                                   \
	{                                                                                          \
		uint64_t value;                                                                    \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(value));                             \
		return value;                                                                      \
	}

#define WRITE_REGISTER(name)                                                                       \
	static inline void write_##name(uint64_t value)                                            \
	{                                                                                          \
		__asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                    \
	}

READ_REGISTER(cr0)
READ_REGISTER(cr2)
READ_REGISTER(cr3)
READ_REGISTER(cr4)
READ_REGISTER(cr8)
READ_REGISTER(dr0)
READ_REGISTER(dr1)
READ_REGISTER(dr2)
READ_REGISTER(dr3)
READ_REGISTER(dr6)
READ_REGISTER(dr7)
WRITE_REGISTER(cr3)
WRITE_REGISTER(dr0)
WRITE_REGISTER(dr1)
WRITE_REGISTER(dr2)
WRITE_REGISTER(dr3)
WRITE_REGISTER(dr6)
WRITE_REGISTER(dr7)

static inline uint64_t read_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* Until the next interrupt, without a gap in which it could be missed. */
static inline void wait_for_interrupt(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* Of boot.S. */
bool probe_rdmsr(uint32_t msr, uint64_t *value);
bool probe_wrmsr(uint32_t msr, uint64_t value);

#endif
