/* KD messages: the payloads of data packets, both directions.
 *
 * Decoders take the payload of a packet, fill a plain struct and return KD_OK,
 * KD_ERR_TRUNCATED (shorter than its fixed part) or KD_ERR_MALFORMED. *out is
 * written only on success; spans in it point into the input. Encoders return
 * the bytes written or KD_ERR_TOO_BIG / KD_ERR_INVALID, and write zeros into
 * padding and unused fields. Every length field of a peer is bounded by what
 * really arrived before it reaches a span.
 *
 * Offsets and layouts: docs/kd-protocol.md; public source: the ReactOS header
 * sdk/include/reactos/windbgkd.h and Microsoft's public symbols.
 * SPDX-License-Identifier: MIT
 */
#ifndef KDPROTO_MESSAGE_H
#define KDPROTO_MESSAGE_H

#include "kdproto/frame.h"

enum kdp_machine {
	KDP_MACHINE_UNKNOWN = 0,
	KDP_MACHINE_X86 = 0x014C,
	KDP_MACHINE_AMD64 = 0x8664,
	KDP_MACHINE_ARM64 = 0xAA64,
};

/* 4 for x86, else 8. */
unsigned kdp_machine_pointer_size(uint16_t machine);
/* x86 targets sign-extend addresses; hosts send them so. Identity elsewhere. */
uint64_t kdp_machine_canonical(uint16_t machine, uint64_t address);
/* "x86", "x64", "ARM64" or "unknown". */
const char *kdp_machine_name(uint16_t machine);

/* ---- state change (type 7) ------------------------------------------- */

#define KDP_STATE_CHANGE_LEN   240
#define KDP_CONTROL_REPORT_LEN 48
#define KDP_CONTROL_REPORT_OFF 0xC0

enum kdp_new_state {
	KDP_EXCEPTION = 0x3030,
	KDP_LOAD_SYMBOLS = 0x3031,
	KDP_COMMAND_STRING = 0x3032,
};

struct kdp_exception {
	uint32_t code, flags;
	uint64_t record, address;
	uint32_t nparams; /* 0..15; a larger count is cut */
	uint64_t params[15];
	bool first_chance;
};

struct kdp_load_symbols {
	uint64_t base, process_id;
	uint32_t checksum, image_size;
	bool unload;
	struct kdp_span path; /* without its NUL */
};

/* The target says good-bye: reboot, shutdown or hand-over. */
bool kdp_load_symbols_is_session_end(const struct kdp_load_symbols *ls);

struct kdp_command_string {
	uint32_t flags;
	struct kdp_span name, command; /* without NULs */
};

struct kdp_state_change {
	uint32_t new_state; /* enum kdp_new_state; the alternate flag
	                     * 00010000 is masked off */
	uint16_t processor_level, processor;
	uint32_t processors; /* as sent; 0 means 1 */
	uint64_t thread, pc;
	union {
		struct kdp_exception exception;
		struct kdp_load_symbols load;
		struct kdp_command_string command;
	};
	struct kdp_span control; /* 48 bytes; see kdp_control_report_decode */
	struct kdp_span data;    /* all after the fixed part */
};

struct kdp_control_report {
	uint64_t dr6, dr7;          /* ARM64: bvr, wvr */
	uint32_t eflags;            /* 0 on ARM64 */
	uint32_t instruction_count; /* 0..16 */
	uint16_t report_flags;
	uint8_t instructions[16];
	uint16_t cs, ds, es, fs; /* 0 on ARM64 */
};

int kdp_state_change_decode(struct kdp_state_change *out, struct kdp_span payload);
/* report may be NULL: zeros. The report is laid out for the machine. data is
 * appended for exceptions; path (with NUL) and name/command for the others. */
long kdp_state_change_encode(uint8_t *buf, size_t cap, const struct kdp_state_change *sc,
                             uint16_t machine, const struct kdp_control_report *report);
/* KD_ERR_UNSUPPORTED: no layout for this machine. Instruction bytes beyond
 * instruction_count are zeros. */
int kdp_control_report_decode(struct kdp_control_report *out, uint16_t machine,
                              struct kdp_span control);

/* ---- state manipulate (type 2) --------------------------------------- */

#define KDP_MANIPULATE_LEN  56
#define KDP_MANIPULATE_DATA (KDP_MAX_PAYLOAD - KDP_MANIPULATE_LEN)

enum kdp_api {
	KDP_READ_VIRTUAL_MEMORY = 0x3130,
	KDP_WRITE_VIRTUAL_MEMORY = 0x3131,
	KDP_GET_CONTEXT = 0x3132,
	KDP_SET_CONTEXT = 0x3133,
	KDP_WRITE_BREAKPOINT = 0x3134,
	KDP_RESTORE_BREAKPOINT = 0x3135,
	KDP_CONTINUE = 0x3136,
	KDP_READ_CONTROL_SPACE = 0x3137,
	KDP_WRITE_CONTROL_SPACE = 0x3138,
	KDP_READ_IO_SPACE = 0x3139,
	KDP_WRITE_IO_SPACE = 0x313A,
	KDP_REBOOT = 0x313B,
	KDP_CONTINUE2 = 0x313C,
	KDP_READ_PHYSICAL_MEMORY = 0x313D,
	KDP_WRITE_PHYSICAL_MEMORY = 0x313E,
	KDP_QUERY_SPECIAL_CALLS = 0x313F,
	KDP_SET_SPECIAL_CALL = 0x3140,
	KDP_CLEAR_SPECIAL_CALLS = 0x3141,
	KDP_SET_INTERNAL_BREAKPOINT = 0x3142,
	KDP_GET_INTERNAL_BREAKPOINT = 0x3143,
	KDP_READ_IO_SPACE_EXTENDED = 0x3144,
	KDP_WRITE_IO_SPACE_EXTENDED = 0x3145,
	KDP_GET_VERSION = 0x3146,
	KDP_WRITE_BREAKPOINT_EX = 0x3147,
	KDP_RESTORE_BREAKPOINT_EX = 0x3148,
	KDP_CAUSE_BUGCHECK = 0x3149,
	KDP_SWITCH_PROCESSOR = 0x3150,
	KDP_PAGE_IN = 0x3151,
	KDP_READ_MSR = 0x3152,
	KDP_WRITE_MSR = 0x3153,
	KDP_OLD_VLM1 = 0x3154,
	KDP_OLD_VLM2 = 0x3155,
	KDP_SEARCH_MEMORY = 0x3156,
	KDP_GET_BUS_DATA = 0x3157,
	KDP_SET_BUS_DATA = 0x3158,
	KDP_CHECK_LOW_MEMORY = 0x3159,
	KDP_CLEAR_ALL_INTERNAL_BREAKPOINTS = 0x315A,
	KDP_FILL_MEMORY = 0x315B,
	KDP_QUERY_MEMORY = 0x315C,
	KDP_SWITCH_PARTITION = 0x315D,
	KDP_WRITE_CUSTOM_BREAKPOINT = 0x315E,
	KDP_GET_CONTEXT_EX = 0x315F,
	KDP_SET_CONTEXT_EX = 0x3160,
};

struct kdp_version {
	uint16_t major, minor;
	uint8_t protocol, secondary;
	uint16_t flags, machine;
	uint8_t max_packet_type, max_state_change, max_manipulate, simulation;
	uint64_t kernel_base, loaded_module_list, debugger_data_list;
};

/* One request or reply. Which member of the union counts follows from api:
 * see kdp_api_info. Request and reply share each layout. */
struct kdp_manipulate {
	uint32_t api;
	uint16_t processor_level, processor;
	uint32_t status; /* NTSTATUS */
	/* clang-format off */
	union {
		/* 3130 3131 313D 313E 3137 3138. address is a selector or
		 * offset in control space. actual: bytes done (replies),
		 * cache mode (physical requests). */
		struct { uint64_t address; uint32_t count, actual; } memory;
		/* 3132 3133 */
		struct { uint32_t flags; } context;
		/* 315F 3160 */
		struct { uint32_t offset, count, copied; } context_ex;
		/* 3134 3135 */
		struct { uint64_t address; uint32_t handle; } breakpoint;
		/* 3136 */
		struct { uint32_t status; } cont;
		/* 313C, laid out by machine */
		struct {
			uint32_t status, trace;
			uint64_t dr7, symbol_start, symbol_end;
			uint16_t machine; /* not on the wire; decode takes it */
		} cont2;
		/* 3139 313A */
		struct { uint64_t address; uint32_t size, value; } io;
		/* 3144 3145 */
		struct {
			uint32_t size, interface, bus, space;
			uint64_t address;
			uint32_t value;
		} io_ex;
		struct kdp_version version;                      /* 3146 */
		struct { uint32_t msr, low, high; } msr;         /* 3152 3153 */
		struct { uint32_t type, bus, slot, offset, length; } bus; /* 3157 3158 */
		struct { uint64_t address, length; uint32_t pattern_length; } search; /* 3156 */
		/* 315B */
		struct { uint64_t address; uint32_t length; uint16_t flags, pattern_length; } fill;
		struct { uint64_t address; uint32_t space, flags; } query; /* 315C */
		/* 3142 3143 */
		struct {
			uint64_t address;
			uint32_t flags, calls, max_calls, min, max, total;
		} internal;
		struct { uint64_t address; uint32_t count; } special; /* 313F 3140 */
		struct { uint32_t count, status; } breakpoint_ex; /* 3147 3148 */
		/* 315E */
		struct {
			uint64_t address, instruction;
			uint32_t handle;
			uint8_t size, alignment;
		} custom;
		struct { uint32_t partition; } partition;        /* 315D */
	};
	/* clang-format on */
	struct kdp_span data; /* after the fixed 56 bytes */
};

/* clang-format off */
enum kdp_shape {
	KDP_SHAPE_NONE, KDP_SHAPE_MEMORY, KDP_SHAPE_CONTEXT, KDP_SHAPE_CONTEXT_EX,
	KDP_SHAPE_BREAKPOINT, KDP_SHAPE_RESTORE, KDP_SHAPE_CONTINUE, KDP_SHAPE_CONTINUE2,
	KDP_SHAPE_IO, KDP_SHAPE_IO_EX, KDP_SHAPE_VERSION, KDP_SHAPE_MSR, KDP_SHAPE_BUS,
	KDP_SHAPE_SEARCH, KDP_SHAPE_FILL, KDP_SHAPE_QUERY, KDP_SHAPE_INTERNAL,
	KDP_SHAPE_SPECIAL, KDP_SHAPE_SPECIAL_COUNT, KDP_SHAPE_BREAKPOINT_EX,
	KDP_SHAPE_CUSTOM, KDP_SHAPE_PARTITION,
};
/* clang-format on */

struct kdp_api_info {
	uint16_t api;
	enum kdp_shape shape;
	bool has_reply;
	bool resumes;     /* the target leaves its stop (or may) */
	const char *name; /* "ReadVirtualMemory" */
};

/* NULL for an API number that is not in the table. */
const struct kdp_api_info *kdp_api_info(uint32_t api);

/* An API that is not in the table decodes without its union: it can be
 * answered. machine lays out Continue2 only; UNKNOWN decodes its status alone.
 * Replies shorter than 56 bytes but of at least 12 with a failure status are
 * accepted (some stubs send them): the union is zeros then. For memory-shaped
 * replies data is cut to actual, never beyond what arrived. */
int kdp_manipulate_decode(struct kdp_manipulate *out, struct kdp_span payload, uint16_t machine,
                          bool is_reply);
/* Always at least 56 bytes, then data. KD_ERR_INVALID: Continue2 for a machine
 * without a control set. */
long kdp_manipulate_encode(uint8_t *buf, size_t cap, const struct kdp_manipulate *m);

#define KDP_STATUS_SUCCESS            0x00000000u
#define KDP_STATUS_PENDING            0x00000103u
#define KDP_STATUS_UNSUCCESSFUL       0xC0000001u
#define KDP_STATUS_NO_SUCH_FILE       0xC000000Fu
#define KDP_DBG_EXCEPTION_HANDLED     0x00010001u
#define KDP_DBG_CONTINUE              0x00010002u
#define KDP_DBG_EXCEPTION_NOT_HANDLED 0x80010001u
#define KDP_EXC_BREAKPOINT            0x80000003u
#define KDP_EXC_SINGLE_STEP           0x80000004u
#define KDP_EXC_WAKE                  0x80000007u
#define KDP_EXC_ACCESS_VIOLATION      0xC0000005u

static inline bool kdp_status_ok(uint32_t status)
{
	return !(status & 0x80000000u);
}

/* ---- debug I/O (type 3) ---------------------------------------------- */

#define KDP_DEBUG_IO_LEN 16

enum kdp_debug_io_api { KDP_PRINT_STRING = 0x3230, KDP_GET_STRING = 0x3231 };

struct kdp_debug_io {
	uint32_t api;
	uint16_t processor_level, processor;
	uint32_t answer_max;    /* GetString request: longest answer; in the
	                         * answer: its length */
	uint32_t prompt_length; /* GetString answer: echoes the request */
	struct kdp_span text;   /* the print, the prompt, or the answer */
};

/* A 12-byte header (old stubs) is accepted for prints. from_host tells an
 * answer from a prompt. */
int kdp_debug_io_decode(struct kdp_debug_io *out, struct kdp_span payload, bool from_host);
long kdp_debug_io_encode(uint8_t *buf, size_t cap, const struct kdp_debug_io *d, bool from_host);

/* ---- file I/O (type 11) ---------------------------------------------- */

#define KDP_FILE_IO_LEN 64

enum kdp_file_io_api {
	KDP_CREATE_FILE = 0x3430,
	KDP_READ_FILE = 0x3431,
	KDP_WRITE_FILE = 0x3432,
	KDP_CLOSE_FILE = 0x3433,
};

struct kdp_file_io {
	uint32_t api, status;
	/* CreateFile */
	uint32_t access, attributes, share, disposition, options;
	uint64_t handle;      /* all: request of the later ones, answer of Create */
	uint64_t length;      /* Create answer: file size; Read/Write: bytes */
	uint64_t offset;      /* Read/Write */
	struct kdp_span data; /* UTF-16LE name with its NUL, as sent; or
	                       * file bytes, never more than length */
};

int kdp_file_io_decode(struct kdp_file_io *out, struct kdp_span payload);
long kdp_file_io_encode(uint8_t *buf, size_t cap, const struct kdp_file_io *f);
/* The answer that refuses: the request's own 64 bytes with Status replaced,
 * as WinDbg does. */
long kdp_file_io_refuse(uint8_t *buf, size_t cap, struct kdp_span request, uint32_t status);

/* ---- trace I/O (type 9) and control requests (type 10) ---------------- */

struct kdp_trace_io {
	uint32_t api;
	uint16_t processor_level, processor;
	struct kdp_span data;
};
int kdp_trace_io_decode(struct kdp_trace_io *out, struct kdp_span payload);
long kdp_trace_io_encode(uint8_t *buf, size_t cap, const struct kdp_trace_io *t);

struct kdp_control_request {
	uint32_t api, number, value;
};
int kdp_control_request_decode(struct kdp_control_request *out, struct kdp_span payload);
long kdp_control_request_encode(uint8_t *buf, size_t cap, const struct kdp_control_request *c);

#endif
