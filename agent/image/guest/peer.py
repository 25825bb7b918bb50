"""Beside PID 1 of a peer pod's guest: the process that the node talks to (guest/peer-side restarts it)."""

import importlib
import sys

_archive, stdlib, extensions = sys.path
sys.path[:] = [extensions, "/usr/lib/kata-agent", stdlib, "/usr/lib/python3/dist-packages"]

sys.exit(importlib.import_module("kata_caa.forwarder.boot").main())
