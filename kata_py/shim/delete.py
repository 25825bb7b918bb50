"""`delete`: remove what a shim that is gone left behind, from the bundle and the sandbox's record alone.

containerd runs it when a start half failed, when it cannot reload a shim, and each time it loses a connection:
also in the course of a normal deletion, and for a pod's pause container while other containers run on. So a
shim that answers is never cleaned up after. It is sent Shutdown, which by its contract does nothing while
tasks remain and ends a shim that holds none, which nobody else would end. A shim that does not answer within
`ANSWER_TIMEOUT`, although it answers Connect from memory whatever its sandbox does, is lost to the manager,
which is about to replace the pod: it is killed, and cleaned up after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from kata_protos.task_v2_pb2 import ConnectRequest, DeleteResponse, ShutdownRequest
from kata_protos.task_v2_ttrpc import TaskClient
from kata_py.resource import mount, process
from kata_py.sandbox import failure, shims
from kata_py.sandbox.errors import FailedPrecondition, NotFound
from kata_py.sandbox.pod import Role
from kata_py.sandbox.record import Record, RecordError, program_of
from kata_py.shim import bundle, listener
from kata_py.shim.errors import ShimError, UsageError
from kata_py.shim.invocation import Invocation
from kata_py.ttrpc.address import UnixAddress
from kata_py.ttrpc.client import connect
from kata_py.ttrpc.errors import ConnectError, ConnectionClosed, StatusError
from kata_py.ttrpc.status import Code

# Seconds. containerd gives delete five in all.
ANSWER_TIMEOUT = 2.0  # a shim that serves answers Connect within
SHUTDOWN_TIMEOUT = 1.0  # a shim without tasks ends within; if not, it is busy ending and needs nobody
END_TIMEOUT = 1.0  # a shim without a socket ends within, or is killed
UNWIND_TIMEOUT = 1.5  # after that no further entry of the record is begun

EXIT_STATUS = 128 + signal.SIGKILL  # what every shim's delete answers


def delete(invocation: Invocation) -> bytes:
    """Clean up, and return the serialised DeleteResponse. Idempotent: nothing to do is success.

    Raises:
        ShimError: The id is not valid, or something could not be removed; running it again goes on from there.
        OSError: A mount or file cannot be removed.
    """
    bundle.check_id("id", invocation.id)
    directory = invocation.bundle
    with contextlib.suppress(FileNotFoundError):  # no bundle, nobody to exclude
        if not bundle.lock(directory):
            raise ShimError(f"another process is starting or deleting the shim of {invocation.id} right now")
    if _is_sandbox(directory, invocation.id) and not _delete_sandbox(invocation, directory):
        return _response()
    mount.detach(f"{directory}/{bundle.ROOTFS}")
    bundle.remove(directory, bundle.ADDRESS, bundle.PID)
    return _response()


def _is_sandbox(directory: str, container_id: str) -> bool:
    try:
        return bundle.membership(directory, container_id)[0] is not Role.CONTAINER
    except UsageError:  # no spec to say otherwise: there may still be a sandbox of this id
        return True


def _delete_sandbox(invocation: Invocation, directory: str) -> bool:
    """Remove what is left of a sandbox; False when its shim serves on, and nothing was touched."""
    sandbox_id = invocation.id
    sockets = {invocation.socket or listener.path_of(invocation.address, invocation.namespace, sandbox_id)}
    sockets |= {address.removeprefix("unix://") for address in _content(directory, bundle.ADDRESS)}
    pids = {int(text) for text in _content(directory, bundle.PID) if text.isdecimal()}
    hung = False
    for path in sockets:
        pid = listener.probe(path)
        if pid is None:
            continue
        if not asyncio.run(_answers(path, sandbox_id)):
            hung = True
            _end(sandbox_id, {pid, *pids}, patience=0)
        elif listener.probe(path) is not None:
            return False
    try:
        with Record.claimed(sandbox_id) as record:
            _end(sandbox_id, {record.shim.pid, *pids}, patience=END_TIMEOUT)
            record = Record.load(sandbox_id)  # what the shim did meanwhile
            if lost := failure.of_loss(record, hung=hung):
                failure.keep(lost)
            left = record.unwind(timeout=UNWIND_TIMEOUT)
    except NotFound:
        _end(sandbox_id, pids, patience=END_TIMEOUT)
    except RecordError as error:
        _hand_over(sandbox_id)
        raise ShimError(f"what to undo is not known: {error}; remove the record when nothing of it is left") from error
    except FailedPrecondition as error:
        raise ShimError(str(error)) from error
    else:
        if left:
            raise ShimError(f"sandbox {sandbox_id} is not all gone: {'; '.join(map(str, left))}")
    for path in sockets:
        listener.remove_dead(path)
        shims.forget(path)
    return True


def _hand_over(sandbox_id: str) -> None:
    """Have the program delete that wrote the record, if it is another and still there.

    After a roll-back it may be of a later version, whose records this one cannot read.
    """
    program = program_of(sandbox_id)
    if program and program != os.path.realpath(sys.argv[0]) and os.access(program, os.X_OK):
        os.execv(program, [program, *sys.argv[1:]])


async def _answers(path: str, sandbox_id: str) -> bool:
    """Send the shim Shutdown, if it is alive enough to answer Connect; whether it is.

    A shim that heeds Shutdown has removed its socket when it answers.
    """
    try:
        async with connect(UnixAddress(path), timeout=ANSWER_TIMEOUT) as client:
            task = TaskClient(client)
            try:
                await task.Connect(ConnectRequest(id=sandbox_id), timeout=ANSWER_TIMEOUT)
            except StatusError as error:
                if error.code is Code.DEADLINE_EXCEEDED:
                    return False
            with contextlib.suppress(StatusError):
                await task.Shutdown(ShutdownRequest(id=sandbox_id), timeout=SHUTDOWN_TIMEOUT)
    except (ConnectError, ConnectionClosed):
        pass  # it has just gone
    return True


def _content(directory: str, name: str) -> list[str]:
    try:
        return [Path(directory, name).read_text()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _end(sandbox_id: str, pids: set[int], *, patience: float) -> None:
    """Wait for the end of a shim that nobody can reach any more, and after `patience` seconds kill it.

    Raises:
        ShimError: It outlived that.
    """
    for pid in pids:
        born = process.start_time(pid)
        if born is None or not _is_shim(pid, sandbox_id):
            continue
        try:
            process.kill(pid, born, 0, name="shim", timeout=patience)
        except process.KillError:
            pass
        try:
            process.kill(pid, born, signal.SIGKILL, name="shim", timeout=END_TIMEOUT)
        except process.KillError as error:
            raise ShimError(str(error)) from error


def _is_shim(pid: int, sandbox_id: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return sandbox_id.encode() in words


def _response() -> bytes:
    response = DeleteResponse(exit_status=EXIT_STATUS)
    response.exited_at.FromNanoseconds(time.time_ns())
    return response.SerializeToString()
