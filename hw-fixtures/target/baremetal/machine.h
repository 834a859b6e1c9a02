/* The real machine: memory, registers, COM1, time.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_TARGET_BAREMETAL_MACHINE_H
#define HW_FIXTURES_TARGET_BAREMETAL_MACHINE_H

#include "hw-fixtures/target/debuggee.h"

/* What trap_common of boot.S leaves on the stack. */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

struct machine {
	struct tgt_image *image;
	struct trap_frame *frame; /* of the stop being served */
	uint64_t dr6, dr7;        /* as they were when it began */
	uint64_t tsc_start, tsc_per_ms;
};

extern const struct tgt_machine_ops machine_ops;

/* Measures the time-stamp counter against the PIT: 10 ms. */
void machine_start_clock(struct machine *m);
int64_t machine_now_ms(const struct machine *m);

void timer_start(void); /* PIT and PIC: IRQ 0 at 100 Hz, IRQ 4 */
void timer_acknowledge(void);
void machine_reset(void) __attribute__((noreturn));

void uart_start(void); /* COM1: 115200 8N1, FIFOs on */
/* What the receive FIFO holds, at most cap bytes. */
size_t uart_read(uint8_t *buf, size_t cap);
/* Fills the transmit FIFO if it is empty; returns how many bytes it took. */
size_t uart_write(const uint8_t *buf, size_t n);

#endif
