/* One target: a driver and the host engine, on the event loop.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_TARGET_H
#define KDSRV_TARGET_H

#include "drivers/driver.h"
#include "kdsrv/host.h"
#include "kdsrv/server.h"

#define KDS_TARGET_FDS     8
#define KDS_TARGET_USB_IDS 8

enum kds_target_state {
	KDS_TARGET_OPEN,
	KDS_TARGET_WAITING,   /* the device is gone; tried again and again, or
	                       * looked for by the driver */
	KDS_TARGET_GONE,      /* the device is gone for good; held until CLOSE */
	KDS_TARGET_RELEASING, /* the session is over */
};

struct kds_target {
	TAILQ_ENTRY(kds_target) entry;
	struct kds_server *server;
	struct kds_client *client; /* NULL while it is being let go */
	enum kds_target_state state;
	struct kcs_trans trans;
	char name[KCS_MAX_TEXT]; /* normalised connection string */
	unsigned flags;          /* enum kdw_open_flags */
	struct kdd *driver;      /* NULL in GONE, and in WAITING where it is to
	                          * be opened again */
	struct pollfd fds[KDS_TARGET_FDS];
	struct event *fd_events[KDS_TARGET_FDS];
	size_t fd_count;
	struct event *timer; /* the engine's deadline, or reopening */
	int64_t timer_ms;    /* when it is due */
	bool started;        /* the driver is up, the engine runs */
	bool driver_gone, finished, pumping;
	bool blocked;    /* the driver takes no more bytes now */
	unsigned rounds; /* of reading since it queued with clients */
	struct kds_host host;
	struct kdn net; /* net: only, while started */
	struct kdu usb; /* debug cables only, likewise */
	struct kdd_usb_id usb_ids[KDS_TARGET_USB_IDS];
	/* See target_usb.c. */
	bool told_away;        /* since the target answered last */
	bool told_waiting;     /* was the last word about the device */
	int64_t away_tell_ms;  /* when clients are to be told that it is away */
	char away_reason[256]; /* why it is */
	char told_other[300];  /* what is wrong with the one that is there */
	int64_t turn_ms;       /* net: when it is to be doubted, KDP_NEVER: not at all */
	/* Counts when it came: datagrams with our key, with others, all packets. */
	uint64_t turn_opened, turn_denied, turn_packets;
	char told_turns[512]; /* what was told of them, end to end */
	bool has_close_id;
	uint32_t close_id;      /* CLOSE to be answered */
	char last_words[200];   /* what letting go of it left undone */
	uint16_t record_number; /* of this stream in the recording */
	uint64_t ack_max_us;    /* longest from a read to the write after it */
};

/* Opens the hardware for a client and starts to look for the target.
 * KD_ERR_BUSY with "in use by ..." or the driver's error. */
int kds_target_open(struct kds_target **out, struct kds_client *c, const struct kcs_trans *trans,
                    unsigned flags, char *error, size_t cap);
/* The target that has this hardware open; NULL when none. */
struct kds_target *kds_target_find(struct kds_server *s, const struct kcs_trans *trans);
/* Ends the session; the target frees itself when done. */
void kds_target_release(struct kds_target *t, bool leave_stopped, uint32_t limit_ms);
/* Closes the hardware now. */
void kds_target_free(struct kds_target *t);
/* Something was asked of the engine: its bytes go out at once, its events
 * come in the next round of the loop. */
void kds_target_kick(struct kds_target *t);
void kds_target_break(struct kds_target *t);
/* KD_ERR_STATE: no prompt is pending. */
int kds_target_answer(struct kds_target *t, struct kdp_span text);
void kds_target_resync(struct kds_target *t);
void kds_target_set_flags(struct kds_target *t, unsigned flags);
void kds_target_describe(const struct kds_target *t, struct kdw_target_info *out);
uint8_t kds_target_link(const struct kds_target *t); /* enum kdw_link */

#endif
