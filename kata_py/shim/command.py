"""`containerd-shim-kata-v2`: the command line that managers write, and what each form of it runs.

A manager waits for `start`, so every import beyond the standard library's cheap part is put off until it is
known to be needed.
"""

from __future__ import annotations

import os
import sys

from kata_py.shim.errors import ShimError
from kata_py.shim.invocation import Invocation
from kata_py.shim.listener import LISTEN_FD, is_listening

NAME = "containerd-shim-kata-v2"
RUNTIME = "io.containerd.kata.v2"

_USAGE = f"""\
{NAME} is started by containerd or CRI-O, once for each pod:
  -namespace NS -address GRPC -publish-binary PATH -id ID [-debug] start    start a sandbox's shim
  … [-bundle PATH] delete                                                   clean up after a dead one
  -info | -v | features                                                     say what it is, and what it can do
"""


def main() -> int:
    """Run the command line and return the exit code; on failure stderr has one line."""
    action = ""
    try:
        invocation = Invocation(sys.argv[1:])
        action = invocation.action
        return _run(invocation)
    except (ShimError, OSError) as error:
        if action == "start":
            from kata_py.shim.post_mortem import keep

            keep(invocation, error)
        sys.stderr.write(f"{NAME}{action and ' '}{action}: {error}\n")
        return 1


def _run(invocation: Invocation) -> int:
    if invocation.switches & {"v", "version"}:
        sys.stdout.write(f"{NAME} ({RUNTIME}): version {version()}\n")
        return 0
    if "info" in invocation.switches:
        return _print(_info())
    if invocation.action == "start":
        from kata_py.shim.start import start

        return _print(start(invocation).encode())
    if invocation.action == "delete":
        from kata_py.shim.delete import delete

        return _print(delete(invocation))
    if invocation.action == "features":
        from kata_py.shim import features

        return _print(features.document())
    if not is_listening(LISTEN_FD):
        sys.stderr.write(_USAGE)
        return 2
    from kata_py.shim.daemon import serve

    return serve(invocation)


def version() -> str:
    """The version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("kata-py")
    except PackageNotFoundError:
        return "unknown (not installed as a distribution)"


def _info() -> bytes:
    from google.protobuf.any_pb2 import Any

    from kata_protos import introspection_pb2
    from kata_py.shim import features

    return introspection_pb2.RuntimeInfo(
        name=RUNTIME,
        version=introspection_pb2.RuntimeVersion(version=version()),
        features=Any(type_url=features.TYPE, value=features.document()),
    ).SerializeToString()


def _print(answer: bytes) -> int:
    os.write(sys.stdout.fileno(), answer)
    return 0
