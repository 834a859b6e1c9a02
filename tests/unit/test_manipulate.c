/* Requests and replies: each API against bytes written down by hand, then
 * truncated, cramped and hostile. SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/codec_test.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int decode_reply(void *out, struct kdp_span in)
{
	return kdp_manipulate_decode(out, in, KDP_MACHINE_AMD64, true);
}

static int decode_request(void *out, struct kdp_span in)
{
	return kdp_manipulate_decode(out, in, KDP_MACHINE_AMD64, false);
}

static long encode(uint8_t *buf, size_t cap, const void *msg)
{
	return kdp_manipulate_encode(buf, cap, msg);
}

/* The 40 bytes behind the header as hex; what is not written there is 0. */
struct vector {
	struct kdp_manipulate m;
	const char *hex;
	const char *data;
};

static const struct vector vectors[] = {
	{ { .api = 0x3130, .memory = { 0x1122334455667788, 0x99AABBCC, 4 } },
	  "88776655 44332211 ccbbaa99 04000000",
	  "abcd" },
	{ { .api = 0x3131, .memory = { 0xFFFFFFFF80400000, 5, 6 } },
	  "00004080 ffffffff 05000000 06000000",
	  "write" },
	{ { .api = 0x3132, .context = { 0x0010001F } }, "1f001000", "context" },
	{ { .api = 0x3133, .context = { 0x00010007 } }, "07000100", "context" },
	{ { .api = 0x3134, .breakpoint = { 0x1122334455667788, 0x1F } },
	  "88776655 44332211 1f000000",
	  "" },
	{ { .api = 0x3135, .breakpoint = { .handle = 0x20 } }, "20000000", "" },
	{ { .api = 0x3136, .cont = { 0x00010002 } }, "02000100", "" },
	{ { .api = 0x3137, .memory = { 2, 240, 8 } },
	  "02000000 00000000 f0000000 08000000",
	  "special " },
	{ { .api = 0x3138, .memory = { 0x2CC, 84, 3 } },
	  "cc020000 00000000 54000000 03000000",
	  "abc" },
	{ { .api = 0x3139, .io = { 0x3F8, 1, 0x5A } }, "f8030000 00000000 01000000 5a000000", "" },
	{ { .api = 0x313A, .io = { 0xCF8, 4, 0x80000001 } },
	  "f80c0000 00000000 04000000 01000080",
	  "" },
	{ { .api = 0x313B }, "", "" },
	{ { .api = 0x313C,
	    .cont2 = { 0x00010001, 1, 0x1122334455667788, 1, 0x99AABBCCDDEEFF00,
	               KDP_MACHINE_AMD64 } },
	  "01000100 01000000 88776655 44332211 01000000 00000000 00ffeedd ccbbaa99",
	  "" },
	{ { .api = 0x313D, .memory = { 0x1000, 0x800, 2 } },
	  "00100000 00000000 00080000 02000000",
	  "ab" },
	{ { .api = 0x313E, .memory = { 0x1000, 2, 3 } },
	  "00100000 00000000 02000000 03000000",
	  "abc" },
	{ { .api = 0x313F, .special = { .count = 7 } }, "07000000", "" },
	{ { .api = 0x3140, .special = { .address = 0x1122334455667788 } },
	  "88776655 44332211",
	  "" },
	{ { .api = 0x3141 }, "", "" },
	{ { .api = 0x3142, .internal = { .address = 0x1122334455667788, .flags = 4 } },
	  "88776655 44332211 04000000 00000000 00000000 00000000 00000000 00000000",
	  "" },
	{ { .api = 0x3143, .internal = { 0x1122334455667788, 1, 2, 3, 4, 5, 6 } },
	  "88776655 44332211 01000000 02000000 03000000 04000000 05000000 06000000",
	  "" },
	{ { .api = 0x3144, .io_ex = { 1, 2, 3, 4, 0x1122334455667788, 5 } },
	  "01000000 02000000 03000000 04000000 88776655 44332211 05000000",
	  "" },
	{ { .api = 0x3145, .io_ex = { 4, 1, 0, 1, 0x60, 0xFE } },
	  "04000000 01000000 00000000 01000000 60000000 00000000 fe000000",
	  "" },
	{ { .api = 0x3146,
	    .version = { 0x000F, 9600, 6, 2, 7, 0x8664, 12, 3, 0x31, 9, 0xFFFFF8026BC18000,
	                 0xFFFFF8026BEE22D0, 0xFFFFF8026BEF91F0 } },
	  "0f008025 06020700 64860c03 31090000 0080c16b 02f8ffff d022ee6b 02f8ffff"
	  "f091ef6b 02f8ffff",
	  "" },
	{ { .api = 0x3147, .breakpoint_ex = { 2, 0x00010002 } }, "02000000 02000100", "elements" },
	{ { .api = 0x3148, .breakpoint_ex = { 3, 0x00010001 } }, "03000000 01000100", "handles" },
	{ { .api = 0x3149 }, "", "" },
	{ { .api = 0x3150 }, "", "" },
	{ { .api = 0x3151 }, "", "" },
	{ { .api = 0x3152, .msr = { 0xC0000082, 0x11223344, 0x55667788 } },
	  "820000c0 44332211 88776655",
	  "" },
	{ { .api = 0x3153, .msr = { 0x10, 1, 2 } }, "10000000 01000000 02000000", "" },
	{ { .api = 0x3154 }, "", "" },
	{ { .api = 0x3155 }, "", "" },
	{ { .api = 0x3156, .search = { 0x1122334455667788, 0x99AABBCCDDEEFF00, 7 } },
	  "88776655 44332211 00ffeedd ccbbaa99 07000000",
	  "pattern" },
	{ { .api = 0x3157, .bus = { 4, 1, 2, 3, 5 } },
	  "04000000 01000000 02000000 03000000 05000000",
	  "bytes" },
	{ { .api = 0x3158, .bus = { 4, 0, 8, 0x10, 2 } },
	  "04000000 00000000 08000000 10000000 02000000",
	  "ab" },
	{ { .api = 0x3159 }, "", "" },
	{ { .api = 0x315A }, "", "" },
	{ { .api = 0x315B, .fill = { 0x1122334455667788, 0x1000, 1, 2 } },
	  "88776655 44332211 00100000 0100 0200",
	  "ab" },
	{ { .api = 0x315C, .query = { 0x80400000, 2, 7 } },
	  "00004080 00000000 00000000 00000000 02000000 07000000",
	  "" },
	{ { .api = 0x315D, .partition = { 1 } }, "01000000", "" },
	{ { .api = 0x315E, .custom = { 0x1122334455667788, 0x99AABBCCDDEEFF00, 9, 4, 2 } },
	  "88776655 44332211 00ffeedd ccbbaa99 09000000 04 02",
	  "" },
	{ { .api = 0x315F, .context_ex = { 0x100, 0x4D0, 0x3D0 } },
	  "00010000 d0040000 d0030000",
	  "piece" },
	{ { .api = 0x3160, .context_ex = { 0, 0x4D0, 0x4D0 } },
	  "00000000 d0040000 d0040000",
	  "piece" },
};

/* The whole message: common fields that are the same in every vector, then
 * the hex, zeros up to 56, data. Fills the same common fields into *m. */
static size_t whole(uint8_t *wire, size_t cap, const struct vector *v, struct kdp_manipulate *m)
{
	size_t n = strlen(v->data);

	*m = v->m;
	m->processor_level = 0x0601;
	m->processor = 0x0302;
	m->status = 0x80000005;
	m->data = kdp_span(v->data, n);
	assert_true(cap >= KDP_MANIPULATE_LEN + n);
	memset(wire, 0, cap);
	kdp_put_u32(wire, v->m.api);
	unhex(wire + 4, 8, "0106 0203 05000080");
	unhex(wire + 16, 40, v->hex);
	memcpy(wire + KDP_MANIPULATE_LEN, v->data, n);
	return KDP_MANIPULATE_LEN + n;
}

static void test_each_api_both_ways(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(vectors); i++) {
		struct kdp_manipulate in, out;
		uint8_t wire[128];
		size_t n = whole(wire, sizeof(wire), &vectors[i], &in);

		check_encode(encode, &in, wire, n);
		check_truncations(decode_request, sizeof(out), wire, n, KDP_MANIPULATE_LEN);
		for (int is_reply = 0; is_reply < 2; is_reply++) {
			assert_int_equal(kdp_manipulate_decode(&out, kdp_span(wire, n),
			                                       KDP_MACHINE_AMD64, is_reply),
			                 KD_OK);
			assert_int_equal(out.api, in.api);
			assert_int_equal(out.processor_level, 0x0601);
			assert_int_equal(out.processor, 0x0302);
			assert_int_equal(out.status, 0x80000005);
			if (!is_reply || i == 0)
				check_encode(encode, &out, wire, n);
		}
	}
}

/* Padding and unused bytes of a peer are garbage: they change nothing. */
static void test_garbage_in_unused_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(vectors); i++) {
		struct kdp_manipulate in, out;
		uint8_t wire[128], clean[128];
		size_t n = whole(clean, sizeof(clean), &vectors[i], &in);
		size_t used = 16 + unhex(wire, sizeof(wire), vectors[i].hex);

		memcpy(wire, clean, n);
		memset(wire + 12, 0xCD, 4);
		memset(wire + used, 0xCD, KDP_MANIPULATE_LEN - used);
		assert_int_equal(decode_request(&out, kdp_span(wire, n)), KD_OK);
		check_encode(encode, &out, clean, n);
	}
}

static void test_api_table(void **state)
{
	static const uint32_t silent[] = { 0x3136, 0x313B, 0x313C, 0x3140, 0x3141,
		                           0x3142, 0x3149, 0x3150, 0x315A };
	static const uint32_t resuming[] = { 0x3136, 0x313B, 0x313C, 0x3147, 0x3149, 0x3150 };
	size_t named = 0, no_reply = 0, resumes = 0;

	(void)state;
	for (uint32_t api = 0; api < 0x20000; api++) {
		const struct kdp_api_info *info = kdp_api_info(api);

		if (!info)
			continue;
		assert_int_equal(info->api, api);
		assert_non_null(info->name);
		assert_int_equal(vectors[named++].m.api, api);
		no_reply += !info->has_reply;
		resumes += info->resumes;
	}
	assert_int_equal(named, COUNT(vectors));
	assert_int_equal(no_reply, COUNT(silent));
	for (size_t i = 0; i < COUNT(silent); i++)
		assert_false(kdp_api_info(silent[i])->has_reply);
	assert_int_equal(resumes, COUNT(resuming));
	for (size_t i = 0; i < COUNT(resuming); i++)
		assert_true(kdp_api_info(resuming[i])->resumes);
	assert_null(kdp_api_info(0x314A));
	assert_null(kdp_api_info(0x314F));
	assert_null(kdp_api_info(0x3161));
	assert_null(kdp_api_info(UINT32_MAX));
	assert_string_equal(kdp_api_info(0x3130)->name, "ReadVirtualMemory");
	assert_string_equal(kdp_api_info(0x3160)->name, "SetContextEx");
}

/* The control set of Continue2 is packed and differs by machine. */
static void test_continue2_by_machine(void **state)
{
	static const struct {
		uint16_t machine;
		const char *hex;
	} sets[] = {
		{ KDP_MACHINE_X86, "02000100 01000000 00040000 01000000 78563412" },
		{ KDP_MACHINE_AMD64,
		  "02000100 01000000 00040000 00000000 01000000 00000000 78563412 00000000" },
		{ KDP_MACHINE_ARM64,
		  "02000100 01000000 01000000 01000000 00000000 78563412 00000000" },
	};
	struct kdp_manipulate m = { .api = KDP_CONTINUE2,
		                    .cont2 = { KDP_DBG_CONTINUE, 1, 0x400, 1, 0x12345678, 0 } };
	struct kdp_manipulate out;
	uint8_t wire[KDP_MANIPULATE_LEN], buf[KDP_MANIPULATE_LEN];

	(void)state;
	for (size_t i = 0; i < COUNT(sets); i++) {
		memset(wire, 0, sizeof(wire));
		kdp_put_u32(wire, KDP_CONTINUE2);
		unhex(wire + 16, 40, sets[i].hex);
		m.cont2.machine = sets[i].machine;
		check_encode(encode, &m, wire, sizeof(wire));
		assert_int_equal(kdp_manipulate_decode(&out, kdp_span(wire, sizeof(wire)),
		                                       sets[i].machine, false),
		                 KD_OK);
		assert_int_equal(out.cont2.machine, sets[i].machine);
		assert_int_equal(out.cont2.trace, 1);
		assert_int_equal(out.cont2.dr7, sets[i].machine == KDP_MACHINE_ARM64 ? 0 : 0x400);
		assert_int_equal(out.cont2.symbol_start, 1);
		assert_int_equal(out.cont2.symbol_end, 0x12345678);
	}
	assert_int_equal(
	    kdp_manipulate_decode(&out, kdp_span(wire, sizeof(wire)), KDP_MACHINE_UNKNOWN, false),
	    KD_OK);
	assert_int_equal(out.cont2.status, KDP_DBG_CONTINUE);
	assert_int_equal(out.cont2.trace, 0);
	assert_int_equal(kdp_manipulate_decode(&out, kdp_span(wire, 16), KDP_MACHINE_X86, true),
	                 KD_ERR_TRUNCATED);
	kdp_put_u32(wire + 8, KDP_STATUS_UNSUCCESSFUL);
	assert_int_equal(kdp_manipulate_decode(&out, kdp_span(wire, 16), KDP_MACHINE_X86, true),
	                 KD_OK);
	assert_int_equal(out.cont2.machine, KDP_MACHINE_X86);
	out.cont2.machine = KDP_MACHINE_UNKNOWN;
	assert_int_equal(kdp_manipulate_encode(buf, sizeof(buf), &out), KD_ERR_INVALID);
}

static void test_actual_never_exceeds_what_arrived(void **state)
{
	static const uint32_t claims[] = { 0, 1, 7, 8, 9, 0x7FFFFFFF, 0x80000000, UINT32_MAX };
	static const uint32_t apis[] = { 0x3130, 0x3131, 0x3137, 0x3138, 0x313D, 0x313E };
	uint8_t wire[KDP_MANIPULATE_LEN + 8] = { 0 };
	struct kdp_manipulate m;

	(void)state;
	for (size_t a = 0; a < COUNT(apis); a++) {
		for (size_t i = 0; i < COUNT(claims); i++) {
			kdp_put_u32(wire, apis[a]);
			kdp_put_u32(wire + 0x1C, claims[i]);
			assert_int_equal(decode_reply(&m, kdp_span(wire, sizeof(wire))), KD_OK);
			assert_int_equal(m.memory.actual, claims[i]);
			assert_ptr_equal(m.data.p, wire + KDP_MANIPULATE_LEN);
			assert_int_equal(m.data.n, claims[i] < 8 ? claims[i] : 8);
			/* The same word of a request is no length. */
			assert_int_equal(decode_request(&m, kdp_span(wire, sizeof(wire))), KD_OK);
			assert_int_equal(m.data.n, 8);
		}
	}
}

/* A partial read comes with a failure status and is still good for something. */
static void test_partial_read_keeps_its_data(void **state)
{
	uint8_t wire[KDP_MANIPULATE_LEN + 3] = { 0x30, 0x31 };
	struct kdp_manipulate m;

	(void)state;
	kdp_put_u32(wire + 8, KDP_STATUS_UNSUCCESSFUL);
	kdp_put_u32(wire + 0x18, 100);
	kdp_put_u32(wire + 0x1C, 3);
	assert_int_equal(decode_reply(&m, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_false(kdp_status_ok(m.status));
	assert_int_equal(m.data.n, 3);
}

static void test_short_failure_reply(void **state)
{
	static const struct vector v = { { .api = 0x3137, .memory = { 2, 240, 0 } },
		                         "02000000 00000000 f0000000 00000000",
		                         "" };
	struct kdp_manipulate m, in;
	uint8_t wire[KDP_MANIPULATE_LEN];

	(void)state;
	whole(wire, sizeof(wire), &v, &in);
	check_truncations(decode_reply, sizeof(m), wire, sizeof(wire), 12);
	assert_int_equal(decode_reply(&m, kdp_span(wire, 16)), KD_OK);
	assert_int_equal(m.status, 0x80000005);
	assert_int_equal(m.processor, 0x0302);
	assert_int_equal(m.memory.count, 0);
	assert_int_equal(m.data.n, 0);
	/* A success needs its fields. */
	kdp_put_u32(wire + 8, KDP_STATUS_SUCCESS);
	check_truncations(decode_reply, sizeof(m), wire, sizeof(wire), KDP_MANIPULATE_LEN);
}

static void test_unknown_api(void **state)
{
	static const uint32_t numbers[] = { 0, 0x312F, 0x314C, 0x3161, 0x3199, UINT32_MAX };
	uint8_t wire[KDP_MANIPULATE_LEN + 4] = { 0 };

	(void)state;
	memcpy(wire + KDP_MANIPULATE_LEN, "data", 4);
	for (size_t i = 0; i < COUNT(numbers); i++) {
		struct kdp_manipulate m;

		kdp_put_u32(wire, numbers[i]);
		kdp_put_u32(wire + 8, KDP_STATUS_UNSUCCESSFUL);
		assert_int_equal(decode_reply(&m, kdp_span(wire, sizeof(wire))), KD_OK);
		assert_int_equal(m.api, numbers[i]);
		assert_int_equal(m.status, KDP_STATUS_UNSUCCESSFUL);
		assert_span_is(m.data, "data", 4);
		check_encode(encode, &m, wire, sizeof(wire));
	}
}

static void test_largest_message(void **state)
{
	static uint8_t data[KDP_MANIPULATE_DATA + 1], buf[KDP_MAX_PAYLOAD + 64];
	struct kdp_manipulate m = { .api = KDP_WRITE_VIRTUAL_MEMORY };

	(void)state;
	m.data = kdp_span(data, KDP_MANIPULATE_DATA);
	assert_int_equal(kdp_manipulate_encode(buf, sizeof(buf), &m), KDP_MAX_PAYLOAD);
	m.data = kdp_span(data, KDP_MANIPULATE_DATA + 1);
	assert_int_equal(kdp_manipulate_encode(buf, sizeof(buf), &m), KD_ERR_TOO_BIG);
	m.data = kdp_span(data, SIZE_MAX);
	assert_int_equal(kdp_manipulate_encode(buf, sizeof(buf), &m), KD_ERR_TOO_BIG);
}

/* Recorded from a Windows 8.1 target and its debugger. */
static void test_recorded_get_version(void **state)
{
	static const char request[] =
	    "46310000 00000000 03010000 00000000 fc75d73f 01000000 10000000 00000000"
	    "a0b41a00 00000000 01000000 00000000 7a129fee fe070000";
	static const char reply[] =
	    "46310000 00000000 00000000 00000000 0f008025 06020700 64860c03 31000000"
	    "0080c16b 02f8ffff d022ee6b 02f8ffff f091ef6b 02f8ffff";
	struct kdp_manipulate m;
	uint8_t wire[KDP_MANIPULATE_LEN];

	(void)state;
	assert_int_equal(unhex(wire, sizeof(wire), request), sizeof(wire));
	assert_int_equal(decode_request(&m, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(m.api, KDP_GET_VERSION);
	assert_int_equal(m.status, KDP_STATUS_PENDING);

	assert_int_equal(unhex(wire, sizeof(wire), reply), sizeof(wire));
	assert_int_equal(decode_reply(&m, kdp_span(wire, sizeof(wire))), KD_OK);
	assert_int_equal(m.status, KDP_STATUS_SUCCESS);
	assert_int_equal(m.version.major, 0x000F);
	assert_int_equal(m.version.minor, 9600);
	assert_int_equal(m.version.protocol, 6);
	assert_int_equal(m.version.secondary, 2);
	assert_int_equal(m.version.flags, 7);
	assert_int_equal(m.version.machine, KDP_MACHINE_AMD64);
	assert_int_equal(m.version.max_packet_type, KDP_TYPE_MAX);
	assert_int_equal(m.version.max_state_change, 3);
	assert_int_equal(m.version.max_manipulate, 0x31);
	assert_int_equal(m.version.simulation, 0);
	assert_true(m.version.kernel_base == 0xFFFFF8026BC18000);
	assert_true(m.version.loaded_module_list == 0xFFFFF8026BEE22D0);
	assert_true(m.version.debugger_data_list == 0xFFFFF8026BEF91F0);
	check_encode(encode, &m, wire, sizeof(wire));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_api_both_ways),
		cmocka_unit_test(test_garbage_in_unused_bytes),
		cmocka_unit_test(test_api_table),
		cmocka_unit_test(test_continue2_by_machine),
		cmocka_unit_test(test_actual_never_exceeds_what_arrived),
		cmocka_unit_test(test_partial_read_keeps_its_data),
		cmocka_unit_test(test_short_failure_reply),
		cmocka_unit_test(test_unknown_api),
		cmocka_unit_test(test_largest_message),
		cmocka_unit_test(test_recorded_get_version),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
