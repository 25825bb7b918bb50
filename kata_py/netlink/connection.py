"""A netlink socket: requests to the kernel, and what it answers.

Calls block, for no longer than the kernel takes: it answers before it returns from the sending. They raise OSError
with what the kernel says. Source: netlink(7), Linux `include/uapi/linux/netlink.h`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Self

from kata_py.netlink import wire
from kata_py.netlink.wire import Message

_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 10, 11

_TIMEOUT = 5.0  # seconds for an answer, which is there at once unless the kernel's lock on the network is held
_DUMPS = 10  # times that a list is read that changes meanwhile
_RECEIVE = 1 << 16  # bytes; the kernel's datagrams have 32 KiB at most


class Connection:
    """A connection to a part of the kernel, in the network of the calling thread; for one thread at a time.

    Args:
        protocol: NETLINK_*, the part.

    Raises:
        OSError: There is no such part.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            self._socket.settimeout(_TIMEOUT)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def change(self, kind: int, flags: int, payload: bytes, subject: str) -> None:
        """Ask for a change of any kind.

        Args:
            kind: The message's type.
            flags: NLM_F_*, beyond those that each request has.
            payload: What follows the message's header.
            subject: What is changed, for an error.
        """
        for message in self._exchange(kind, flags | wire.NLM_F_ACK, payload, subject):
            if message.type == wire.NLMSG_ERROR:
                _raise_for(message, subject)
                return

    def ask(self, kind: int, payload: bytes, subject: str) -> bytes:
        """The payload of the answer to a question that has one.

        Args:
            kind: The message's type.
            payload: What follows the message's header.
            subject: What is asked for, for an error.
        """
        for message in self._exchange(kind, 0, payload, subject):
            if message.type == wire.NLMSG_ERROR:
                _raise_for(message, subject)
            return message.payload
        raise AssertionError  # an exchange ends when its user does

    def dump(self, kind: int, payload: bytes, subject: str) -> list[bytes]:
        """The payloads of a list of any kind.

        Args:
            kind: The message's type.
            payload: What follows the message's header.
            subject: What is listed, for an error.
        """
        for _ in range(_DUMPS):
            found, interrupted = [], False
            for message in self._exchange(kind, wire.NLM_F_DUMP, payload, subject):
                interrupted |= bool(message.flags & wire.NLM_F_DUMP_INTR)
                if message.type in (wire.NLMSG_ERROR, wire.NLMSG_DONE):
                    _raise_for(message, subject)
                    break
                found.append(message.payload)
            if not interrupted:
                return found
        raise OSError(errno.EAGAIN, f"the list changed {_DUMPS} times while it was read", subject)

    def _exchange(self, kind: int, flags: int, payload: bytes, subject: str) -> Iterator[Message]:
        """Send a request; the messages that answer it, until the caller has enough."""
        self._sequence += 1
        request = Message(kind, flags | wire.NLM_F_REQUEST, self._sequence, 0, payload)
        try:
            self._socket.send(wire.encode(request))
            while True:
                for message in wire.decode(self._socket.recv(_RECEIVE)):
                    if message.sequence == self._sequence:
                        yield message
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"the kernel did not answer within {_TIMEOUT:g} s", subject) from None


def _raise_for(message: Message, subject: str) -> None:
    number, words = wire.outcome(message)
    if number:
        raise OSError(number, f"{os.strerror(number)} ({words})" if words else os.strerror(number), subject)
