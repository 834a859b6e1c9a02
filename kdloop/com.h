/* Tests of serial ports: what their files share. SPDX-License-Identifier: MIT */
#ifndef KDLOOP_COM_H
#define KDLOOP_COM_H

#include "drivers/serial.h"
#include "kdloop/kdloop.h"
#include "kdloop/match.h"

#define KDL_COM_BITS     10u     /* a byte on the line: start, 8 bits, stop */
#define KDL_COM_QUIET_US 1000000 /* after so long nothing more is on its way */
#define KDL_COM_BURST_MS 250     /* a burst at one speed lasts so long on the line */
#define KDL_COM_BREAK_MS 250
#define KDL_COM_WARM_UP  5u /* round trips before those that count */

struct kdl_com {
	struct kdl_run *run;
	struct kdd *d;
	const char *device; /* canonical */
	unsigned baud;      /* the one that was asked for */
};

/* A transfer of noise. What is sent and what is received need not be the same
 * stream: at the two ends of a cable each does one half. */
struct kdl_stream {
	uint32_t seed;
	uint64_t total; /* bytes */
	bool send, receive;
	const char *label; /* for the live line */
	/* Bytes of it that were received before it began. */
	const uint8_t *early;
	size_t early_len;
	/* Results. */
	uint64_t sent;
	struct kdl_match match;          /* of what was received */
	double bytes_s;                  /* received, 0 when too little came to tell */
	struct kdd_serial_counts errors; /* counted by the kernel meanwhile */
};

/* The speeds that are tried, ascending, ended by 0. */
extern const unsigned kdl_com_bauds[];
#define KDL_COM_BAUD_COUNT 16

/* All checks of a mode. KD_OK, or what ended it early: KD_ERR_CANCELLED, KD_ERR_GONE
 * and others of the driver, whose error text says more. */
int kdl_com_plug(struct kdl_com *c);
int kdl_com_peer(struct kdl_com *c);

/* "DTR on, CTS off, ...": of the lines in mask. */
void kdl_com_format_lines(char *out, size_t cap, unsigned lines, unsigned mask);

/* The kernel's counters, all 0 where it has none. */
void kdl_com_counts(struct kdl_com *c, struct kdd_serial_counts *out);
/* Runs a stream to its end: all received, or nothing for KDL_COM_QUIET_US. KD_OK,
 * KD_ERR_GONE or KD_ERR_CANCELLED. */
int kdl_com_stream(struct kdl_com *c, struct kdl_stream *s);
/* Reads and forgets until nothing came for some milliseconds, at most a second.
 * Returns how many bytes; the first few go to first, if cap is not 0. */
size_t kdl_com_settle(struct kdl_com *c, unsigned quiet_ms, uint8_t *first, size_t cap);
/* Waits, without reading, for a while. KD_ERR_CANCELLED, KD_ERR_GONE or KD_OK. */
int kdl_com_pause(struct kdl_com *c, unsigned ms);
/* Until what was sent has left the kernel, or nothing leaves it any more. */
int kdl_com_drain(struct kdl_com *c);
/* How many bytes make a burst at a speed. */
uint64_t kdl_com_burst_len(unsigned baud);

/* Verdicts that both modes give. */

/* On bytes that crossed; ends the check. */
void kdl_com_judge_stream(struct kdl_com *c, const struct kdl_stream *s, unsigned baud,
                          const char *way);
void kdl_com_judge_rate(struct kdl_com *c, const struct kdl_stream *s, const char *way);
/* wire_us: what the line alone takes; receivers: how many ports the bytes came in at,
 * the last one this one. */
void kdl_com_judge_latency(struct kdl_com *c, const struct kdl_hist *h, double wire_us,
                           unsigned receivers);

/* Modem lines seen while each of the four settings of DTR and RTS was on. */
struct kdl_wires {
	unsigned inputs[4]; /* index: KDD_SERIAL_DTR | KDD_SERIAL_RTS */
};
/* Judges how an end's outputs arrive at (far false) its own inputs through a
 * plug, or at the far end's through a cable. Begins and ends two checks, whose
 * names end in suffix. */
void kdl_com_judge_wires(struct kdl_com *c, const struct kdl_wires *w, bool far,
                         const char *suffix);
/* Whether any input follows an output. */
bool kdl_com_has_wires(const struct kdl_wires *w);

#endif
