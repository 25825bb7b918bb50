"""Beside PID 1 of a peer pod's guest: the process that the node talks to (guest/peer-side restarts it)."""

import sys

_archive, stdlib, extensions = sys.path
sys.path[:] = [extensions, "/usr/lib/kata-agent", stdlib, "/usr/lib/python3/dist-packages"]

from kata_caa.forwarder.boot import main, make_room  # noqa: E402 found by what stands above

sys.exit(main(make_room))
