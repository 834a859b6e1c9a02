/* kdtarget's options and its run. SPDX-License-Identifier: MIT */
#ifndef HW_FIXTURES_TARGET_KDTARGET_H
#define HW_FIXTURES_TARGET_KDTARGET_H

#include "hw-fixtures/target/carrier.h"
#include "hw-fixtures/target/net.h"
#include "hw-fixtures/target/usb.h"

struct options {
	enum { NO_CARRIER, ON_UNIX, ON_TCP, ON_PTY, ON_NET, ON_USB } on;
	const char *address; /* of the carrier; may be NULL for a pty */
	struct net_options net;
	const char *usb_path; /* ON_USB; ON_NET: NULL for UDP */
	const char *usb_name; /* ON_USB */
	uint32_t replugs;
	uint16_t machine;
	const struct tgt_quirks *quirks;
	const struct hostile *hostile; /* NULL: well-behaved */
	unsigned memory_mib;
	uint64_t seed;
	uint32_t ack_timeout_ms, tries;
	uint32_t print_every_ms, module_every_ms, int3_every_ms; /* 0: never */
	uint32_t garbage_first, drop_acks;
	uint32_t no_reply_to; /* an API number; 0: none */
	bool wait, wrong_baud, plain_text, silent, stats, prompt_once, file_io_once;
	bool no_configured_host;
};

/* Fills *o from the command line. Returns -1 to go on, or the exit status. */
int options_parse(struct options *o, int argc, char **argv);

#endif
