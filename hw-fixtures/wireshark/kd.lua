-- Wireshark dissector for KD, the protocol of Windows kernel debugging, and for
-- KDNET, its encrypted form over UDP. How to use it: README.md beside this file.
-- The protocol: docs/kd-protocol.md. One file, because Wireshark loads each file
-- of its plugin folder as a plugin.
-- SPDX-License-Identifier: MIT

local kd = Proto("kd", "Windows Kernel Debugger")
local kdnet = Proto("kdnet", "Windows Kernel Debugger over UDP")
local kdcap = Proto("kdcap", "Windows Kernel Debugger, written by kdcap or kdsrv")

local HEADER_LEN, MAX_PAYLOAD, TRAILER, BREAK_IN = 16, 4000, 0xAA, 0x62
local LEADER_DATA, LEADER_CONTROL = 0x30303030, 0x69696969
local SYNC_FLAG = 0x800
local REQUEST_STATUS = 0x103 -- what hosts put where replies have their status

---- names -----------------------------------------------------------------

local TYPES = {
	[0] = "UNUSED", "STATE_CHANGE32", "STATE_MANIPULATE", "DEBUG_IO", "ACKNOWLEDGE", "RESEND",
	"RESET", "STATE_CHANGE64", "POLL_BREAKIN", "TRACE_IO", "CONTROL_REQUEST", "FILE_IO",
}
local IS_DATA = { [1] = true, [2] = true, [3] = true, [7] = true, [9] = true, [10] = true,
	[11] = true }
local IS_CONTROL = { [4] = true, [5] = true, [6] = true }
local STATES = { [0x3030] = "exception", [0x3031] = "load symbols", [0x3032] = "command string" }
local DEBUG_IO = { [0x3230] = "PrintString", [0x3231] = "GetString" }
local FILE_IO = { [0x3430] = "CreateFile", [0x3431] = "ReadFile", [0x3432] = "WriteFile",
	[0x3433] = "CloseFile" }
local CONTROL_REQUESTS = { [0x4300] = "request a hardware breakpoint",
	[0x4301] = "release a hardware breakpoint" }
local MACHINES = { [0x014C] = "x86", [0x8664] = "x64", [0xAA64] = "ARM64" }
local X86, AMD64, ARM64 = 0x014C, 0x8664, 0xAA64
local CONTEXT_MACHINE = { [716] = X86, [1232] = AMD64, [912] = ARM64 } -- by its length
local STATUSES = {
	[0x00000000] = "STATUS_SUCCESS",
	[0x00000103] = "STATUS_PENDING",
	[0x00010001] = "DBG_EXCEPTION_HANDLED",
	[0x00010002] = "DBG_CONTINUE",
	[0x40010005] = "DBG_CONTROL_C",
	[0x40010006] = "DBG_PRINTEXCEPTION_C",
	[0x40010008] = "DBG_CONTROL_BREAK",
	[0x40010009] = "DBG_COMMAND_EXCEPTION",
	[0x4001000A] = "DBG_PRINTEXCEPTION_WIDE_C",
	[0x406D1388] = "MS_VC_EXCEPTION",
	[0x80000001] = "STATUS_GUARD_PAGE_VIOLATION",
	[0x80000002] = "STATUS_DATATYPE_MISALIGNMENT",
	[0x80000003] = "STATUS_BREAKPOINT",
	[0x80000004] = "STATUS_SINGLE_STEP",
	[0x80000007] = "STATUS_WAKE_SYSTEM_DEBUGGER",
	[0x8000001A] = "STATUS_NO_MORE_ENTRIES",
	[0x80000026] = "STATUS_LONGJUMP",
	[0x80000029] = "STATUS_UNWIND_CONSOLIDATE",
	[0x80010001] = "DBG_EXCEPTION_NOT_HANDLED",
	[0xC0000001] = "STATUS_UNSUCCESSFUL",
	[0xC0000002] = "STATUS_NOT_IMPLEMENTED",
	[0xC0000005] = "STATUS_ACCESS_VIOLATION",
	[0xC0000006] = "STATUS_IN_PAGE_ERROR",
	[0xC0000008] = "STATUS_INVALID_HANDLE",
	[0xC000000D] = "STATUS_INVALID_PARAMETER",
	[0xC000000E] = "STATUS_NO_SUCH_DEVICE",
	[0xC000000F] = "STATUS_NO_SUCH_FILE",
	[0xC000001C] = "STATUS_INVALID_SYSTEM_SERVICE",
	[0xC000001D] = "STATUS_ILLEGAL_INSTRUCTION",
	[0xC000001E] = "STATUS_INVALID_LOCK_SEQUENCE",
	[0xC0000022] = "STATUS_ACCESS_DENIED",
	[0xC0000025] = "STATUS_NONCONTINUABLE_EXCEPTION",
	[0xC0000026] = "STATUS_INVALID_DISPOSITION",
	[0xC0000027] = "STATUS_UNWIND",
	[0xC0000028] = "STATUS_BAD_STACK",
	[0xC0000034] = "STATUS_OBJECT_NAME_NOT_FOUND",
	[0xC0000037] = "STATUS_PORT_DISCONNECTED",
	[0xC000008C] = "STATUS_ARRAY_BOUNDS_EXCEEDED",
	[0xC000008D] = "STATUS_FLOAT_DENORMAL_OPERAND",
	[0xC000008E] = "STATUS_FLOAT_DIVIDE_BY_ZERO",
	[0xC000008F] = "STATUS_FLOAT_INEXACT_RESULT",
	[0xC0000090] = "STATUS_FLOAT_INVALID_OPERATION",
	[0xC0000091] = "STATUS_FLOAT_OVERFLOW",
	[0xC0000092] = "STATUS_FLOAT_STACK_CHECK",
	[0xC0000093] = "STATUS_FLOAT_UNDERFLOW",
	[0xC0000094] = "STATUS_INTEGER_DIVIDE_BY_ZERO",
	[0xC0000095] = "STATUS_INTEGER_OVERFLOW",
	[0xC0000096] = "STATUS_PRIVILEGED_INSTRUCTION",
	[0xC000009A] = "STATUS_INSUFFICIENT_RESOURCES",
	[0xC000009D] = "STATUS_DEVICE_NOT_CONNECTED",
	[0xC00000AA] = "STATUS_INSTRUCTION_MISALIGNMENT",
	[0xC00000BB] = "STATUS_NOT_SUPPORTED",
	[0xC00000FD] = "STATUS_STACK_OVERFLOW",
	[0xC0000135] = "STATUS_DLL_NOT_FOUND",
	[0xC0000138] = "STATUS_ORDINAL_NOT_FOUND",
	[0xC0000139] = "STATUS_ENTRYPOINT_NOT_FOUND",
	[0xC000013A] = "STATUS_CONTROL_C_EXIT",
	[0xC0000142] = "STATUS_DLL_INIT_FAILED",
	[0xC0000144] = "STATUS_UNHANDLED_EXCEPTION",
	[0xC0000194] = "STATUS_POSSIBLE_DEADLOCK",
	[0xC00001A1] = "STATUS_INVALID_LOCK_RANGE",
	[0xC0000225] = "STATUS_NOT_FOUND",
	[0xC0000235] = "STATUS_HANDLE_NOT_CLOSABLE",
	[0xC00002B4] = "STATUS_FLOAT_MULTIPLE_FAULTS",
	[0xC00002B5] = "STATUS_FLOAT_MULTIPLE_TRAPS",
	[0xC00002C5] = "STATUS_DATATYPE_MISALIGNMENT_ERROR",
	[0xC00002C9] = "STATUS_REG_NAT_CONSUMPTION",
	[0xC0000374] = "STATUS_HEAP_CORRUPTION",
	[0xC0000409] = "STATUS_STACK_BUFFER_OVERRUN",
	[0xC0000420] = "STATUS_ASSERTION_FAILURE",
	[0xC0000421] = "STATUS_VERIFIER_STOP",
	[0xE0434352] = "CLR_EXCEPTION_V4",
	[0xE0434F4D] = "CLR_EXCEPTION",
	[0xE06D7363] = "CPP_EH_EXCEPTION",
}

local function status_name(status)
	return STATUSES[status] or string.format("%08x", status)
end

---- fields ----------------------------------------------------------------

local f, lists = {}, { kd = {}, kdnet = {}, kdcap = {} }

-- Makes the field once; the same abbreviation always has the same type.
local function field(abbrev, kind, label, ...)
	if not f[abbrev] then
		f[abbrev] = ProtoField[kind](abbrev, label, ...)
		table.insert(lists[abbrev:match("^%w+")], f[abbrev])
	end
	return f[abbrev]
end

local KINDS = { [1] = "uint8", [2] = "uint16", [4] = "uint32", [8] = "uint64" }

-- Entries of a layout: { offset, size, "address", "Address", names or "dec" }.
local function declare(layout)
	for _, e in ipairs(layout) do
		local names = type(e[5]) == "table" and e[5] or nil

		field("kd." .. e[3], KINDS[e[2]], e[4], e[5] == "dec" and base.DEC or base.HEX, names)
	end
	return layout
end

for _, name in ipairs({ "direction", "debug_io.text", "file.name", "load.path", "command.name",
	"command.text", "noise" }) do
	field("kd." .. name, "string", ({ direction = "Sent by", ["debug_io.text"] = "Text",
		["file.name"] = "File name", ["load.path"] = "Path", ["command.name"] = "Name",
		["command.text"] = "Command", noise = "Not a packet" })[name])
end
field("kd.leader", "uint32", "Leader", base.HEX,
	{ [LEADER_DATA] = "data", [LEADER_CONTROL] = "control" })
field("kd.type", "uint16", "Type", base.DEC, TYPES)
field("kd.len", "uint16", "Payload length", base.DEC)
field("kd.id", "uint32", "Packet id", base.HEX)
field("kd.sync", "bool", "Starts over")
field("kd.checksum", "uint32", "Checksum", base.HEX)
field("kd.checksum_status", "uint8", "Checksum status", base.DEC,
	{ [0] = "bad", "good", "unverified" })
field("kd.trailer", "uint8", "Trailer", base.HEX)
field("kd.payload", "bytes", "Payload")
field("kd.break_in", "bool", "Break-in")
field("kd.data", "bytes", "Data")
field("kd.is_reply", "bool", "Reply")
field("kd.response_in", "framenum", "Reply in", base.NONE, frametype.RESPONSE)
field("kd.response_to", "framenum", "Reply to the request in", base.NONE, frametype.REQUEST)
field("kd.time", "relative_time", "Time since the request")
field("kd.acknowledges", "framenum", "Acknowledges", base.NONE, frametype.ACK)
field("kd.retransmission_of", "framenum", "Retransmission of", base.NONE, frametype.RETRANS_PREV)
field("kd.instructions", "bytes", "Instruction bytes")
field("kd.exception.parameter", "uint64", "Parameter", base.HEX)

local E = {
	checksum = ProtoExpert.new("kd.checksum.bad", "Wrong checksum", expert.group.CHECKSUM,
		expert.severity.ERROR),
	trailer = ProtoExpert.new("kd.trailer.bad", "Wrong trailer", expert.group.MALFORMED,
		expert.severity.ERROR),
	short = ProtoExpert.new("kd.short", "Too short for what it is", expert.group.MALFORMED,
		expert.severity.ERROR),
	unknown = ProtoExpert.new("kd.unknown", "Unknown message", expert.group.UNDECODED,
		expert.severity.WARN),
	failed = ProtoExpert.new("kd.failed", "The request failed", expert.group.RESPONSE_CODE,
		expert.severity.NOTE),
	retransmission = ProtoExpert.new("kd.retransmission", "Retransmission",
		expert.group.SEQUENCE, expert.severity.NOTE),
	resend = ProtoExpert.new("kd.resend", "The last packet is wanted again",
		expert.group.SEQUENCE, expert.severity.NOTE),
	reset = ProtoExpert.new("kd.reset", "Link reset", expert.group.SEQUENCE,
		expert.severity.NOTE),
	noise = ProtoExpert.new("kd.noise.seen", "Bytes that belong to no packet",
		expert.group.PROTOCOL, expert.severity.NOTE),
}
kd.experts = { E.checksum, E.trailer, E.short, E.unknown, E.failed, E.retransmission, E.resend,
	E.reset, E.noise }

---- layouts: offset, size, abbreviation, label, names -----------------------

local HEAD = { { 4, 2, "processor_level", "Processor level", "dec" },
	{ 6, 2, "processor", "Processor", "dec" } }
local MEMORY = { { 0x10, 8, "address", "Address" }, { 0x18, 4, "count", "Bytes wanted", "dec" },
	{ 0x1C, 4, "actual", "Bytes done", "dec" } }
local CONTEXT = { { 0x10, 4, "context.flags", "Context flags" } }
local CONTEXT_EX = { { 0x10, 4, "context.offset", "Offset", "dec" },
	{ 0x14, 4, "context.count", "Count", "dec" },
	{ 0x18, 4, "context.copied", "Copied", "dec" } }
local BREAKPOINT = { { 0x10, 8, "address", "Address" }, { 0x18, 4, "handle", "Handle", "dec" } }
local RESTORE = { { 0x10, 4, "handle", "Handle", "dec" } }
local CONTINUE = { { 0x10, 4, "continue.status", "Continue status", STATUSES } }
local IO = { { 0x10, 8, "address", "Address" }, { 0x18, 4, "io.size", "Size", "dec" },
	{ 0x1C, 4, "io.value", "Value" } }
local IO_EX = { { 0x10, 4, "io.size", "Size", "dec" },
	{ 0x14, 4, "io.interface", "Interface", "dec" }, { 0x18, 4, "io.bus", "Bus", "dec" },
	{ 0x1C, 4, "io.space", "Address space", "dec" }, { 0x20, 8, "address", "Address" },
	{ 0x28, 4, "io.value", "Value" } }
local BREAKPOINT_EX = { { 0x10, 4, "breakpoint_ex.count", "Count", "dec" },
	{ 0x14, 4, "continue.status", "Continue status", STATUSES } }
local MSR = { { 0x10, 4, "msr.number", "MSR" }, { 0x14, 4, "msr.low", "Low half" },
	{ 0x18, 4, "msr.high", "High half" } }
local SEARCH = { { 0x10, 8, "address", "Address" }, { 0x18, 8, "search.length", "Length", "dec" },
	{ 0x20, 4, "search.pattern_length", "Pattern length", "dec" } }
local BUS = { { 0x10, 4, "bus.type", "Type", "dec" }, { 0x14, 4, "bus.number", "Bus", "dec" },
	{ 0x18, 4, "bus.slot", "Slot" }, { 0x1C, 4, "bus.offset", "Offset" },
	{ 0x20, 4, "bus.length", "Length", "dec" } }
local FILL = { { 0x10, 8, "address", "Address" }, { 0x18, 4, "count", "Bytes wanted", "dec" },
	{ 0x1C, 2, "fill.flags", "Flags" },
	{ 0x1E, 2, "fill.pattern_length", "Pattern length", "dec" } }
local QUERY = { { 0x10, 8, "address", "Address" }, { 0x20, 4, "query.space", "Space", "dec" },
	{ 0x24, 4, "query.flags", "Flags" } }
local INTERNAL_SET = { { 0x10, 8, "address", "Address" }, { 0x18, 4, "internal.flags", "Flags" } }
local INTERNAL = { { 0x10, 8, "address", "Address" }, { 0x18, 4, "internal.flags", "Flags" },
	{ 0x1C, 4, "internal.calls", "Calls", "dec" },
	{ 0x20, 4, "internal.max_calls", "Most calls in a period", "dec" },
	{ 0x24, 4, "internal.min", "Fewest instructions", "dec" },
	{ 0x28, 4, "internal.max", "Most instructions", "dec" },
	{ 0x2C, 4, "internal.total", "Instructions", "dec" } }
local CUSTOM = { { 0x10, 8, "address", "Address" },
	{ 0x18, 8, "custom.instruction", "Instruction" }, { 0x20, 4, "handle", "Handle", "dec" },
	{ 0x24, 1, "custom.size", "Size", "dec" },
	{ 0x25, 1, "custom.alignment", "Alignment", "dec" } }
local VERSION = { { 0x10, 2, "version.major", "Major version" },
	{ 0x12, 2, "version.minor", "Build", "dec" },
	{ 0x14, 1, "version.protocol", "Protocol version", "dec" },
	{ 0x15, 1, "version.secondary", "Secondary version", "dec" },
	{ 0x16, 2, "version.flags", "Flags" },
	{ 0x18, 2, "version.machine", "Machine", MACHINES },
	{ 0x1A, 1, "version.max_packet_type", "Packet types" },
	{ 0x1B, 1, "version.max_state_change", "State changes" },
	{ 0x1C, 1, "version.max_manipulate", "Requests" },
	{ 0x1D, 1, "version.simulation", "Simulation", "dec" },
	{ 0x20, 8, "version.kernel_base", "Kernel base" },
	{ 0x28, 8, "version.loaded_module_list", "PsLoadedModuleList" },
	{ 0x30, 8, "version.debugger_data_list", "Debugger data list" } }
local SPECIAL = { { 0x10, 8, "address", "Address" } }
local COUNT = { { 0x10, 4, "special.count", "Count", "dec" } }
local PARTITION = { { 0x10, 4, "partition", "Partition", "dec" } }
local NOTHING = {}

-- Name, layout, and whether no reply follows.
local APIS = {
	[0x3130] = { "ReadVirtualMemory", MEMORY }, [0x3131] = { "WriteVirtualMemory", MEMORY },
	[0x3132] = { "GetContext", CONTEXT }, [0x3133] = { "SetContext", CONTEXT },
	[0x3134] = { "WriteBreakPoint", BREAKPOINT }, [0x3135] = { "RestoreBreakPoint", RESTORE },
	[0x3136] = { "Continue", CONTINUE, true }, [0x3137] = { "ReadControlSpace", MEMORY },
	[0x3138] = { "WriteControlSpace", MEMORY }, [0x3139] = { "ReadIoSpace", IO },
	[0x313A] = { "WriteIoSpace", IO }, [0x313B] = { "Reboot", NOTHING, true },
	[0x313C] = { "Continue2", CONTINUE, true }, [0x313D] = { "ReadPhysicalMemory", MEMORY },
	[0x313E] = { "WritePhysicalMemory", MEMORY }, [0x313F] = { "QuerySpecialCalls", COUNT },
	[0x3140] = { "SetSpecialCall", SPECIAL }, [0x3141] = { "ClearSpecialCalls", NOTHING },
	[0x3142] = { "SetInternalBreakPoint", INTERNAL_SET },
	[0x3143] = { "GetInternalBreakPoint", INTERNAL },
	[0x3144] = { "ReadIoSpaceExtended", IO_EX }, [0x3145] = { "WriteIoSpaceExtended", IO_EX },
	[0x3146] = { "GetVersion", VERSION }, [0x3147] = { "WriteBreakPointEx", BREAKPOINT_EX },
	[0x3148] = { "RestoreBreakPointEx", BREAKPOINT_EX },
	[0x3149] = { "CauseBugCheck", NOTHING, true },
	[0x3150] = { "SwitchProcessor", NOTHING, true }, [0x3151] = { "PageIn", NOTHING },
	[0x3152] = { "ReadMachineSpecificRegister", MSR },
	[0x3153] = { "WriteMachineSpecificRegister", MSR },
	[0x3154] = { "OldVlm1", NOTHING }, [0x3155] = { "OldVlm2", NOTHING },
	[0x3156] = { "SearchMemory", SEARCH }, [0x3157] = { "GetBusData", BUS },
	[0x3158] = { "SetBusData", BUS }, [0x3159] = { "CheckLowMemory", NOTHING },
	[0x315A] = { "ClearAllInternalBreakpoints", NOTHING, true },
	[0x315B] = { "FillMemory", FILL }, [0x315C] = { "QueryMemory", QUERY },
	[0x315D] = { "SwitchPartition", PARTITION },
	[0x315E] = { "WriteCustomBreakpoint", CUSTOM }, [0x315F] = { "GetContextEx", CONTEXT_EX },
	[0x3160] = { "SetContextEx", CONTEXT_EX },
}
-- Requests of later systems, on whose names no two sources agree.
for number = 0x3161, 0x316F do
	APIS[number] = { string.format("Manipulate%X", number), NOTHING }
end
local API_NAMES = {}
for number, api in pairs(APIS) do
	API_NAMES[number] = api[1]
	declare(api[2])
end
declare(HEAD)

local CONTINUE2 = {
	[X86] = declare({ { 0x10, 4, "continue.status", "Continue status", STATUSES },
		{ 0x14, 4, "continue.step", "Single step", "dec" },
		{ 0x18, 4, "continue.dr7_32", "Dr7" },
		{ 0x1C, 4, "continue.symbol_start_32", "Step range from" },
		{ 0x20, 4, "continue.symbol_end_32", "Step range to" } }),
	[AMD64] = declare({ { 0x10, 4, "continue.status", "Continue status", STATUSES },
		{ 0x14, 4, "continue.step", "Single step", "dec" }, { 0x18, 8, "continue.dr7", "Dr7" },
		{ 0x20, 8, "continue.symbol_start", "Step range from" },
		{ 0x28, 8, "continue.symbol_end", "Step range to" } }),
	[ARM64] = declare({ { 0x10, 4, "continue.status", "Continue status", STATUSES },
		{ 0x18, 4, "continue.step", "Single step", "dec" },
		{ 0x1C, 8, "continue.symbol_start", "Step range from" },
		{ 0x24, 8, "continue.symbol_end", "Step range to" } }),
}
-- Offsets from C0 in a state change; where the instruction bytes and their
-- count are, and the size of the count.
local REPORTS = {
	[X86] = { stream = 0x0C, count = 0x08, count_size = 2, layout = declare({
		{ 0x00, 4, "report.dr6_32", "Dr6" }, { 0x04, 4, "report.dr7_32", "Dr7" },
		{ 0x24, 4, "report.eflags", "EFlags" }, { 0x0A, 2, "report.flags", "Report flags" },
		{ 0x1C, 2, "report.cs", "CS" }, { 0x1E, 2, "report.ds", "DS" },
		{ 0x20, 2, "report.es", "ES" }, { 0x22, 2, "report.fs", "FS" } }) },
	[AMD64] = { stream = 0x18, count = 0x14, count_size = 2, layout = declare({
		{ 0x00, 8, "report.dr6", "Dr6" }, { 0x08, 8, "report.dr7", "Dr7" },
		{ 0x10, 4, "report.eflags", "EFlags" }, { 0x16, 2, "report.flags", "Report flags" },
		{ 0x28, 2, "report.cs", "CS" }, { 0x2A, 2, "report.ds", "DS" },
		{ 0x2C, 2, "report.es", "ES" }, { 0x2E, 2, "report.fs", "FS" } }) },
	[ARM64] = { stream = 0x14, count = 0x10, count_size = 4, layout = declare({
		{ 0x00, 8, "report.bvr", "Bvr" }, { 0x08, 8, "report.wvr", "Wvr" } }) },
}
local STATE = declare({ { 0x04, 2, "processor_level", "Processor level", "dec" },
	{ 0x06, 2, "processor", "Processor", "dec" },
	{ 0x08, 4, "processors", "Processors", "dec" }, { 0x10, 8, "thread", "Thread" },
	{ 0x18, 8, "pc", "Program counter" } })
local EXCEPTION = declare({ { 0x20, 4, "exception.code", "Exception code", STATUSES },
	{ 0x24, 4, "exception.flags", "Exception flags" },
	{ 0x28, 8, "exception.record", "Exception record" },
	{ 0x30, 8, "exception.address", "Exception address" },
	{ 0x38, 4, "exception.parameters", "Parameters", "dec" },
	{ 0xB8, 4, "exception.first_chance", "First chance", "dec" } })
local LOAD = declare({ { 0x20, 4, "load.path_length", "Path length", "dec" },
	{ 0x28, 8, "load.base", "Base" }, { 0x30, 8, "load.process", "Process id" },
	{ 0x38, 4, "load.checksum", "Image checksum" },
	{ 0x3C, 4, "load.size", "Image size" }, { 0x40, 1, "load.unload", "Unload", "dec" } })
local COMMAND = declare({ { 0x20, 4, "command.flags", "Flags" } })
local FILES = {
	[0x3430] = declare({ { 0x08, 4, "file.access", "Access" },
		{ 0x0C, 4, "file.attributes", "Attributes" }, { 0x10, 4, "file.share", "Share" },
		{ 0x14, 4, "file.disposition", "Disposition", "dec" },
		{ 0x18, 4, "file.options", "Options" }, { 0x20, 8, "file.handle", "Handle" },
		{ 0x28, 8, "file.size", "File size", "dec" } }),
	[0x3431] = declare({ { 0x08, 8, "file.handle", "Handle" },
		{ 0x10, 8, "file.offset", "Offset" }, { 0x18, 4, "file.length", "Length", "dec" } }),
	[0x3433] = declare({ { 0x08, 8, "file.handle", "Handle" } }),
}
FILES[0x3432] = FILES[0x3431]
for _, names in ipairs({ DEBUG_IO, FILE_IO, CONTROL_REQUESTS }) do
	for number, name in pairs(names) do
		API_NAMES[number] = name
	end
end
declare({ { 0, 4, "state", "New state", STATES }, { 0, 4, "api", "API", API_NAMES },
	{ 8, 4, "status", "Status", STATUSES }, { 8, 4, "debug_io.length", "Length", "dec" },
	{ 12, 4, "debug_io.answer", "Length of the answer", "dec" },
	{ 8, 4, "trace.length", "Length", "dec" }, { 4, 4, "control.number", "Number", "dec" },
	{ 8, 4, "control.value", "Value", "dec" } })

---- what is known of a link ---------------------------------------------------

local links, results

function kd.init()
	links, results = {}, {}
end

local function link_of(key)
	links[key] = links[key] or { last = {} }
	return links[key]
end

local function endpoint(address, port)
	return tostring(address) .. " " .. port
end

-- The context of a packet: the link that it belongs to, its ends, and the
-- direction where the carrier tells it.
local function context(source, destination, key, direction)
	key = key or (source < destination and source .. " " .. destination or
		destination .. " " .. source)
	return { source = source, destination = destination, link = link_of(key),
		direction = direction }
end

local function context_of(pinfo, key, direction)
	return context(endpoint(pinfo.src, pinfo.src_port), endpoint(pinfo.dst, pinfo.dst_port), key,
		direction)
end

-- Who sent the packet. Where the carrier does not say, it is learnt from packets
-- that only one side sends, once for the link.
local function find_direction(ctx, only)
	if ctx.direction then
		return ctx.direction
	end
	if only == "target" then
		ctx.link.target = ctx.source
	elseif only == "host" then
		ctx.link.target = ctx.destination
	end
	if ctx.link.target then
		return ctx.link.target == ctx.source and "target" or "host"
	end
end

local OTHER = { host = "target", target = "host" }

local function bare_id(id)
	return math.floor(id / SYNC_FLAG) % 2 == 1 and id - SYNC_FLAG or id
end

local function analyse_control(p, ctx, r)
	local link = ctx.link

	if p.type == 6 and ctx.is_stream then
		link.last = {}
	elseif p.type == 4 and r.direction then
		local data = link.last[OTHER[r.direction]]
		if data and (data.id == p.id or (ctx.is_stream and bare_id(data.id) == p.id)) then
			r.acknowledges = data.frame
		end
	end
end

local function analyse_data(p, ctx, r, pinfo)
	local link, last = ctx.link, ctx.link.last[r.direction or "?"]

	if last and last.id == p.id and last.type == p.type and last.checksum == p.checksum then
		r.retransmission_of = last.frame
		return
	end
	link.last[r.direction or "?"] = { frame = pinfo.number, id = p.id, type = p.type,
		checksum = p.checksum }
	if p.machine then
		link.machine = p.machine
	end
	if p.type ~= 2 or not r.direction then
		return
	end
	local request = link.request
	if r.direction == "host" then
		link.request = not p.no_reply and { frame = pinfo.number, api = p.api, result = r,
			time = pinfo.rel_ts } or nil
	elseif request and request.api == p.api then
		r.response_to, r.time = request.frame, pinfo.rel_ts - request.time
		request.result.response_in = pinfo.number
		link.request = nil
	end
end

-- What the order of packets tells about this one. Found when it is seen first,
-- because later Wireshark shows packets in any order.
local function analyse(p, ctx, pinfo, key)
	if pinfo.visited or results[key] then
		local r = results[key] or {}
		r.machine = r.machine or ctx.link.machine
		r.direction = r.direction or find_direction(ctx)
		return r
	end
	local r = { direction = find_direction(ctx, p.only) }
	results[key] = r
	if IS_CONTROL[p.type] then
		analyse_control(p, ctx, r)
	else
		analyse_data(p, ctx, r, pinfo)
	end
	r.machine = ctx.link.machine
	return r
end

---- reading -------------------------------------------------------------------

local function u(tvb, offset, size)
	if offset + size > tvb:len() then
		return nil
	end
	return size == 8 and tvb(offset, 8):le_uint64() or tvb(offset, size):le_uint()
end

local function hex(value)
	return value:tohex():lower()
end

-- Adds one little-endian field. Returns its tree item, or nil when it is cut.
local function put(tree, tvb, abbrev, offset, size)
	if offset + size <= tvb:len() then
		return tree:add_le(f["kd." .. abbrev], tvb(offset, size))
	end
end

local function put_layout(tree, tvb, layout, start)
	for _, e in ipairs(layout) do
		put(tree, tvb, e[3], (start or 0) + e[1], e[2])
	end
end

local function put_bytes(tree, tvb, abbrev, offset, len)
	len = math.min(len or math.huge, tvb:len() - offset)
	if len > 0 then
		tree:add(f["kd." .. abbrev], tvb(offset, len))
	end
end

-- 8-bit text of at most len bytes, which ends at a NUL. Returns it, and the
-- offset behind that NUL.
local function put_text(tree, tvb, abbrev, offset, len)
	len = math.max(0, math.min(len or math.huge, tvb:len() - offset))
	local text = len > 0 and tvb:raw(offset, len) or ""
	local nul = text:find("\0", 1, true)
	local used = nul and nul - 1 or #text
	local shown = used > 0 and tvb(offset, used):string(ENC_ISO_8859_1) or ""
	if used > 0 then
		tree:add(f["kd." .. abbrev], tvb(offset, used), shown)
	end
	return shown, offset + used + 1
end

local function one_line(text)
	return (text:gsub("%c+$", ""):gsub("%c+", " "))
end

---- messages: each returns its line for the Info column ---------------------------

local function add_report(tree, tvb, machine)
	local report = REPORTS[machine]

	if not report or tvb:len() < 0xF0 then
		return
	end
	local t = tree:add(kd, tvb(0xC0, 48), "Control report, " .. MACHINES[machine])
	put_layout(t, tvb, report.layout, 0xC0)
	local count = u(tvb, 0xC0 + report.count, report.count_size)
	put_bytes(t, tvb, "instructions", 0xC0 + report.stream, math.min(count, 16))
end

local function state_exception(tvb, tree)
	put_layout(tree, tvb, EXCEPTION)
	for i = 0, math.min(u(tvb, 0x38, 4), 15) - 1 do
		put(tree, tvb, "exception.parameter", 0x40 + 8 * i, 8)
	end
	put_bytes(tree, tvb, "data", 0xF0)
	return string.format("stopped: %s at %s%s", status_name(u(tvb, 0x20, 4)), hex(u(tvb, 0x18, 8)),
		u(tvb, 0xB8, 4) == 0 and ", second chance" or "")
end

local function state_load(tvb, tree)
	put_layout(tree, tvb, LOAD)
	local len = math.min(u(tvb, 0x20, 4), tvb:len() - 0xF0)
	local path = put_text(tree, tvb, "load.path", tvb:len() - len, len)
	local where, unload = hex(u(tvb, 0x28, 8)), u(tvb, 0x40, 1) ~= 0
	if unload and path == "" and where == "ffffffffffffffff" then
		return "the session ends: reboot, shutdown or the next boot stage"
	end
	return string.format("%s %s at %s", unload and "unload" or "load", one_line(path), where)
end

local function state_change(tvb, tree, ctx, r)
	local state = u(tvb, 0, 4) % 0x10000

	tree:add_le(f["kd.state"], tvb(0, 4), state)
	put_layout(tree, tvb, STATE)
	add_report(tree, tvb, r.machine)
	if state == 0x3030 then
		return state_exception(tvb, tree)
	elseif state == 0x3031 then
		return state_load(tvb, tree)
	elseif state == 0x3032 then
		put_layout(tree, tvb, COMMAND)
		local _, next_text = put_text(tree, tvb, "command.name", 0xF0)
		return "command string " .. one_line((put_text(tree, tvb, "command.text", next_text)))
	end
	tree:add_proto_expert_info(E.unknown)
	return string.format("unknown state change %X", state)
end

local function manipulate_layout(api, machine)
	local info = APIS[api]

	if api == 0x313C then
		return CONTINUE2[machine] or CONTINUE
	end
	return info and info[2] or NOTHING
end

local function manipulate_details(tvb, layout, is_reply)
	local details = ""

	if layout[1] and layout[1][3] == "address" and u(tvb, 0x10, 8) then
		details = " at " .. hex(u(tvb, 0x10, 8))
	end
	if layout == MEMORY then
		details = details .. ", " .. (is_reply and u(tvb, 0x1C, 4) .. " of " or "") ..
			u(tvb, 0x18, 4) .. " bytes"
	elseif layout == VERSION and is_reply then
		details = string.format(": %s build %d, kernel at %s",
			MACHINES[u(tvb, 0x18, 2)] or "unknown machine", u(tvb, 0x12, 2),
			hex(u(tvb, 0x20, 8)))
	elseif layout == RESTORE then
		details = " handle " .. u(tvb, 0x10, 4)
	elseif layout[1] and layout[1][3] == "continue.status" then
		local step = layout[2] and layout[2][3] == "continue.step" and u(tvb, layout[2][1], 4)
		details = ": " .. status_name(u(tvb, 0x10, 4)) .. (step and step ~= 0 and ", step" or "")
	end
	return details
end

local function manipulate(tvb, tree, ctx, r)
	local api, is_reply = u(tvb, 0, 4), r.direction == "target"
	local status, info = u(tvb, 8, 4), APIS[api]

	put(tree, tvb, "api", 0, 4)
	put_layout(tree, tvb, HEAD)
	put(tree, tvb, "status", 8, 4)
	if r.direction then
		tree:add(f["kd.is_reply"], is_reply):set_generated()
	end
	if not info then
		tree:add_proto_expert_info(E.unknown)
	end
	local line = (info and info[1] or string.format("unknown API %X", api)) ..
		(r.direction and (is_reply and " reply" or " request") or "")
	local is_whole = tvb:len() >= 56
	if is_whole then
		local layout = manipulate_layout(api, r.machine)
		put_layout(tree, tvb, layout)
		put_bytes(tree, tvb, "data", 0x38)
		line = line .. manipulate_details(tvb, layout, is_reply)
	end
	if is_reply and status >= 0x80000000 then
		tree:add_proto_expert_info(E.failed)
		return line .. ": " .. status_name(status)
	elseif not is_whole then
		tree:add_proto_expert_info(E.short)
	end
	return line
end

local function debug_io(tvb, tree, ctx, r)
	local api, len = u(tvb, 0, 4), u(tvb, 8, 4)

	put(tree, tvb, "api", 0, 4)
	put_layout(tree, tvb, HEAD)
	put(tree, tvb, "debug_io.length", 8, 4)
	-- Some stubs leave out the second length of a print.
	local start = api == 0x3230 and tvb:len() == 12 + len and 12 or 16
	if api == 0x3230 then
		return 'print "' .. one_line((put_text(tree, tvb, "debug_io.text", start, len))) .. '"'
	elseif api ~= 0x3231 then
		tree:add_proto_expert_info(E.unknown)
		return string.format("unknown debug I/O %X", api)
	end
	put(tree, tvb, "debug_io.answer", 12, 4)
	local is_answer = r.direction == "host"
	local text = put_text(tree, tvb, "debug_io.text", 16, is_answer and u(tvb, 12, 4) or len)
	return (is_answer and 'answer "' or 'prompt "') .. one_line(text) .. '"'
end

local function file_io(tvb, tree, ctx, r)
	local api, line = u(tvb, 0, 4), nil
	local layout = FILES[api]

	put(tree, tvb, "api", 0, 4)
	put(tree, tvb, "status", 4, 4)
	if not layout then
		tree:add_proto_expert_info(E.unknown)
		return string.format("unknown file I/O %X", api)
	end
	put_layout(tree, tvb, layout)
	line = FILE_IO[api] .. (r.direction == "host" and " answer: " .. status_name(u(tvb, 4, 4)) or
		r.direction and " request" or "")
	local len = tvb:len() - 64
	if api ~= 0x3430 then
		put_bytes(tree, tvb, "data", 64)
	elseif len >= 2 then
		len = len - len % 2
		local range = tvb(64, tvb(64 + len - 2, 2):le_uint() == 0 and len - 2 or len)
		local name = range:len() > 0 and range:le_ustring() or ""
		tree:add(f["kd.file.name"], range, name)
		line = line .. " " .. one_line(name)
	end
	return line
end

local function trace_io(tvb, tree)
	put(tree, tvb, "api", 0, 4)
	put_layout(tree, tvb, HEAD)
	put(tree, tvb, "trace.length", 8, 4)
	put_bytes(tree, tvb, "data", 64)
	return "trace"
end

local function control_request(tvb, tree)
	put(tree, tvb, "api", 0, 4)
	put(tree, tvb, "control.number", 4, 4)
	put(tree, tvb, "control.value", 8, 4)
	return CONTROL_REQUESTS[u(tvb, 0, 4)] or "control request"
end

-- The function, and what a message has at least.
local MESSAGES = { [2] = { manipulate, 12 }, [3] = { debug_io, 12 }, [7] = { state_change, 240 },
	[9] = { trace_io, 12 }, [10] = { control_request, 12 }, [11] = { file_io, 64 } }

---- packets ---------------------------------------------------------------------

local function sum(tvb, offset, len)
	local bytes, total = len > 0 and tvb:raw(offset, len) or "", 0

	for i = 1, len do
		total = total + bytes:byte(i)
	end
	return total % 0x100000000
end

-- What the analysis needs to know of a data packet.
local function summarise(tvb, p)
	local payload = tvb:len() - HEADER_LEN

	if p.type == 7 or p.type == 9 or p.type == 1 then
		p.only = "target"
	elseif p.type == 3 and payload >= 4 and u(tvb, 16, 4) == 0x3230 then
		p.only = "target"
	elseif p.type == 2 and payload >= 12 then
		p.api = u(tvb, 16, 4)
		p.no_reply = APIS[p.api] and APIS[p.api][3]
		if u(tvb, 24, 4) == REQUEST_STATUS then
			p.only = "host"
		elseif p.api == 0x3146 and payload >= 56 and MACHINES[u(tvb, 40, 2)] then
			p.machine = u(tvb, 40, 2)
		elseif p.api == 0x3132 then
			p.machine = CONTEXT_MACHINE[p.len - 56]
		end
	end
end

local function add_header(tvb, tree, p)
	put(tree, tvb, "leader", 0, 4)
	put(tree, tvb, "type", 4, 2)
	put(tree, tvb, "len", 6, 2)
	local id = put(tree, tvb, "id", 8, 4)
	if p.type == 6 then
		tree:add_proto_expert_info(E.reset)
	elseif p.type == 5 then
		tree:add_proto_expert_info(E.resend)
	end
	return id
end

local function add_checksum(tvb, tree, p)
	local item, status = put(tree, tvb, "checksum", 12, 4), 2

	if HEADER_LEN + p.len <= tvb:len() then
		local right = sum(tvb, HEADER_LEN, p.len)
		status = right == p.checksum and 1 or 0
		if status == 0 then
			item:add_proto_expert_info(E.checksum, string.format(
				"Wrong checksum: %08X is right", right))
		end
	end
	tree:add(f["kd.checksum_status"], status):set_generated()
end

local function add_results(tree, r)
	for _, name in ipairs({ "direction", "acknowledges", "retransmission_of", "response_to",
		"response_in" }) do
		if r[name] then
			tree:add(f["kd." .. name], r[name]):set_generated()
		end
	end
	if r.time then
		local seconds = math.floor(r.time)
		tree:add(f["kd.time"], NSTime.new(seconds,
			math.floor((r.time - seconds) * 1e9 + 0.5))):set_generated()
	end
	if r.retransmission_of then
		tree:add_proto_expert_info(E.retransmission)
	end
end

local function show(pinfo, ctx, r, line)
	local sender = r.direction and r.direction .. ": " or ""

	if r.retransmission_of then
		line = "[retransmission] " .. line
	end
	if ctx.shown then
		pinfo.cols.info:append(" | " .. line)
	else
		pinfo.cols.protocol = "KD"
		pinfo.cols.info = sender .. line
	end
	ctx.shown = true
end

-- One packet that fills tvb, with or without a trailer.
local function dissect_packet(tvb, pinfo, root, ctx, key)
	local p = { type = u(tvb, 4, 2), len = u(tvb, 6, 2), id = u(tvb, 8, 4),
		checksum = u(tvb, 12, 4) }
	local tree = root:add(kd, tvb())

	if IS_DATA[p.type] then
		summarise(tvb, p)
	end
	local r = analyse(p, ctx, pinfo, key)
	local id = add_header(tvb, tree, p)
	local line = (TYPES[p.type] or "type " .. p.type) .. string.format(" %08x", p.id)
	if IS_DATA[p.type] then
		if ctx.is_stream and bare_id(p.id) ~= p.id then
			id:add(f["kd.sync"], true):set_generated()
		end
		add_checksum(tvb, tree, p)
		local have = math.min(p.len, tvb:len() - HEADER_LEN)
		local message = MESSAGES[p.type]
		if have < p.len or not message or have < message[2] then
			put_bytes(tree, tvb, "payload", HEADER_LEN, have)
			tree:add_proto_expert_info(message and E.short or E.unknown)
		else
			line = message[1](tvb(HEADER_LEN, have):tvb(), tree, ctx, r)
		end
		local trailer = put(tree, tvb, "trailer", HEADER_LEN + p.len, 1)
		if trailer and u(tvb, HEADER_LEN + p.len, 1) ~= TRAILER then
			trailer:add_proto_expert_info(E.trailer)
		end
	else
		put(tree, tvb, "checksum", 12, 4)
		if not IS_CONTROL[p.type] then
			tree:add_proto_expert_info(E.unknown)
		end
	end
	add_results(tree, r)
	tree:append_text(", " .. line)
	show(pinfo, ctx, r, line)
end

local function dissect_break_in(tvb, pinfo, root, ctx)
	local tree = root:add(kd, tvb(), "Windows Kernel Debugger, break-in")
	local r = { direction = find_direction(ctx, "host") }

	tree:add(f["kd.break_in"], tvb(), true)
	add_results(tree, r)
	show(pinfo, ctx, r, "break-in")
end

---- a byte stream -----------------------------------------------------------------

-- The length of the packet that starts at offset; 0: never a packet; nil: more
-- bytes are needed to tell.
local function packet_length(tvb, offset)
	local left, first = tvb:len() - offset, tvb(offset, 1):uint()

	if first ~= 0x30 and first ~= 0x69 then
		return 0
	end
	for i = 1, math.min(left, 4) - 1 do
		if tvb(offset + i, 1):uint() ~= first then
			return 0
		end
	end
	if left < 8 then
		return nil
	end
	local kind, len = tvb(offset + 4, 2):le_uint(), tvb(offset + 6, 2):le_uint()
	if first == 0x30 and IS_DATA[kind] and len >= 1 and len <= MAX_PAYLOAD then
		local total = HEADER_LEN + len + 1
		-- A packet that was cut: the next one is inside what seems its payload.
		if left >= total and tvb(offset + total - 1, 1):uint() ~= TRAILER and
			sum(tvb, offset + HEADER_LEN, len) ~= u(tvb, offset + 12, 4) then
			return 0
		end
		return total
	elseif first == 0x69 and IS_CONTROL[kind] and len == 0 then
		return HEADER_LEN
	end
	return 0
end

local function dissect_noise(tvb, pinfo, root, ctx)
	local text = tvb:raw()

	if text == string.rep(string.char(BREAK_IN), #text) then
		return dissect_break_in(tvb, pinfo, root, ctx)
	end
	local tree = root:add(kd, tvb(), "Windows Kernel Debugger, no packet")
	local shown = tvb():string(ENC_ISO_8859_1)
	tree:add(f["kd.noise"], tvb(), shown)
	tree:add_proto_expert_info(E.noise)
	show(pinfo, ctx, {}, "no packet: " .. one_line(shown))
end

-- Shows all packets in tvb, and what is between them. Where a packet begins that
-- is not whole, returns its offset and how much it lacks, as far as that is known.
local function walk(tvb, pinfo, root, ctx)
	local offset, noise = 0, 0

	while offset < tvb:len() do
		local len = packet_length(tvb, offset)
		if len == 0 then
			offset = offset + 1
		else
			if offset > noise then
				dissect_noise(tvb(noise, offset - noise):tvb(), pinfo, root, ctx)
			end
			if not len or offset + len > tvb:len() then
				return offset, len and offset + len - tvb:len()
			end
			local key = pinfo.number .. " " .. tvb:len() .. " " .. offset
			dissect_packet(tvb(offset, len):tvb(), pinfo, root, ctx, key)
			offset = offset + len
			noise = offset
		end
	end
	if offset > noise then
		dissect_noise(tvb(noise, offset - noise):tvb(), pinfo, root, ctx)
	end
end

local tcp_stream = Field.new("tcp.stream")

function kd.dissector(tvb, pinfo, root)
	local stream = tcp_stream()
	local ctx = context_of(pinfo, "tcp " .. tostring(stream and stream.value))

	ctx.is_stream = true
	local rest, lacks = walk(tvb, pinfo, root, ctx)
	if rest then
		pinfo.desegment_offset = rest
		pinfo.desegment_len = lacks or DESEGMENT_ONE_MORE_SEGMENT
	end
end

-- Takes a connection when a segment starts with the header of a packet.
local function is_kd(tvb, pinfo, root)
	if tvb:len() < HEADER_LEN or (packet_length(tvb, 0) or 0) == 0 then
		return false
	end
	pinfo.conversation = kd
	kd.dissector(tvb, pinfo, root)
	return true
end

---- KDNET -------------------------------------------------------------------------

local CHANNELS = { [0] = "data", [1] = "control" }
local DIRECTIONS = { [0] = "target", [1] = "host" }
local MESSAGE_NAMES = { [1] = "poke", [2] = "response" }

field("kdnet.magic", "string", "Magic")
field("kdnet.version", "uint8", "Version", base.DEC)
field("kdnet.type", "uint8", "Type", base.HEX)
field("kdnet.channel", "uint8", "Channel", base.DEC, CHANNELS)
field("kdnet.ciphertext", "bytes", "Sealed")
field("kdnet.tag", "bytes", "Tag")
field("kdnet.seq", "uint64", "Sequence number", base.DEC)
field("kdnet.direction", "string", "Sent by")
field("kdnet.pad", "uint8", "Padding", base.DEC)
field("kdnet.message", "uint8", "Message", base.DEC, MESSAGE_NAMES)
field("kdnet.nonce_counter", "uint64", "Target nonce, counter", base.DEC)
field("kdnet.nonce", "bytes", "Target nonce, of this boot")
field("kdnet.host_nonce", "bytes", "Host nonce")
for _, who in ipairs({ "target", "configured_host", "current_host" }) do
	local label = (who:gsub("_", " "):gsub("^%l", string.upper))
	field("kdnet." .. who .. ".ip", "string", label .. " address")
	field("kdnet." .. who .. ".port", "uint16", label .. " port", base.DEC)
end
field("kdnet.info", "bytes", "Host connection info")
field("kdnet.ping.sequence", "uint64", "Last host sequence number", base.DEC)
field("kdnet.ping.host", "string", "Host address")
local N = {
	sealed = ProtoExpert.new("kdnet.sealed", "Not decrypted", expert.group.DECRYPTION,
		expert.severity.NOTE),
	malformed = ProtoExpert.new("kdnet.malformed", "Not a KDNET datagram",
		expert.group.MALFORMED, expert.severity.ERROR),
}
kdnet.experts = { N.sealed, N.malformed }

local function ip_text(tvb, offset)
	if tvb(offset, 12):bytes():tohex() == "00000000000000000000FFFF" then
		return tostring(tvb(offset + 12, 4):ipv4())
	end
	return tostring(tvb(offset, 16):ipv6())
end

local function add_address(tree, tvb, who, offset)
	local ip, port = ip_text(tvb, offset), tvb(offset + 16, 2):uint()

	tree:add(f["kdnet." .. who .. ".ip"], tvb(offset, 16), ip)
	tree:add(f["kdnet." .. who .. ".port"], tvb(offset + 16, 2))
	return ip .. ":" .. port
end

local function control_body(tvb, tree)
	local len = tvb:len()

	if len == 0 then
		return "host poke"
	end
	local message = len >= 34 and tvb(1, 1):uint() or 0
	if not MESSAGE_NAMES[message] or tvb(0, 1):uint() ~= 1 then
		tree:add_proto_expert_info(N.malformed)
		return "unknown control message"
	end
	tree:add(f["kdnet.message"], tvb(1, 1))
	tree:add_le(f["kdnet.nonce_counter"], tvb(2, 8))
	tree:add(f["kdnet.nonce"], tvb(10, 24))
	if message == 2 then
		if len >= 66 then
			tree:add(f["kdnet.host_nonce"], tvb(34, 32))
		end
		return "response"
	elseif len < 88 then
		return "poke, short form"
	end
	local line = "poke from " .. add_address(tree, tvb, "target", 34)
	add_address(tree, tvb, "configured_host", 52)
	line = line .. ", host " .. add_address(tree, tvb, "current_host", 70)
	if len > 88 then
		tree:add(f["kdnet.info"], tvb(88, len - 88))
	end
	return line
end

-- What a datagram carries. Data goes to kd; the rest is described in tree.
local function dissect_body(tvb, pinfo, root, tree, ctx, is_control)
	local len = tvb:len()
	local leader = len >= 4 and u(tvb, 0, 4)
	local line

	if is_control then
		line = control_body(tvb, tree)
	elseif len == 12 and leader == 0 then
		tree:add_le(f["kdnet.ping.sequence"], tvb(0, 8))
		local host = tostring(tvb(8, 4):le_ipv4())
		tree:add(f["kdnet.ping.host"], tvb(8, 4), host)
		line = "ping, host " .. host
	elseif len == 1 and tvb(0, 1):uint() == BREAK_IN then
		return dissect_break_in(tvb, pinfo, root, ctx)
	elseif len >= HEADER_LEN and (leader == LEADER_DATA or leader == LEADER_CONTROL) then
		return dissect_packet(tvb, pinfo, root, ctx, pinfo.number .. " net")
	else
		tree:add_proto_expert_info(N.malformed)
		line = "unknown data"
	end
	pinfo.cols.protocol = "KDNET"
	pinfo.cols.info = (ctx.direction and ctx.direction .. ": " or "") .. line
end

---- opening sealed datagrams ------------------------------------------------------

-- luaossl, where it is installed for the Lua that Wireshark uses. What newer
-- Wiresharks bring themselves (GcryptCipher) has no hashes, which KDNET needs.
local function load_crypto()
	local ok, cipher = pcall(require, "openssl.cipher")
	local ok2, hmac = pcall(require, "openssl.hmac")
	local ok3, digest = pcall(require, "openssl.digest")

	if not (ok and ok2 and ok3) then
		return nil
	end
	return {
		decrypt = function(key, iv, text)
			return cipher.new("AES-256-CBC"):decrypt(key, iv, false):final(text)
		end,
		tag = function(key, text)
			return hmac.new(key, "sha256"):final(text):sub(1, 16)
		end,
		sha256 = function(text)
			return digest.new("sha256"):final(text)
		end,
	}
end

local crypto = load_crypto()
local keys, opened = {}, {}
local MAX_DATA_KEYS = 16

kdnet.prefs.keys = Pref.string("Keys", "", "Keys of the targets, w.x.y.z, with spaces between them")

-- 64 bits from base 36, least significant byte first; nil when it is no word.
local function word_bytes(word)
	local bytes = { 0, 0, 0, 0, 0, 0, 0, 0 }

	if not word:match("^%w+$") or #word > 13 then
		return nil
	end
	for digit in word:gmatch(".") do
		local carry = tonumber(digit, 36)
		for i = 1, 8 do
			local n = bytes[i] * 36 + carry
			bytes[i], carry = n % 256, math.floor(n / 256)
		end
		if carry > 0 then
			return nil
		end
	end
	return string.char((table.unpack or unpack)(bytes))
end

local function parse_key(text)
	local words = {}

	for word in (text .. "."):gmatch("([^.]*)%.") do
		table.insert(words, word_bytes(word) or false)
	end
	if #words ~= 4 or not (words[1] and words[2] and words[3] and words[4]) then
		return nil
	end
	local control = table.concat(words)
	return { control = control, data = {}, tag = control:gsub(".", function(c)
		return string.char(255 - c:byte())
	end) }
end

local function read_keys()
	keys, opened = {}, {}
	for text in kdnet.prefs.keys:gmatch("%S+") do
		local key = parse_key(text)
		if key then
			table.insert(keys, key)
		else
			report_failure("kdnet.keys: one of the keys is not four words of 0-9 and a-z")
		end
	end
end

function kdnet.init()
	read_keys()
end

local function try_open(cipher_key, key, header, sealed, tag)
	local plain = crypto.decrypt(cipher_key, tag, sealed)

	return plain and crypto.tag(key.tag, header .. plain) == tag and plain
end

local function try_keys(header, sealed, tag, is_control)
	for _, key in ipairs(keys) do
		for _, cipher_key in ipairs(is_control and { key.control } or key.data) do
			local plain = try_open(cipher_key, key, header, sealed, tag)
			if plain then
				return plain, key
			end
		end
	end
end

-- A response makes a new data key.
local function learn_data_key(plain, key)
	if #plain >= 330 and plain:sub(9, 10) == "\1\2" then
		table.insert(key.data, 1, crypto.sha256(key.control .. plain:sub(9, 330)))
		key.data[MAX_DATA_KEYS + 1] = nil
	end
end

local function open(tvb, pinfo, is_control)
	local len = tvb:len()
	local tag = tvb:raw(len - 16, 16)
	local key_of_result = pinfo.number .. tag

	if not crypto or #keys == 0 then
		return nil
	end
	if opened[key_of_result] == nil then
		local plain, key = try_keys(tvb:raw(0, 6), tvb:raw(6, len - 22), tag, is_control)
		if plain and is_control then
			learn_data_key(plain, key)
		end
		opened[key_of_result] = plain or false
	end
	return opened[key_of_result] or nil
end

local function why_sealed()
	if kdnet.prefs.keys == "" then
		return "No key: set kdnet.keys, or let kdcap -w FILE --decrypted write it in clear"
	elseif not crypto then
		return "This Lua has no luaossl: install it, or let kdcap -w FILE --decrypted write it " ..
			"in clear"
	end
	return "No key fits, or the response that made the data key was not captured"
end

local function dissect_plain(plain, pinfo, root, tree, ctx, is_control)
	local tvb = ByteArray.new(plain, true):tvb("Decrypted KDNET")
	local flags = tvb(7, 1):uint()
	local pad = flags % 16
	local direction = DIRECTIONS[math.floor(flags / 128)]

	tree:add(f["kdnet.seq"], tvb(0, 7), UInt64.new(tvb(3, 4):uint(), tvb(0, 3):uint()))
	tree:add(f["kdnet.direction"], tvb(7, 1), direction)
	tree:add(f["kdnet.pad"], tvb(7, 1), pad)
	if 8 + pad > tvb:len() then
		tree:add_proto_expert_info(N.malformed)
		return
	end
	ctx.direction = direction
	local body = ByteArray.new(plain:sub(9, tvb:len() - pad), true)
	dissect_body(body:tvb("KDNET body"), pinfo, root, tree, ctx, is_control)
end

local function dissect_datagram(tvb, pinfo, root, ctx)
	local len, sealed = tvb:len(), tvb:len() - 22
	local tree = root:add(kdnet, tvb())

	pinfo.cols.protocol = "KDNET"
	if sealed < 16 or sealed % 16 ~= 0 then
		tree:add_proto_expert_info(N.malformed)
		pinfo.cols.info = "malformed"
		return
	end
	local kind = tvb(5, 1):uint()
	local channel = kind % 2
	tree:add(f["kdnet.magic"], tvb(0, 4))
	tree:add(f["kdnet.version"], tvb(4, 1))
	tree:add(f["kdnet.type"], tvb(5, 1))
	tree:add(f["kdnet.channel"], tvb(5, 1), channel):set_generated()
	tree:add(f["kdnet.ciphertext"], tvb(6, sealed))
	tree:add(f["kdnet.tag"], tvb(len - 16, 16))
	tree:append_text(string.format(", version %d, %s", tvb(4, 1):uint(), CHANNELS[channel]))
	local plain = open(tvb, pinfo, channel == 1)
	if plain then
		dissect_plain(plain, pinfo, root, tree, ctx, channel == 1)
	else
		tree:add_proto_expert_info(N.sealed, why_sealed())
		pinfo.cols.info = string.format("%s, %d bytes sealed", CHANNELS[channel], sealed)
	end
end

function kdnet.dissector(tvb, pinfo, root)
	dissect_datagram(tvb, pinfo, root, context_of(pinfo))
end

local function is_kdnet(tvb, pinfo, root)
	if tvb:len() < 38 or (tvb:len() - 22) % 16 ~= 0 or tvb:raw(0, 4) ~= "MDBG" then
		return false
	end
	kdnet.dissector(tvb, pinfo, root)
	return true
end

---- records of kdcap --decrypted and kdsrv --capture ------------------------------

local BODY_DATA, BODY_CONTROL, STREAM_BYTES, DATAGRAM = 0, 1, 2, 3
local KDCAP_HEADER = 64

field("kdcap.version", "uint8", "Layout version", base.DEC)
field("kdcap.content", "uint8", "Content", base.DEC, { [BODY_DATA] = "KDNET data",
	[BODY_CONTROL] = "KDNET control", [STREAM_BYTES] = "serial line", [DATAGRAM] = "KDNET, sealed" })
field("kdcap.sender", "uint8", "Sent by", base.DEC, { [0] = "target", "host", "unknown" })
field("kdcap.seq", "uint64", "KDNET sequence number", base.DEC)
field("kdcap.kdnet_version", "uint8", "KDNET version", base.DEC)
field("kdcap.flags", "uint8", "Flags", base.HEX)
for bit, name in pairs({ [1] = "Retransmission", [2] = "Duplicate", [4] = "Gap", [8] = "Late" }) do
	field("kdcap.flags." .. name:lower(), "bool", name, 8, nil, bit)
end
field("kdcap.src", "string", "Source")
field("kdcap.dst", "string", "Destination")
field("kdcap.frame", "uint64", "Frame of the original capture", base.DEC)
local kdcap_malformed = ProtoExpert.new("kdcap.malformed", "Not a record of a known layout",
	expert.group.MALFORMED, expert.severity.ERROR)
kdcap.experts = { kdcap_malformed }

-- One end of a record. Serial lines and USB cables have no addresses: what
-- stands in their place is described in transport/record.h.
local function record_end(tvb, offset, port)
	local address = tvb(offset, 16):bytes():tohex()

	if address:find("^75736200") then
		return address:find("^757362000+$") and "host" or
			("usb %d.%d"):format(tvb(offset + 4, 2):uint(), tvb(offset + 6, 1):uint())
	end
	if address:find("^0+$") and tvb(6, 1):uint() == STREAM_BYTES then
		return port == 0 and "host" or "line " .. port
	end
	return ip_text(tvb, offset)
end

local function add_record_header(tvb, pinfo, tree)
	local src_port, dst_port = tvb(18, 2):le_uint(), tvb(20, 2):le_uint()
	local src_name, dst_name = record_end(tvb, 24, src_port), record_end(tvb, 40, dst_port)
	local src, dst = endpoint(src_name, src_port), endpoint(dst_name, dst_port)

	pinfo.cols.src, pinfo.cols.dst = src_name, dst_name
	tree:add(f["kdcap.version"], tvb(4, 1))
	tree:add(f["kdcap.content"], tvb(6, 1))
	tree:add(f["kdcap.sender"], tvb(7, 1))
	tree:add_le(f["kdcap.seq"], tvb(8, 8))
	tree:add(f["kdcap.kdnet_version"], tvb(16, 1))
	local flags = tree:add(f["kdcap.flags"], tvb(17, 1))
	for _, name in ipairs({ "retransmission", "duplicate", "gap", "late" }) do
		flags:add(f["kdcap.flags." .. name], tvb(17, 1))
	end
	tree:add(f["kdcap.src"], tvb(24, 16), src)
	tree:add(f["kdcap.dst"], tvb(40, 16), dst)
	tree:add_le(f["kdcap.frame"], tvb(56, 8))
	return src, dst
end

-- Pieces of a serial line are cut anywhere: what begins a packet is kept for the
-- sender's next piece.
local function dissect_piece(tvb, pinfo, root, ctx)
	local link, sender = ctx.link, ctx.direction or ctx.source
	local pieces = link.pieces or {}

	link.pieces = pieces
	if not pieces[pinfo.number] then
		pieces[pinfo.number] = (pieces[sender] or "") .. tvb:raw()
	end
	local joined = pieces[pinfo.number]
	if #joined > tvb:len() then
		tvb = ByteArray.new(joined, true):tvb("Serial line")
	end
	ctx.is_stream = true
	local rest = walk(tvb, pinfo, root, ctx)
	if not pinfo.visited then
		pieces[sender] = rest and joined:sub(rest + 1)
	end
	if not ctx.shown then
		show(pinfo, ctx, {}, "a piece of a packet")
	end
end

function kdcap.dissector(tvb, pinfo, root)
	local header = tvb:len() >= KDCAP_HEADER and tvb(5, 1):uint() or 0
	local tree = root:add(kdcap, tvb(0, math.min(header, tvb:len())))

	pinfo.cols.protocol = "KDCAP"
	pinfo.cols.info = ""
	if header < KDCAP_HEADER or header > tvb:len() or tvb:raw(0, 5) ~= "KDCP\1" or
		tvb(6, 1):uint() > DATAGRAM then
		tree:add_proto_expert_info(kdcap_malformed)
		pinfo.cols.info = "malformed"
		return
	end
	local src, dst = add_record_header(tvb, pinfo, tree)
	local content = tvb(6, 1):uint()
	local ctx = context(src, dst, nil, DIRECTIONS[tvb(7, 1):uint()])
	local body = tvb:len() > header and tvb(header):tvb() or ByteArray.new():tvb("Empty body")
	if content == STREAM_BYTES then
		dissect_piece(body, pinfo, root, ctx)
	elseif content == DATAGRAM then
		dissect_datagram(body, pinfo, root, ctx)
	else
		dissect_body(body, pinfo, root, tree, ctx, content == BODY_CONTROL)
	end
end

kd.fields, kdnet.fields, kdcap.fields = lists.kd, lists.kdnet, lists.kdcap
kd:register_heuristic("tcp", is_kd)
kdnet:register_heuristic("udp", is_kdnet)
DissectorTable.get("tcp.port"):add_for_decode_as(kd)
DissectorTable.get("udp.port"):add_for_decode_as(kdnet)
DissectorTable.get("wtap_encap"):add(wtap_encaps.USER0, kdcap)
