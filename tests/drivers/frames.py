"""The wire between two tap devices: whatever one side sends, the other receives. A program of its own.

Usage: python frames.py WHOSE GUEST TAP...   (descriptors, inherited; WHOSE is for people)
"""

from __future__ import annotations

import os
import selectors
import sys

FRAME_MAX = 1 << 17  # bytes: the largest frame of the kernel's, and its header


def pump(guest: int, taps: list[int]) -> None:
    """Pass frames on until one of the devices is gone. What does not fit is lost, as on any wire."""
    with selectors.DefaultSelector() as selector:
        for tap in taps:
            selector.register(tap, selectors.EVENT_READ, guest)
        selector.register(guest, selectors.EVENT_READ, taps[0])
        while True:
            for key, _ in selector.select():
                try:
                    frame = os.read(key.fd, FRAME_MAX)
                except BlockingIOError:
                    continue
                except OSError:
                    return
                try:
                    os.write(key.data, frame)
                except OSError:
                    pass  # the other side is down, or full


if __name__ == "__main__":
    guest, *taps = map(int, sys.argv[2:])
    pump(guest, taps)
