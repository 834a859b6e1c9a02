/* The error codes of every layer. OK is 0; counts are positive; errors are
 * negative. SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_ERR_H
#define KDPROTO_ERR_H

enum kd_err {
	KD_OK = 0,
	KD_ERR_AGAIN = -1, /* nothing now; not a failure */
	KD_ERR_BUSY = -2,  /* someone else, or an earlier request, has it */
	KD_ERR_NOMEM = -3,
	KD_ERR_INVALID = -4,     /* the caller's argument makes no sense */
	KD_ERR_TOO_BIG = -5,     /* does not fit the packet or the buffer */
	KD_ERR_TRUNCATED = -6,   /* the message ends before its fields do */
	KD_ERR_MALFORMED = -7,   /* the bytes cannot be such a message */
	KD_ERR_UNSUPPORTED = -8, /* known, but not here */
	KD_ERR_NOT_FOUND = -9,
	KD_ERR_DENIED = -10, /* no right to do it */
	KD_ERR_GONE = -11,   /* the device, peer or link went away */
	KD_ERR_TIMEOUT = -12,
	KD_ERR_IO = -13,        /* the operating system said no; see the message */
	KD_ERR_STATE = -14,     /* not while the target runs, is stopped, is lost */
	KD_ERR_PROTOCOL = -15,  /* the peer broke the protocol */
	KD_ERR_CANCELLED = -16, /* the requester took it back */
	KD_ERR_LAST = -16,
};

/* A short English text, static. Unknown codes give "unknown error". */
const char *kd_strerror(int err);

#endif
