/* What measurements of a serial line mean, and what to do about it.
 * SPDX-License-Identifier: MIT */
#include <config.h>

#include "kdloop/com.h"

#include <string.h>

#define RATE_GOOD     0.95
#define RATE_POOR     0.5
#define RATE_EMULATED 1.1  /* no line is faster than itself */
#define SLOW_US       4000 /* beyond the time of line and FIFOs: something waits */
/* So long for more bytes a 16550A waits before it hands over fewer than fill its
 * FIFO. At lower speeds Linux has it hand over each. */
#define FIFO_BITS      (4 * KDL_COM_BITS)
#define FIFO_MIN_BAUD  2400
#define FTDI_TIMER_US  16000.0
#define FTDI_TIMER_LOW 0.7
#define FTDI_TIMER_TOP 1.4

/* ---- bytes ------------------------------------------------------------ */

static void advise_on_stream(struct kdl_com *c, const struct kdl_stream *s, unsigned baud)
{
	const struct kdl_match *m = &s->match;

	if (m->good == 0 && m->bad_bytes == 0)
		kdl_advise(c->run,
		           "check that the plug or cable is in, and TX and RX (pins 2 and 3)");
	else if (s->errors.overrun)
		kdl_advise(c->run, "the port is not emptied in time: use a lower speed, another "
		                   "adapter, or a less busy machine");
	else if (kdl_match_is_garbage(m))
		kdl_advise(c->run,
		           "do not use %u baud here: adapter, cable or far end do not do it", baud);
	else if (m->bad_bytes)
		kdl_advise(c->run, "bits change on the way: try a shorter or shielded cable, or a "
		                   "lower speed");
	else
		kdl_advise(c->run, "bytes are lost: try a lower speed or another adapter");
}

void kdl_com_judge_stream(struct kdl_com *c, const struct kdl_stream *s, unsigned baud,
                          const char *way)
{
	const struct kdl_match *m = &s->match;
	char rate[32], line[32];

	kdl_value(c->run, "sent", "bytes", (double)m->total);
	kdl_value(c->run, "changed", "bytes", (double)m->bad_bytes);
	kdl_value(c->run, "bit errors", "bits", (double)m->bad_bits);
	kdl_value(c->run, "lost", "bytes", (double)m->lost);
	kdl_value(c->run, "added", "bytes", (double)m->extra);
	kdl_value(c->run, "overruns", "", s->errors.overrun);
	kdl_value(c->run, "framing errors", "", s->errors.frame);
	kdl_value(c->run, "rate", "bytes/s", s->bytes_s);
	snprintf(rate, sizeof(rate), "%.0f", s->bytes_s);
	snprintf(line, sizeof(line), "%u", baud / KDL_COM_BITS);
	if (kdl_match_clean(m)) {
		kdl_end(c->run, KDL_PASS, "%s%llu bytes intact, %s bytes/s of %s", way,
		        (unsigned long long)m->total, rate, line);
		return;
	}
	advise_on_stream(c, s, baud);
	if (m->good == 0 && m->bad_bytes == 0)
		kdl_end(c->run, KDL_FAIL, "%snothing arrived of %llu bytes", way,
		        (unsigned long long)m->total);
	else if (kdl_match_is_garbage(m))
		kdl_end(c->run, KDL_FAIL, "%sgarbage: %llu of %llu bytes were right", way,
		        (unsigned long long)m->good, (unsigned long long)m->total);
	else
		kdl_end(
		    c->run, KDL_FAIL,
		    "%s%llu bytes: %llu lost, %llu changed (%llu bits), %llu added, %u overruns",
		    way, (unsigned long long)m->total, (unsigned long long)m->lost,
		    (unsigned long long)m->bad_bytes, (unsigned long long)m->bad_bits,
		    (unsigned long long)m->extra, s->errors.overrun);
}

void kdl_com_judge_rate(struct kdl_com *c, const struct kdl_stream *s, const char *way)
{
	double line = (double)c->baud / KDL_COM_BITS, part = s->bytes_s / line;

	if (!kdl_match_clean(&s->match)) {
		kdl_com_judge_stream(c, s, c->baud, way);
		return;
	}
	kdl_value(c->run, "sent", "bytes", (double)s->match.total);
	kdl_value(c->run, "rate", "bytes/s", s->bytes_s);
	kdl_value(c->run, "of line rate", "%", part * 100);
	if (part > RATE_EMULATED) {
		kdl_end(c->run, KDL_PASS,
		        "%s%.0f bytes/s, %.1f times the line rate: this port is emulated", way,
		        s->bytes_s, part);
		return;
	}
	if (part < RATE_GOOD)
		kdl_advise(c->run, "the adapter or this machine does not keep up: try another USB "
		                   "port, without a hub, or another adapter");
	kdl_end(c->run,
	        part >= RATE_GOOD   ? KDL_PASS
	        : part >= RATE_POOR ? KDL_WARN
	                            : KDL_FAIL,
	        "%s%llu bytes intact, %.0f bytes/s: %.1f %% of the line rate", way,
	        (unsigned long long)s->match.total, s->bytes_s, part * 100);
}

/* ---- latency ---------------------------------------------------------- */

static void advise_on_latency(struct kdl_com *c, double extra_us)
{
	int timer_ms = kdd_serial_latency_ms(c->device);
	const char *name = strncmp(c->device, "/dev/", 5) == 0 ? c->device + 5 : c->device;

	if (timer_ms > 1)
		kdl_advise(c->run,
		           "the adapter's latency timer is %d ms: as root, echo 1 > "
		           "/sys/bus/usb-serial/devices/%.32s/latency_timer, or a udev rule",
		           timer_ms, name);
	else if (extra_us > FTDI_TIMER_US * FTDI_TIMER_LOW &&
	         extra_us < FTDI_TIMER_US * FTDI_TIMER_TOP)
		kdl_advise(c->run, "some 16 ms is what the latency timer of an FTDI adapter makes; "
		                   "the far end's may be the one: set it to 1");
	else
		kdl_advise(c->run,
		           "each KD packet waits so long: try another adapter, or a USB port "
		           "without a hub");
}

/* A port with a latency timer has no such FIFO. */
static double fifo_us(const struct kdl_com *c, unsigned receivers, int timer_ms)
{
	if (c->baud < FIFO_MIN_BAUD)
		return 0;
	return 1e6 * FIFO_BITS / c->baud * (receivers - (timer_ms >= 0));
}

void kdl_com_judge_latency(struct kdl_com *c, const struct kdl_hist *h, double wire_us,
                           unsigned receivers)
{
	double median = kdl_hist_percentile(h, 0.5), p99 = kdl_hist_percentile(h, 0.99);
	int timer_ms = kdd_serial_latency_ms(c->device);
	double extra = median - wire_us, fifo = fifo_us(c, receivers, timer_ms);
	bool slow = extra - fifo > SLOW_US;
	char least_text[32], median_text[32], p99_text[32], wire_text[32], fifo_text[48] = "";
	char timer[48] = "";

	snprintf(least_text, sizeof(least_text), "%.2f ms", h->min_us / 1000);
	snprintf(median_text, sizeof(median_text), "%.2f ms", median / 1000);
	snprintf(p99_text, sizeof(p99_text), "%.2f ms", p99 / 1000);
	snprintf(wire_text, sizeof(wire_text), "%.2f ms", wire_us / 1000);
	if (fifo > 0)
		snprintf(fifo_text, sizeof(fifo_text), ", a UART's FIFO up to %.2f ms more",
		         fifo / 1000);
	if (timer_ms >= 0)
		snprintf(timer, sizeof(timer), "; latency timer %d ms", timer_ms);
	kdl_value(c->run, "samples", "", (double)h->count);
	kdl_value(c->run, "shortest", "ms", h->min_us / 1000);
	kdl_value(c->run, "median", "ms", median / 1000);
	kdl_value(c->run, "99 %", "ms", p99 / 1000);
	kdl_value(c->run, "longest", "ms", h->max_us / 1000);
	kdl_value(c->run, "line alone", "ms", wire_us / 1000);
	kdl_value(c->run, "FIFO", "ms", fifo / 1000);
	if (timer_ms >= 0)
		kdl_value(c->run, "latency timer", "ms", timer_ms);
	if (slow)
		advise_on_latency(c, extra);
	kdl_end(c->run, slow ? KDL_WARN : KDL_PASS,
	        "shortest %s, median %s, 99 %% within %s; the line alone takes %s%s%s", least_text,
	        median_text, p99_text, wire_text, fifo_text, timer);
}

/* ---- wires ------------------------------------------------------------ */

#define STATES 4u

static bool follows(const struct kdl_wires *w, unsigned input, unsigned output)
{
	for (unsigned out = 0; out < STATES; out++)
		if (((w->inputs[out] & input) != 0) != ((out & output) != 0))
			return false;
	return true;
}

bool kdl_com_has_wires(const struct kdl_wires *w)
{
	for (unsigned i = 1; i < STATES; i++)
		if ((w->inputs[i] ^ w->inputs[0]) &
		    (KDD_SERIAL_CTS | KDD_SERIAL_DSR | KDD_SERIAL_DCD | KDD_SERIAL_RI))
			return true;
	return false;
}

static const char *stuck_at(const struct kdl_wires *w, unsigned input)
{
	unsigned on = 0;

	for (unsigned i = 0; i < STATES; i++)
		on += (w->inputs[i] & input) != 0;
	return on == STATES ? "always on" : on ? "on now and then" : "always off";
}

/* Wires that are not there, and that a cable has from least on: what a rig says
 * of the cable decides. */
static enum kdl_verdict without(struct kdl_com *c, enum kdl_cable least, const char *advice)
{
	enum kdl_cable cable = c->run->expect ? c->run->expect->cable : KDL_CABLE_ANY;

	if (cable < KDL_CABLE_3_WIRE) {
		kdl_advise(c->run, "%s", advice);
		return KDL_WARN;
	}
	if (cable < least)
		return KDL_PASS;
	kdl_advise(c->run, "the rig says that this cable has the wires: one is broken, or it is "
	                   "another cable");
	return KDL_FAIL;
}

static void judge_rts(struct kdl_com *c, const struct kdl_wires *w, const char *where)
{
	if (follows(w, KDD_SERIAL_CTS, KDD_SERIAL_RTS)) {
		kdl_end(c->run, KDL_PASS, "%sCTS follows RTS", where);
		return;
	}
	if (follows(w, KDD_SERIAL_CTS, KDD_SERIAL_DTR)) {
		kdl_advise(c->run, "the wires of RTS and DTR are crossed: rewire, see kdloop(1)");
		kdl_end(c->run, KDL_FAIL, "%sCTS follows DTR, not RTS", where);
		return;
	}
	kdl_end(c->run,
	        without(c, KDL_CABLE_5_WIRE,
	                "KD does without; only a program with RTS/CTS flow control would hang"),
	        "%sRTS does not reach CTS (%s)", where, stuck_at(w, KDD_SERIAL_CTS));
}

static void judge_dtr(struct kdl_com *c, const struct kdl_wires *w, const char *where)
{
	bool dsr = follows(w, KDD_SERIAL_DSR, KDD_SERIAL_DTR);
	bool dcd = follows(w, KDD_SERIAL_DCD, KDD_SERIAL_DTR);

	if (dsr && dcd) {
		kdl_end(c->run, KDL_PASS, "%sDSR and DCD follow DTR", where);
		return;
	}
	if (follows(w, KDD_SERIAL_DSR, KDD_SERIAL_RTS)) {
		kdl_advise(c->run, "the wires of RTS and DTR are crossed: rewire, see kdloop(1)");
		kdl_end(c->run, KDL_FAIL, "%sDSR follows RTS, not DTR", where);
		return;
	}
	enum kdl_verdict verdict = without(c, KDL_CABLE_FULL, "KD does without");
	if (dsr || dcd)
		kdl_end(c->run, verdict, "%sDTR reaches %s only, not %s (%s)", where,
		        dsr ? "DSR" : "DCD", dsr ? "DCD" : "DSR",
		        stuck_at(w, dsr ? KDD_SERIAL_DCD : KDD_SERIAL_DSR));
	else
		kdl_end(c->run, verdict, "%sDTR reaches neither DSR (%s) nor DCD (%s)", where,
		        stuck_at(w, KDD_SERIAL_DSR), stuck_at(w, KDD_SERIAL_DCD));
}

void kdl_com_judge_wires(struct kdl_com *c, const struct kdl_wires *w, bool far, const char *suffix)
{
	const char *where = far ? "at the other end " : "";

	kdl_begin(c->run, "rts-cts%s", suffix);
	judge_rts(c, w, where);
	kdl_begin(c->run, "dtr-dsr-dcd%s", suffix);
	judge_dtr(c, w, where);
}
