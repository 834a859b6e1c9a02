/* Machine facts, debug I/O, file I/O, trace I/O and control requests.
 * SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/codec_test.h"

static const uint32_t hostile[] = { 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, UINT32_MAX };
#define HOSTILE (sizeof(hostile) / sizeof(hostile[0]))

static void test_machines(void **state)
{
	(void)state;
	assert_int_equal(kdp_machine_pointer_size(KDP_MACHINE_X86), 4);
	assert_int_equal(kdp_machine_pointer_size(KDP_MACHINE_AMD64), 8);
	assert_int_equal(kdp_machine_pointer_size(KDP_MACHINE_ARM64), 8);
	assert_string_equal(kdp_machine_name(KDP_MACHINE_X86), "x86");
	assert_string_equal(kdp_machine_name(KDP_MACHINE_AMD64), "x64");
	assert_string_equal(kdp_machine_name(KDP_MACHINE_ARM64), "ARM64");
	assert_string_equal(kdp_machine_name(0x1234), "unknown");
	assert_true(kdp_machine_canonical(KDP_MACHINE_X86, 0x80400000) == 0xFFFFFFFF80400000);
	assert_true(kdp_machine_canonical(KDP_MACHINE_X86, 0xFFFFFFFF80400000) ==
	            0xFFFFFFFF80400000);
	assert_true(kdp_machine_canonical(KDP_MACHINE_X86, 0x7FFFFFFF) == 0x7FFFFFFF);
	assert_true(kdp_machine_canonical(KDP_MACHINE_X86, 0x1234567800001000) == 0x1000);
	assert_true(kdp_machine_canonical(KDP_MACHINE_AMD64, 0x80400000) == 0x80400000);
	assert_true(kdp_machine_canonical(KDP_MACHINE_UNKNOWN, 0x80400000) == 0x80400000);
}

static void test_status(void **state)
{
	(void)state;
	assert_true(kdp_status_ok(KDP_STATUS_SUCCESS));
	assert_true(kdp_status_ok(KDP_STATUS_PENDING));
	assert_true(kdp_status_ok(KDP_DBG_CONTINUE));
	assert_false(kdp_status_ok(KDP_EXC_BREAKPOINT));
	assert_false(kdp_status_ok(KDP_STATUS_UNSUCCESSFUL));
}

/* ---- debug I/O ----------------------------------------------------------- */

static int decode_from_target(void *out, struct kdp_span in)
{
	return kdp_debug_io_decode(out, in, false);
}

static int decode_from_host(void *out, struct kdp_span in)
{
	return kdp_debug_io_decode(out, in, true);
}

static long encode_from_target(uint8_t *buf, size_t cap, const void *msg)
{
	return kdp_debug_io_encode(buf, cap, msg, false);
}

static long encode_from_host(uint8_t *buf, size_t cap, const void *msg)
{
	return kdp_debug_io_encode(buf, cap, msg, true);
}

static void test_print(void **state)
{
	struct kdp_debug_io d = { .api = KDP_PRINT_STRING,
		                  .processor_level = 0x0601,
		                  .processor = 0x0302,
		                  .text = text_span("hello\n") };
	struct kdp_debug_io out;
	uint8_t wire[64];
	size_t n = unhex(wire, sizeof(wire), "30320000 0106 0203 06000000 00000000 68656c6c6f0a");

	(void)state;
	check_encode(encode_from_target, &d, wire, n);
	assert_int_equal(decode_from_target(&out, kdp_span(wire, n)), KD_OK);
	assert_int_equal(out.api, KDP_PRINT_STRING);
	assert_int_equal(out.processor_level, 0x0601);
	assert_int_equal(out.processor, 0x0302);
	assert_span_is(out.text, "hello\n", 6);
	check_encode(encode_from_target, &out, wire, n);
	/* Less text than claimed is still text ... */
	assert_int_equal(decode_from_target(&out, kdp_span(wire, n - 1)), KD_OK);
	assert_span_is(out.text, "hello", 5);
	/* ... and more than claimed is not. */
	wire[8] = 4;
	assert_int_equal(decode_from_target(&out, kdp_span(wire, n)), KD_OK);
	assert_span_is(out.text, "hell", 4);
	/* A host never prints. */
	assert_int_equal(decode_from_host(&out, kdp_span(wire, n)), KD_ERR_MALFORMED);
	assert_int_equal(encode_from_host(wire, sizeof(wire), &d), KD_ERR_INVALID);
}

static void test_print_truncations(void **state)
{
	struct kdp_debug_io out;
	uint8_t wire[32] = { 0x30, 0x32 };

	(void)state;
	kdp_put_u32(wire + 8, 16);
	memcpy(wire + 16, "sixteen letters!", 16);
	/* At 28 bytes this is a whole message of the old form. */
	check_truncations(decode_from_target, sizeof(out), wire, sizeof(wire), 16);
	assert_int_equal(decode_from_target(&out, kdp_span(wire, 31)), KD_OK);
	assert_span_is(out.text, "sixteen letters", 15);
}

static void test_print_with_old_header(void **state)
{
	struct kdp_debug_io out;
	uint8_t wire[18];

	(void)state;
	unhex(wire, sizeof(wire), "30320000 0600 0000 06000000 68656c6c6f0a");
	assert_int_equal(decode_from_target(&out, kdp_span(wire, 18)), KD_OK);
	assert_span_is(out.text, "hello\n", 6);
	wire[8] = 0;
	assert_int_equal(decode_from_target(&out, kdp_span(wire, 12)), KD_OK);
	assert_int_equal(out.text.n, 0);
}

static void test_prompt_and_answer(void **state)
{
	struct kdp_debug_io d = { .api = KDP_GET_STRING,
		                  .processor_level = 6,
		                  .answer_max = 2,
		                  .text = text_span("bip?") };
	struct kdp_debug_io out;
	uint8_t wire[32];
	size_t n = unhex(wire, sizeof(wire), "31320000 0600 0000 04000000 02000000 6269703f");

	(void)state;
	check_encode(encode_from_target, &d, wire, n);
	check_truncations(decode_from_target, sizeof(out), wire, n, KDP_DEBUG_IO_LEN);
	assert_int_equal(decode_from_target(&out, kdp_span(wire, n)), KD_OK);
	assert_span_is(out.text, "bip?", 4);
	assert_int_equal(out.answer_max, 2);
	assert_int_equal(out.prompt_length, 4);

	/* The answer echoes the prompt's length, so the decoded prompt is the
	 * start of the answer. */
	out.text = text_span("i");
	n = unhex(wire, sizeof(wire), "31320000 0600 0000 04000000 01000000 69");
	check_encode(encode_from_host, &out, wire, n);
	check_truncations(decode_from_host, sizeof(out), wire, n, KDP_DEBUG_IO_LEN);
	assert_int_equal(decode_from_host(&out, kdp_span(wire, n)), KD_OK);
	assert_span_is(out.text, "i", 1);
	assert_int_equal(out.answer_max, 1);
	assert_int_equal(out.prompt_length, 4);
	/* Its own length counts, as far as there is so much. */
	n = unhex(wire, sizeof(wire), "31320000 0600 0000 04000000 02000000 6269703f");
	assert_int_equal(decode_from_host(&out, kdp_span(wire, n)), KD_OK);
	assert_span_is(out.text, "bi", 2);
	assert_int_equal(out.answer_max, 2);
	wire[12] = 200;
	assert_int_equal(decode_from_host(&out, kdp_span(wire, n)), KD_OK);
	assert_span_is(out.text, "bip?", 4);
	assert_int_equal(out.answer_max, 4);
}

static void test_hostile_string_lengths(void **state)
{
	struct kdp_debug_io out;
	uint8_t wire[20] = { 0 };

	(void)state;
	for (size_t i = 0; i < HOSTILE; i++) {
		for (uint32_t api = KDP_PRINT_STRING; api <= KDP_GET_STRING; api++) {
			for (int host = 0; host < 2; host++) {
				uint8_t *in;

				kdp_put_u32(wire, api);
				kdp_put_u32(wire + 8, hostile[i]);
				kdp_put_u32(wire + 12, hostile[i]);
				in = exact_copy(wire, sizeof(wire));
				if (host && api == KDP_PRINT_STRING) {
					assert_int_equal(
					    kdp_debug_io_decode(&out, kdp_span(in, 20), true),
					    KD_ERR_MALFORMED);
				} else {
					assert_int_equal(
					    kdp_debug_io_decode(&out, kdp_span(in, 20), host),
					    KD_OK);
					assert_int_equal(out.text.n, 4);
				}
				exact_free(in, sizeof(wire));
			}
		}
	}
}

static void test_debug_io_of_unknown_kind(void **state)
{
	struct kdp_debug_io d = { .api = 0x3232 }, out;
	uint8_t wire[KDP_DEBUG_IO_LEN] = { 0x32, 0x32 };

	(void)state;
	assert_int_equal(decode_from_target(&out, kdp_span(wire, sizeof(wire))), KD_ERR_MALFORMED);
	assert_int_equal(decode_from_host(&out, kdp_span(wire, sizeof(wire))), KD_ERR_MALFORMED);
	assert_int_equal(encode_from_target(wire, sizeof(wire), &d), KD_ERR_INVALID);
	assert_int_equal(encode_from_host(wire, sizeof(wire), &d), KD_ERR_INVALID);
}

static void test_largest_print(void **state)
{
	static uint8_t text[KDP_MAX_PAYLOAD], buf[KDP_MAX_PAYLOAD + 64];
	struct kdp_debug_io d = { .api = KDP_PRINT_STRING };

	(void)state;
	d.text = kdp_span(text, KDP_MAX_PAYLOAD - KDP_DEBUG_IO_LEN);
	assert_int_equal(encode_from_target(buf, sizeof(buf), &d), KDP_MAX_PAYLOAD);
	d.text.n++;
	assert_int_equal(encode_from_target(buf, sizeof(buf), &d), KD_ERR_TOO_BIG);
}

/* ---- file I/O ------------------------------------------------------------ */

static int decode_file_io(void *out, struct kdp_span in)
{
	return kdp_file_io_decode(out, in);
}

static long encode_file_io(uint8_t *buf, size_t cap, const void *msg)
{
	return kdp_file_io_encode(buf, cap, msg);
}

/* Lays out hex, zeros to 64 and data; encodes, decodes, truncates. */
static void check_file_io(const struct kdp_file_io *f, const char *hex)
{
	struct kdp_file_io out;
	uint8_t wire[128] = { 0 };
	size_t n = KDP_FILE_IO_LEN + f->data.n;

	unhex(wire, KDP_FILE_IO_LEN, hex);
	if (f->data.n)
		memcpy(wire + KDP_FILE_IO_LEN, f->data.p, f->data.n);
	check_encode(encode_file_io, f, wire, n);
	check_truncations(decode_file_io, sizeof(out), wire, n, KDP_FILE_IO_LEN);
	assert_int_equal(kdp_file_io_decode(&out, kdp_span(wire, n)), KD_OK);
	assert_int_equal(out.api, f->api);
	assert_int_equal(out.status, f->status);
	assert_int_equal(out.access, f->access);
	assert_int_equal(out.attributes, f->attributes);
	assert_int_equal(out.share, f->share);
	assert_int_equal(out.disposition, f->disposition);
	assert_int_equal(out.options, f->options);
	assert_true(out.handle == f->handle);
	assert_true(out.length == f->length);
	assert_true(out.offset == f->offset);
	assert_span_is(out.data, f->data.p, f->data.n);
}

static void test_file_io(void **state)
{
	struct kdp_file_io f = { .api = KDP_CREATE_FILE,
		                 .status = KDP_STATUS_PENDING,
		                 .access = 0x00120089,
		                 .attributes = 0x80,
		                 .share = 1,
		                 .disposition = 2,
		                 .options = 3,
		                 .handle = 0x1122334455667788,
		                 .length = 0x99AABBCCDDEEFF00,
		                 .data = kdp_span("a\0.\0s\0\0", 8) };

	(void)state;
	check_file_io(&f, "30340000 03010000 89001200 80000000 01000000 02000000 03000000 00000000"
	                  "88776655 44332211 00ffeedd ccbbaa99");
	f = (struct kdp_file_io){ .api = KDP_READ_FILE,
		                  .handle = 0x1122334455667788,
		                  .offset = 0x99AABBCCDDEEFF00,
		                  .length = 5,
		                  .data = text_span("bytes") };
	check_file_io(&f, "31340000 00000000 88776655 44332211 00ffeedd ccbbaa99 05000000");
	f.api = KDP_WRITE_FILE;
	check_file_io(&f, "32340000 00000000 88776655 44332211 00ffeedd ccbbaa99 05000000");
	f = (struct kdp_file_io){ .api = KDP_READ_FILE, .length = 0xF60 };
	check_file_io(&f, "31340000 00000000 00000000 00000000 00000000 00000000 600f0000");
	f = (struct kdp_file_io){ .api = KDP_CLOSE_FILE,
		                  .status = KDP_STATUS_UNSUCCESSFUL,
		                  .handle = 0x1122334455667788 };
	check_file_io(&f, "33340000 010000c0 88776655 44332211");
}

static void test_hostile_file_length(void **state)
{
	struct kdp_file_io f;
	uint8_t wire[KDP_FILE_IO_LEN + 4] = { 0 }, buf[sizeof(wire)];

	(void)state;
	for (size_t i = 0; i < HOSTILE; i++) {
		uint8_t *in;

		kdp_put_u32(wire, i & 1 ? KDP_READ_FILE : KDP_WRITE_FILE);
		kdp_put_u32(wire + 0x18, hostile[i]);
		in = exact_copy(wire, sizeof(wire));
		assert_int_equal(kdp_file_io_decode(&f, kdp_span(in, sizeof(wire))), KD_OK);
		assert_int_equal(f.length, hostile[i]);
		assert_int_equal(f.data.n, 4);
		exact_free(in, sizeof(wire));
	}
	kdp_put_u32(wire + 0x18, 3);
	assert_int_equal(kdp_file_io_decode(&f, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(f.data.n, 3);
	f.length = 0x100000000;
	assert_int_equal(kdp_file_io_encode(buf, sizeof(buf), &f), KD_ERR_INVALID);
}

static void test_file_io_of_unknown_kind(void **state)
{
	struct kdp_file_io f = { .api = 0x3434 };
	uint8_t wire[KDP_FILE_IO_LEN] = { 0x34, 0x34 };

	(void)state;
	assert_int_equal(kdp_file_io_encode(wire, sizeof(wire), &f), KD_ERR_INVALID);
	assert_int_equal(kdp_file_io_decode(&f, kdp_span(wire, sizeof(wire))), KD_ERR_MALFORMED);
}

static void test_file_io_refusal(void **state)
{
	uint8_t request[KDP_FILE_IO_LEN + 10], expected[KDP_FILE_IO_LEN], answer[KDP_FILE_IO_LEN];

	(void)state;
	for (size_t i = 0; i < sizeof(request); i++)
		request[i] = (uint8_t)(0x80 + i);
	memcpy(expected, request, sizeof(expected));
	unhex(expected + 4, 4, "0f0000c0");
	assert_int_equal(kdp_file_io_refuse(answer, sizeof(answer), kdp_span(request, 74),
	                                    KDP_STATUS_NO_SUCH_FILE),
	                 KDP_FILE_IO_LEN);
	assert_memory_equal(answer, expected, sizeof(expected));
	for (size_t n = 0; n < KDP_FILE_IO_LEN; n++) {
		assert_int_equal(kdp_file_io_refuse(answer, sizeof(answer), kdp_span(request, n),
		                                    KDP_STATUS_NO_SUCH_FILE),
		                 KD_ERR_TRUNCATED);
		assert_int_equal(kdp_file_io_refuse(answer, n, kdp_span(request, sizeof(request)),
		                                    KDP_STATUS_NO_SUCH_FILE),
		                 KD_ERR_TOO_BIG);
	}
	/* In place, too: the answer may replace the request. */
	assert_int_equal(kdp_file_io_refuse(request, sizeof(request),
	                                    kdp_span(request, sizeof(request)),
	                                    KDP_STATUS_NO_SUCH_FILE),
	                 KDP_FILE_IO_LEN);
	assert_memory_equal(request, expected, sizeof(expected));
}

/* ---- trace I/O and control requests -------------------------------------- */

static int decode_trace(void *out, struct kdp_span in)
{
	return kdp_trace_io_decode(out, in);
}

static long encode_trace(uint8_t *buf, size_t cap, const void *msg)
{
	return kdp_trace_io_encode(buf, cap, msg);
}

static void test_trace_io(void **state)
{
	struct kdp_trace_io t = { 0x3330, 0x0601, 0x0302, kdp_span("data", 4) }, out;
	uint8_t wire[68] = { 0 };

	(void)state;
	unhex(wire, 16, "30330000 0106 0203 04000000");
	memcpy(wire + 64, "data", 4);
	check_encode(encode_trace, &t, wire, sizeof(wire));
	check_truncations(decode_trace, sizeof(out), wire, sizeof(wire), 64);
	assert_int_equal(kdp_trace_io_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	check_encode(encode_trace, &out, wire, sizeof(wire));
	for (size_t i = 0; i < HOSTILE; i++) {
		kdp_put_u32(wire + 8, hostile[i]);
		assert_int_equal(kdp_trace_io_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
		assert_int_equal(out.data.n, 4);
	}
	kdp_put_u32(wire + 8, 0);
	assert_int_equal(kdp_trace_io_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(out.data.n, 0);
}

static int decode_control(void *out, struct kdp_span in)
{
	return kdp_control_request_decode(out, in);
}

static long encode_control(uint8_t *buf, size_t cap, const void *msg)
{
	return kdp_control_request_encode(buf, cap, msg);
}

static void test_control_request(void **state)
{
	struct kdp_control_request c = { 0x4300, 3, 0x12345678 }, out;
	uint8_t wire[12];

	(void)state;
	unhex(wire, sizeof(wire), "00430000 03000000 78563412");
	check_encode(encode_control, &c, wire, sizeof(wire));
	check_truncations(decode_control, sizeof(out), wire, sizeof(wire), sizeof(wire));
	assert_int_equal(kdp_control_request_decode(&out, kdp_span(wire, sizeof(wire))), KD_OK);
	check_encode(encode_control, &out, wire, sizeof(wire));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_machines),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_print_truncations),
		cmocka_unit_test(test_print_with_old_header),
		cmocka_unit_test(test_prompt_and_answer),
		cmocka_unit_test(test_hostile_string_lengths),
		cmocka_unit_test(test_debug_io_of_unknown_kind),
		cmocka_unit_test(test_largest_print),
		cmocka_unit_test(test_file_io),
		cmocka_unit_test(test_hostile_file_length),
		cmocka_unit_test(test_file_io_of_unknown_kind),
		cmocka_unit_test(test_file_io_refusal),
		cmocka_unit_test(test_trace_io),
		cmocka_unit_test(test_control_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
