"""What a pod VM's console shows of the forwarder's start."""

from __future__ import annotations

import os
import time


def tell(what: str) -> None:
    """Write that a stage is done to stderr, which is the console of our image, with the seconds since boot."""
    os.write(2, f"forwarder: {what} {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s\n".encode())
