"""Which devices a cgroup of v2 may use: a small program that the kernel asks at each opening and mknod.

v2 has no files for this, so the rules are compiled to eBPF and attached to the cgroup, with which they go.
Source: Linux `include/uapi/linux/bpf.h` (bpf_insn, bpf_cgroup_dev_ctx, bpf_attr), `Documentation/bpf/`;
rules as `Documentation/admin-guide/cgroup-v1/devices.rst` has them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

_SYSTEM_CALL = {"x86_64": 321, "s390x": 351, "aarch64": 280, "ppc64le": 361}
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_TYPE_CGROUP_DEVICE, _ATTACH_DEVICE = 15, 6
_ALLOW_MULTI = 2  # programs of the cgroups above are asked too, and all must agree
_LICENSE = b"Apache-2.0"

_RULE = re.compile(r"(?P<kind>[abc]) (?P<major>\d{1,9}|\*):(?P<minor>\d{1,9}|\*) (?P<access>[rwm]{1,3})")
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7

# Instructions, as their bytes: operation, registers (source << 4 | destination), offset, immediate.
_LOAD, _EXIT = 0x61, 0x95
_AND, _MOVE, _MOVE_REGISTER, _SHIFT_RIGHT = 0x54, 0xB4, 0xBC, 0x74
_JUMP_UNLESS, _JUMP_UNLESS_REGISTER = 0x55, 0x5D
# Registers: the verdict, the context and later what is left of the access, and what is asked for.
_VERDICT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)


class DeviceFilter:
    """The devices that a cgroup of v2, and all below it, may use: all of them until told otherwise.

    Args:
        directory: The cgroup's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program: int | None = None  # its descriptor; the program itself lasts as long as the cgroup

    def allow(self, rules: Iterable[str]) -> None:
        """Allow the devices of these rules, and no others.

        Args:
            rules: In the form of v1's `devices.allow`, such as `c 1:3 rwm`.

        Raises:
            OSError: The kernel refuses, and nothing is changed; or a rule has another form, and the others count.
        """
        blocks, fault = [], None
        for rule in rules:
            try:
                blocks.append(_block(rule))
            except OSError as error:
                fault = error
        program = _load(_program(blocks))
        try:
            self._command(_PROG_ATTACH, program, _ALLOW_MULTI)
        except OSError:
            os.close(program)
            raise
        # Until the last one is gone, what both of them allow is allowed: never more than is meant to be.
        before, self._program = self._program, program
        if before is not None:
            try:
                self._command(_PROG_DETACH, before)
            finally:
                os.close(before)
        if fault is not None:
            raise fault

    def close(self) -> None:
        """Let go of it; what was allowed last stays so."""
        if self._program is not None:
            os.close(self._program)
            self._program = None

    def _command(self, command: int, program: int, flags: int = 0) -> None:
        cgroup = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(command, struct.pack("=IIII", cgroup, program, _ATTACH_DEVICE, flags), str(self._directory))
        finally:
            os.close(cgroup)


def _program(blocks: Iterable[list[bytes]]) -> bytes:
    """Block after block, and a refusal for whatever none of them lets through."""
    blocks = list(blocks)
    if _answer(1) in blocks:
        return b"".join(_answer(1))  # one lets all through; the kernel takes no program with instructions never reached
    begin = [
        _instruction(_LOAD, _CONTEXT << 4 | _KIND),
        _instruction(_AND, _KIND, immediate=0xFFFF),
        _instruction(_LOAD, _CONTEXT << 4 | _WANTED),
        _instruction(_SHIFT_RIGHT, _WANTED, immediate=16),
        _instruction(_LOAD, _CONTEXT << 4 | _MAJOR, offset=4),
        _instruction(_LOAD, _CONTEXT << 4 | _MINOR, offset=8),
    ]
    return b"".join([*begin, *chain.from_iterable(blocks), *_answer(0)])


def _block(rule: str) -> list[bytes]:
    """The instructions that let through what a rule allows, and go on behind themselves with all else.

    Raises:
        OSError: The rule has another form.
    """
    match = _RULE.fullmatch(rule)
    if match is None:
        raise OSError(errno.EINVAL, "this is no rule for a device", rule)
    block = _answer(1)
    for register, name in ((_MINOR, "minor"), (_MAJOR, "major")):
        if match[name] != "*":
            block.insert(0, _instruction(_JUMP_UNLESS, register, offset=len(block), immediate=int(match[name])))
    access = sum(_ACCESS[letter] for letter in set(match["access"]))
    if access != _ALL_ACCESS:
        block = [
            _instruction(_MOVE_REGISTER, _WANTED << 4 | _CONTEXT),
            _instruction(_AND, _CONTEXT, immediate=access),
            _instruction(_JUMP_UNLESS_REGISTER, _WANTED << 4 | _CONTEXT, offset=len(block)),
            *block,
        ]
    if match["kind"] != "a":
        block.insert(0, _instruction(_JUMP_UNLESS, _KIND, offset=len(block), immediate=_KINDS[match["kind"]]))
    return block


def _answer(verdict: int) -> list[bytes]:
    return [_instruction(_MOVE, _VERDICT, immediate=verdict), _instruction(_EXIT)]


def _instruction(operation: int, registers: int = 0, *, offset: int = 0, immediate: int = 0) -> bytes:
    if sys.byteorder == "big":  # so are the two halves of their byte
        registers = registers >> 4 | (registers & 15) << 4
    return struct.pack("=BBhi", operation, registers, offset, immediate)


def _load(code: bytes) -> int:
    """Have the kernel check the program, and return its descriptor."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license = ctypes.create_string_buffer(_LICENSE)
    fields = _TYPE_CGROUP_DEVICE, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license)
    return _bpf(_PROG_LOAD, struct.pack("=IIQQ", *fields), "a cgroup's device filter")


def _bpf(command: int, attributes: bytes, what: str) -> int:
    """bpf(2).

    Raises:
        OSError: It failed, or nobody knows its number on this architecture (ENOSYS).
    """
    machine = os.uname().machine
    system_call = _SYSTEM_CALL.get(machine)
    if system_call is None:
        raise OSError(errno.ENOSYS, f"bpf is not known on {machine}", what)
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result: int = libc.syscall(ctypes.c_long(system_call), ctypes.c_long(command), buffer, ctypes.c_ulong(128))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
