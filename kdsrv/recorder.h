/* Writes what crosses the carriers of a server into a capture file (pcapng,
 * link type 147, see transport/record.h), for kdcap and Wireshark. USB transfers
 * go into a second file, as usbmon would record them (link type 220), because
 * libpcap reads no file with two link types.
 *
 * Recording never ends a session: when a file cannot be written any more, the
 * log says so once, the file is cut behind its last whole record, and what comes
 * later is not recorded.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDSRV_RECORDER_H
#define KDSRV_RECORDER_H

#include "drivers/driver.h"
#include "transport/record.h"

struct kds_recorder;

/* Makes the file, for its owner alone, or empties it. The file for USB is made
 * when there is something for it: "lab.pcapng" has "lab.usb.pcapng".
 * application: who writes. The strings must live until close. KD_OK, or
 * KD_ERR_BUSY (another recording goes there), KD_ERR_INVALID (no regular file),
 * KD_ERR_DENIED, KD_ERR_NOT_FOUND, KD_ERR_NOMEM, KD_ERR_IO; error says which,
 * with the path. */
int kds_recorder_open(struct kds_recorder **out, const char *path, const char *application,
                      char *error, size_t cap);
/* Writes what waits. NULL is fine. */
void kds_recorder_close(struct kds_recorder *r);
/* A number for one more stream of this file. */
uint16_t kds_recorder_number(struct kds_recorder *r);

/* These keep the bytes and return at once, unless the buffer is full. */
void kds_record_stream(struct kds_recorder *r, uint16_t number, bool from_target,
                       struct kdp_span bytes);
void kds_record_datagram(struct kds_recorder *r, bool from_target, const struct kdn_address *target,
                         uint16_t own_port, struct kdp_span bytes);
/* A usb_trace of struct kdd_params; recorder: a struct kds_recorder. */
void kds_record_usb(void *recorder, const struct kdd_usb_step *step);
/* Call it when there is nothing else to do: readers see all that was recorded. */
void kds_recorder_flush(struct kds_recorder *r);

#endif
