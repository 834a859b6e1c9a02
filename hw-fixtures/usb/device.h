/* The emulated USB debug device: what the debug port of a debuggee looks like
 * to a host. Descriptors, the two bulk endpoints, faults, and the commands of a
 * test. No I/O and no clock: a front end shows it to a host and owns the loop,
 * cable.h joins it to the debuggee.
 *
 * The debuggee deals in whole transfers of at most EMU_MAX_TRANSFER bytes. This
 * cuts them into packets of EMU_PACKET as a real controller does: a short packet
 * ends a transfer, an empty one ends those of exactly so many full packets.
 *
 * A function that answers or completes something may call back before it
 * returns; a front end must not call into the model from there.
 * SPDX-License-Identifier: MIT
 */
#ifndef HW_FIXTURES_USB_DEVICE_H
#define HW_FIXTURES_USB_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMU_PACKET       1024
#define EMU_MAX_TRANSFER 16384
#define EMU_EP_IN        0x81
#define EMU_EP_OUT       0x01
#define EMU_ANSWER_CAP   256
#define EMU_QUEUE_MAX    64 /* transfers from the debuggee that wait for the host */

enum emu_descriptors {
	EMU_KDUSB,          /* 3495:00e0 DC/02/FF: a good one */
	EMU_EEM,            /* 045e:0656, the rest as before */
	EMU_NO_BULK,        /* no endpoints at all */
	EMU_OTHER_CLASS,    /* interface class 03 */
	EMU_ABSURD_LENGTHS, /* lengths of 0 and 65535 where there should be true ones */
	EMU_WRONG_LENGTHS,  /* the same with 4095: QEMU's xHCI stalls requests for over 4096 */
	EMU_ENDLESS_NAMES,  /* strings that fill all that a descriptor can hold, and lie about it */
	EMU_DESCRIPTORS
};

struct emu_options {
	enum emu_descriptors descriptors;
	uint16_t vendor, product; /* both 0: as descriptors has them */
	const char *serial;       /* NULL: "123456789", which all real ones have */
	bool no_zlp;              /* IN: full packets are not followed by an empty one */
	bool unconfigured;        /* the kernel takes its time: not before "configure" */
};

/* A transfer of the host on a bulk endpoint; the front end's memory, the
 * model's from submit until complete. */
struct emu_request {
	uint8_t *data;    /* IN: room for the bytes; OUT: the bytes */
	size_t len;       /* of data, in bytes */
	bool zero_packet; /* OUT: the host adds an empty packet to full ones */
	/* The result. */
	size_t done; /* bytes moved */
	int status;  /* 0 or a negative errno, as Linux's usbfs has it: EPIPE (stall),
	              * EPROTO, EOVERFLOW, ENOENT (cancelled), ESHUTDOWN (unplugged) */
	/* The model's. */
	struct emu_request *next;
};

struct emu_requests {
	struct emu_request *first, **last;
};

struct emu;

/* All but deliver and pull are the front end's. */
struct emu_ops {
	/* The device appears at its port, with no address yet; it goes. All requests
	 * were completed before it goes. */
	void (*plugged)(struct emu *e);
	void (*unplugged)(struct emu *e);
	void (*completed)(struct emu *e, struct emu_request *r);
	/* One line without its end: what a command came to. One a command; only that of wait may be
	 * late. */
	void (*answer)(struct emu *e, const char *line);
	/* cable.c's: a transfer to the debuggee. False: not now, emu_resume tells when. */
	bool (*deliver)(struct emu *e, const uint8_t *data, size_t len);
	/* cable.c's: cut the cable, and let nobody connect until it is allowed again. */
	void (*pull)(struct emu *e, bool pulled);
};

struct emu_transfer; /* from the debuggee, waiting for the host */

struct emu {
	const struct emu_ops *ops; /* set by the user, and may be changed by nobody */
	void *front, *cable;       /* for the user's and cable.c's own purposes */
	struct emu_options options;

	bool plugged; /* a debuggee is connected */
	bool pulled;  /* by command */
	bool busy;    /* by command: claiming the interface must fail */
	bool hung;    /* by command: clearing a stall does not end, */
	bool hanging; /* and this one does not */
	uint8_t configuration;

	struct emu_requests in, out;
	bool halted_in, halted_out;
	/* Faults to come: on how many requests. */
	unsigned errors_in, errors_out, overflows;
	size_t out_room; /* SIZE_MAX, or bytes that are still taken from the host */

	struct emu_transfer *first, **last;
	unsigned queued;
	size_t at; /* bytes of the first one that the host has */
	uint8_t assembled[EMU_MAX_TRANSFER];
	size_t assembled_len;
	bool assembled_due; /* complete, but not delivered yet */
	bool out_taken;     /* the first OUT request has been taken in full */

	enum { EMU_WAIT_NOTHING, EMU_WAIT_PLUGGED, EMU_WAIT_UNPLUGGED, EMU_WAIT_READING } waiting;
	unsigned plugs, clear_halts, stray_clear_halts, resets, configurations;
};

/* From names as in "--descriptors no-bulk" and "--id 3495:00e0"; false: unknown. */
bool emu_parse_descriptors(struct emu_options *o, const char *name);
bool emu_parse_id(struct emu_options *o, const char *text);

void emu_init(struct emu *e, const struct emu_ops *ops, const struct emu_options *o);
/* Completes what is pending and frees what is queued. */
void emu_finish(struct emu *e);

/* ---- the cable's side ------------------------------------------------- */

/* A debuggee connected, and left. */
void emu_plug(struct emu *e);
void emu_unplug(struct emu *e);
/* A transfer from the debuggee, which may be empty. False: it is too long, or no
 * debuggee is connected, or no memory. */
bool emu_receive(struct emu *e, const uint8_t *data, size_t len);
/* False: the queue is full, nothing should be read from the cable. */
bool emu_wants_more(const struct emu *e);
/* deliver would work again. */
void emu_resume(struct emu *e);

/* ---- the host's side -------------------------------------------------- */

/* endpoint is EMU_EP_IN or EMU_EP_OUT. */
void emu_submit(struct emu *e, uint8_t endpoint, struct emu_request *r);
/* Completes r with ENOENT, keeping what was moved; false: it is not pending. */
bool emu_cancel(struct emu *e, struct emu_request *r);
/* A request on endpoint 0. setup has its eight bytes; data has as many more as
 * they say, to be read or filled. Bytes moved, or -EPIPE. */
int emu_control(struct emu *e, const uint8_t setup[8], uint8_t *data);
/* What a controller or a kernel does without asking with a control request. */
void emu_clear_halt(struct emu *e, uint8_t endpoint);
void emu_set_configuration(struct emu *e, uint8_t configuration);
void emu_reset(struct emu *e);

/* ---- descriptors ------------------------------------------------------ */

#define EMU_DEVICE_LEN 18
#define EMU_CONFIG_CAP 64
#define EMU_BOS_CAP    32

void emu_device_descriptor(const struct emu *e, uint8_t out[EMU_DEVICE_LEN]);
/* Each returns its length; strings 0 when there is none of that index. */
size_t emu_config_descriptor(const struct emu *e, uint8_t out[EMU_CONFIG_CAP]);
size_t emu_bos_descriptor(const struct emu *e, uint8_t out[EMU_BOS_CAP]);
size_t emu_string_descriptor(const struct emu *e, uint8_t index, uint8_t out[255]);

/* ---- a test's side ---------------------------------------------------- */

/* Obeys one line (without its end); ops->answer gets "ok ..." or "error: WHY".
 *   stall [in|out]       halt the endpoint until the host clears it; default in
 *   ioerror [in|out] [N] the next N requests (default 1) end in a transaction error
 *   overflow [N]         the next N IN requests get more than they can hold
 *   deaf [N]             take N (default 0) more bytes from the host, then no more
 *   hear                 take them again
 *   busy, free           claiming the interface fails, works
 *   hang, go             clearing a stall hangs, and goes on (kdusb-mock)
 *   configure            the kernel has configured it (kdusb-mock --unconfigured)
 *   unplug, plug         pull the cable, and let a debuggee connect again
 *   wait plugged|unplugged|reading
 *                        answered when it is so; reading: an IN request is pending
 *   status               "ok plugged=1 reading=1 queued=0 writing=0 plugs=1 clear_halts=0
 *                        stray_clear_halts=0 resets=0 configurations=1 hanging=0": stray
 *                        are those of endpoints that were not halted, which upsets real
 *                        ones */
void emu_command(struct emu *e, const char *line);

#endif
