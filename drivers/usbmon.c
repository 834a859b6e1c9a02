/* Steps of USB transfers as usbmon records them. SPDX-License-Identifier: MIT */
#include "drivers/usbmon.h"

#define OLD_HEADER  48
#define BULK        3
#define IN          0x80
#define IN_PROGRESS (-115) /* EINPROGRESS, as Linux numbers it */

size_t kdd_usbmon_encode(uint8_t *out, size_t cap, const struct kdd_usb_step *step, int64_t time_ns)
{
	struct kdp_wr w = kdp_wr(out, cap);
	uint8_t no_data = step->endpoint & IN ? '<' : '>';

	kdp_wr_u64(&w, step->transfer);
	kdp_wr_u8(&w, step->done ? 'C' : 'S');
	kdp_wr_u8(&w, BULK);
	kdp_wr_u8(&w, step->endpoint);
	kdp_wr_u8(&w, step->device);
	kdp_wr_u16(&w, step->bus);
	kdp_wr_u8(&w, '-'); /* no setup packet */
	kdp_wr_u8(&w, step->data_len ? 0 : no_data);
	kdp_wr_u64(&w, (uint64_t)(time_ns / 1000000000));
	kdp_wr_u32(&w, (uint32_t)(time_ns % 1000000000 / 1000));
	kdp_wr_u32(&w, (uint32_t)(step->done ? step->status : IN_PROGRESS));
	kdp_wr_u32(&w, step->length);
	kdp_wr_u32(&w, (uint32_t)step->data_len);
	/* The setup packet, and what other kinds of transfers have. */
	kdp_wr_zero(&w, KDD_USBMON_HEADER - 40);
	kdp_wr_bytes(&w, kdp_span(step->data, step->data_len));
	return w.bad ? 0 : w.used;
}

bool kdd_usbmon_decode(struct kdd_usb_step *out, int linktype, struct kdp_span record)
{
	size_t header = linktype == KDD_USBMON_OLD ? OLD_HEADER : KDD_USBMON_HEADER;
	struct kdp_rd r = kdp_rd(record);
	struct kdd_usb_step s = { .transfer = kdp_rd_u64(&r) };
	uint8_t event = kdp_rd_u8(&r), type = kdp_rd_u8(&r);
	uint32_t captured;

	s.endpoint = kdp_rd_u8(&r);
	s.device = kdp_rd_u8(&r);
	s.bus = kdp_rd_u16(&r);
	kdp_rd_skip(&r, 2 + 8 + 4); /* flags, time */
	s.status = (int)kdp_rd_u32(&r);
	s.length = kdp_rd_u32(&r);
	captured = kdp_rd_u32(&r);
	if (r.bad || record.n < header || type != BULK ||
	    (event != 'S' && event != 'C' && event != 'E'))
		return false;
	s.done = event != 'S';
	/* usbmon's own limit cuts as well as the capture's snapshot length. */
	s.data_len = captured < record.n - header ? captured : record.n - header;
	s.data = record.p + header;
	*out = s;
	return true;
}
