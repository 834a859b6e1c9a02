# The machine below the simulated stock target: 32-bit memory with holes, and
# a processor that knows as much x86 as its little kernel needs.
# SPDX-License-Identifier: MIT
import struct

PAGE = 4096
TF = 0x100
DR6, DR6_STEP = 0xFFFF0FF0, 0x4000
REGS = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"]
CONTEXT_SIZE, SPECIAL_SIZE = 716, 84
CONTEXT_AT = {"gs": 0x8C, "fs": 0x90, "es": 0x94, "ds": 0x98, "edi": 0x9C, "esi": 0xA0,
              "ebx": 0xA4, "edx": 0xA8, "ecx": 0xAC, "eax": 0xB0, "ebp": 0xB4, "eip": 0xB8,
              "cs": 0xBC, "eflags": 0xC0, "esp": 0xC4, "ss": 0xC8}


def u32(v):
    return struct.pack("<I", v & 0xFFFFFFFF)


class Memory:
    """Pages come to life when first written; reading stops at the first that
    is not there."""

    def __init__(self):
        self.pages = {}

    def map(self, base, size):
        for page in range(base // PAGE, (base + size + PAGE - 1) // PAGE):
            self.pages.setdefault(page, bytearray(PAGE))

    def unmap(self, base, size):
        for page in range(base // PAGE, (base + size + PAGE - 1) // PAGE):
            self.pages.pop(page, None)

    def read(self, at, n):
        out = bytearray()
        while n > 0 and at // PAGE in self.pages:
            off = at % PAGE
            out += self.pages[at // PAGE][off:off + min(n, PAGE - off)]
            step = min(n, PAGE - off)
            at, n = at + step, n - step
        return bytes(out)

    def write(self, at, piece):
        """How many bytes were written."""
        done = 0
        while done < len(piece) and at // PAGE in self.pages:
            off = at % PAGE
            step = min(len(piece) - done, PAGE - off)
            self.pages[at // PAGE][off:off + step] = piece[done:done + step]
            at, done = at + step, done + step
        return done

    def put(self, at, piece):
        self.map(at, len(piece) or 1)
        self.write(at, piece)

    def get32(self, at):
        return struct.unpack("<I", self.read(at, 4))[0]


class Cpu:
    def __init__(self, memory, entry, stack):
        self.memory = memory
        self.r = dict.fromkeys(REGS, 0)
        self.r.update(eip=entry, esp=stack, eflags=0x202, cs=8, ds=0x23, es=0x23, fs=0x30,
                      gs=0, ss=0x10)
        self.special = bytearray(SPECIAL_SIZE)
        struct.pack_into("<IIII", self.special, 0, 0x80000031, 0, 0x0032700A, 0x2D0)
        self.set_dr(DR6, 0x400)
        struct.pack_into("<HI", self.special, 0x2A, 0x3FF, 0x8003F000)
        struct.pack_into("<HI", self.special, 0x32, 0x7FF, 0x8003F400)
        struct.pack_into("<H", self.special, 0x38, 0x28)

    def set_dr(self, dr6, dr7):
        struct.pack_into("<II", self.special, 0x20, dr6, dr7)

    def dr(self):
        return struct.unpack_from("<II", self.special, 0x20)

    def context(self):
        c = bytearray(CONTEXT_SIZE)
        struct.pack_into("<I", c, 0, 0x1001F)
        for name, at in CONTEXT_AT.items():
            struct.pack_into("<I", c, at, self.r[name])
        return bytes(c)

    def set_context(self, c):
        for name, at in CONTEXT_AT.items():
            self.r[name] = struct.unpack_from("<I", c, at)[0]

    def push(self, value):
        self.r["esp"] = (self.r["esp"] - 4) & 0xFFFFFFFF
        self.memory.put(self.r["esp"], u32(value))

    def pop(self):
        value = self.memory.get32(self.r["esp"])
        self.r["esp"] = (self.r["esp"] + 4) & 0xFFFFFFFF
        return value

    def interrupt(self, routine, argument, trap_return):
        """Leaves what runs for routine(argument), stdcall; trap_return is
        code that goes back: pop eax; iret."""
        for value in (self.r["eflags"] & ~TF, self.r["cs"], self.r["eip"], self.r["eax"],
                      argument, trap_return):
            self.push(value)
        self.r.update(eip=routine, eax=argument)

    def step(self):
        """One instruction. "int3" (nothing was done), "step" when the trace
        flag was on, "bad", or None."""
        r, eip = self.r, self.r["eip"]
        code = self.memory.read(eip, 6).ljust(6, b"\xff")
        op, traced = code[0], r["eflags"] & TF
        imm32 = struct.unpack_from("<i", code, 1)[0]
        n = 1
        if op == 0xCC:
            return "int3"
        if 0x40 <= op < 0x48:
            r[REGS[op - 0x40]] = (r[REGS[op - 0x40]] + 1) & 0xFFFFFFFF
        elif 0x50 <= op < 0x58:
            self.push(r[REGS[op - 0x50]])
        elif 0x58 <= op < 0x60:
            r[REGS[op - 0x58]] = self.pop()
        elif 0xB8 <= op < 0xC0:
            r[REGS[op - 0xB8]], n = imm32 & 0xFFFFFFFF, 5
        elif op == 0x8B and code[1] == 0xEC:
            r["ebp"], n = r["esp"], 2
        elif op in (0xA1, 0xA3):
            n = 5
            if op == 0xA1:
                r["eax"] = self.memory.get32(imm32 & 0xFFFFFFFF)
            else:
                self.memory.write(imm32 & 0xFFFFFFFF, u32(r["eax"]))
        elif op == 0xE8:
            self.push(eip + 5)
            r["eip"], n = (eip + 5 + imm32) & 0xFFFFFFFF, 0
        elif op == 0xEB:
            r["eip"], n = (eip + 2 + struct.unpack("b", code[1:2])[0]) & 0xFFFFFFFF, 0
        elif op in (0xC3, 0xC2):
            r["eip"], n = self.pop(), 0
            if op == 0xC2:
                r["esp"] += struct.unpack_from("<H", code, 1)[0]
        elif op == 0xCF:
            r["eip"], r["cs"], r["eflags"], n = self.pop(), self.pop(), self.pop(), 0
        elif op != 0x90:
            return "bad"
        r["eip"] += n
        if traced:
            r["eflags"] &= ~TF
            return "step"
        return None
