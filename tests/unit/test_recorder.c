/* The capture files of a server. SPDX-License-Identifier: MIT */
#include <config.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/usbmon.h"
#include "kdsrv/recorder.h"

#define PACKET 6

struct folder {
	char path[64];
	uint8_t file[400000]; /* what load found */
	size_t len;
};

static int make_folder(void **state)
{
	static struct folder f;

	strcpy(f.path, "/tmp/kd-recorder-XXXXXX");
	*state = &f;
	return !mkdtemp(f.path);
}

static int remove_folder(void **state)
{
	static const char *const names[] = { "lab.pcapng", "lab.usb.pcapng", "plain", "plain.usb" };
	struct folder *f = *state;
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->path, names[i]);
		remove(path);
	}
	return rmdir(f->path);
}

static struct kds_recorder *record_to(const struct folder *f, const char *name)
{
	static char path[128];
	struct kds_recorder *r;
	char error[512];

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	assert_int_equal(kds_recorder_open(&r, path, "test", error, sizeof(error)), KD_OK);
	return r;
}

static void load(struct folder *f, const char *name)
{
	char path[128];
	struct stat st;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	file = fopen(path, "rb");
	assert_non_null(file);
	f->len = fread(f->file, 1, sizeof(f->file), file);
	assert_true(f->len < sizeof(f->file));
	fclose(file);
}

/* The n-th packet of what load found, from 0; empty: there are fewer. The file
 * must consist of whole blocks. */
static struct kdp_span nth_packet(const struct folder *f, size_t n)
{
	struct kdp_span found = { NULL, 0 };

	for (size_t at = 0; at < f->len;) {
		uint32_t len = kdp_get_u32(f->file + at + 4);

		assert_true(len >= 12 && len % 4 == 0 && len <= f->len - at);
		assert_int_equal(kdp_get_u32(f->file + at + len - 4), len);
		if (kdp_get_u32(f->file + at) == PACKET && n-- == 0)
			found = kdp_span(f->file + at + 28, kdp_get_u32(f->file + at + 20));
		at += len;
	}
	return found;
}

static void streams_and_datagrams_are_one_file(void **state)
{
	struct kdn_address target = { .ip = { [15] = 9 }, .port = 5 };
	struct folder *f = *state;
	struct kds_recorder *r = record_to(f, "lab.pcapng");
	struct kdt_record got;

	assert_int_equal(kds_recorder_number(r), 1);
	assert_int_equal(kds_recorder_number(r), 2);
	kds_record_stream(r, 2, true, kdp_span((const uint8_t *)"abc", 3));
	kds_record_datagram(r, false, &target, 7, kdp_span((const uint8_t *)"sealed", 6));
	load(f, "lab.pcapng");
	assert_int_equal(nth_packet(f, 0).n, 0);
	kds_recorder_flush(r);
	load(f, "lab.pcapng");
	assert_int_equal(kdt_record_decode(&got, nth_packet(f, 0)), KD_OK);
	assert_int_equal(got.content, KDT_RECORD_STREAM);
	assert_int_equal(got.sender, KDT_RECORD_TARGET);
	assert_true(got.src.port == 2 && got.dst.port == 0);
	assert_memory_equal(got.bytes.p, "abc", 3);
	assert_int_equal(kdt_record_decode(&got, nth_packet(f, 1)), KD_OK);
	assert_int_equal(got.content, KDT_RECORD_DATAGRAM);
	assert_int_equal(got.sender, KDT_RECORD_HOST);
	assert_true(got.src.port == 7 && got.dst.port == 5 && got.dst.ip[15] == 9);
	assert_memory_equal(got.bytes.p, "sealed", 6);
	assert_int_equal(nth_packet(f, 2).n, 0);
	kds_recorder_close(r);
}

static void usb_has_a_file_of_its_own_when_needed(void **state)
{
	static const char *const names[][2] = { { "lab.pcapng", "lab.usb.pcapng" },
		                                { "plain", "plain.usb" } };
	static const uint8_t data[] = "NAME?";
	struct kdd_usb_step out = { .transfer = 3,
		                    .endpoint = 1,
		                    .bus = 2,
		                    .device = 4,
		                    .length = 5,
		                    .data = data,
		                    .data_len = 5 };
	struct kdd_usb_step failed = {
		.transfer = 4, .done = true, .endpoint = 0x81, .status = -32
	};
	struct folder *f = *state;

	for (int i = 0; i < 2; i++) {
		struct kds_recorder *r = record_to(f, names[i][0]);
		struct kdd_usb_step got;
		char path[128];

		snprintf(path, sizeof(path), "%s/%s", f->path, names[i][1]);
		assert_int_equal(access(path, F_OK), -1);
		kds_record_usb(r, &out);
		kds_record_usb(r, &failed);
		kds_recorder_close(r);
		load(f, names[i][1]);
		assert_true(kdd_usbmon_decode(&got, 220, nth_packet(f, 0)));
		assert_true(got.transfer == 3 && !got.done && got.device == 4 && got.bus == 2);
		assert_int_equal(got.data_len, 5);
		assert_memory_equal(got.data, data, 5);
		assert_true(kdd_usbmon_decode(&got, 220, nth_packet(f, 1)));
		assert_true(got.done && got.status == -32 && got.endpoint == 0x81);
		load(f, names[i][0]);
		assert_int_equal(nth_packet(f, 0).n, 0);
	}
}

static void a_full_buffer_is_written_and_long_pieces_are_cut(void **state)
{
	static uint8_t bytes[100000];
	struct folder *f = *state;
	struct kds_recorder *r = record_to(f, "lab.pcapng");
	struct kdt_record got;
	size_t sum = 0, n = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7);
	for (int i = 0; i < 3; i++)
		kds_record_stream(r, 1, false, kdp_span(bytes, sizeof(bytes)));
	load(f, "lab.pcapng");
	assert_true(nth_packet(f, 0).n > 0);
	kds_recorder_close(r);
	load(f, "lab.pcapng");
	for (; nth_packet(f, n).n; n++) {
		assert_int_equal(kdt_record_decode(&got, nth_packet(f, n)), KD_OK);
		assert_memory_equal(got.bytes.p, bytes + sum % sizeof(bytes), got.bytes.n);
		sum += got.bytes.n;
	}
	assert_int_equal(sum, 3 * sizeof(bytes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_and_datagrams_are_one_file),
		cmocka_unit_test(usb_has_a_file_of_its_own_when_needed),
		cmocka_unit_test(a_full_buffer_is_written_and_long_pieces_are_cut),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
