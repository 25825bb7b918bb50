"""Beside PID 1 of a peer pod's guest: the process that the node talks to (guest/peer-side restarts it)."""

import sys

_archive, stdlib, extensions = sys.path
sys.path[:] = [extensions, "/usr/lib/kata-agent", stdlib, "/usr/lib/python3/dist-packages"]

from kata_caa.errors import AdaptorError  # noqa: E402 found by what stands above
from kata_caa.forwarder import scratch  # noqa: E402
from kata_caa.forwarder.boot import main  # noqa: E402

try:
    space = scratch.mount()  # before there is somebody who could ask for an image
    if space is not None:
        sys.stderr.write(f"kata-peer: {space.size >> 20} MiB of {space.disk} for images\n")
except AdaptorError as error:
    sys.stderr.write(f"kata-peer: images are kept in memory: {error}\n")

sys.exit(main())
