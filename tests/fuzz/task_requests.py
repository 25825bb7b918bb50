"""Requests of the Task service: an answer or a status, never UNKNOWN for what nobody expected.

There is no bundle that Create could find, and so no machine: what lies in a bundle is `config_json`'s, `annotations`'.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import strategies as st

from kata_protos import task_v2_pb2 as task
from kata_py.config.model import Configuration, HypervisorConfig
from kata_py.sandbox.events import EventQueue
from kata_py.shim.service import TaskService
from kata_py.ttrpc.context import Context
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.service import bind
from tests.fuzz.documents import texts
from tests.fuzz.target import Target, mutated, nothing_unexpected, run
from tests.tasks import host_paths

METHODS = (
    "Checkpoint", "CloseIO", "Connect", "Create", "Delete", "Exec", "Kill", "Pause", "Pids", "ResizePty", "Resume",
    "Shutdown", "Start", "State", "Stats", "Update", "Wait",
)  # fmt: skip
_CONFIGURATION = Configuration(HypervisorConfig("fake"), Path("/nowhere"))
_texts = texts.filter(lambda text: text.isprintable() or "\x00" in text).map(
    lambda text: text.encode(errors="ignore").decode()
)
_any = st.builds(AnyMessage, type_url=_texts, value=st.binary(max_size=20))
_ids = st.sampled_from(["c1", "", ".", "..", "a/b", "a" * 300]) | _texts
_bundles = st.sampled_from(["/nowhere", "", "relative", "/\x00", "/" + "a" * 300, "/" + "a/" * 3000])
_messages = st.one_of(
    st.builds(task.CreateTaskRequest, id=_ids, bundle=_bundles, options=_any, stdin=_texts, checkpoint=_texts),
    st.builds(task.ExecProcessRequest, id=_ids, exec_id=_ids, spec=_any, stdout=_texts),
    st.builds(task.UpdateTaskRequest, id=_ids, resources=_any, annotations=st.dictionaries(_texts, _texts, max_size=2)),
    st.builds(task.KillRequest, id=_ids, exec_id=_ids, signal=st.integers(0, (1 << 32) - 1)),
).map(lambda message: message.SerializeToString())


async def _check(case: tuple[str, bytes]) -> None:
    name, payload = case
    if name == "Create" and not _harmless(payload):
        return
    with tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp") as directory:
        top = Path(directory)
        service = TaskService(
            "default",
            events=EventQueue(_publish),
            open_stdio=_no_stdio,
            shut_down=lambda: None,
            load_configuration=lambda named: _CONFIGURATION,
            find_driver=_no_driver,
            paths=host_paths(top, "/kata-py-fuzz"),
        )
        try:
            unary = bind(service.ttrpc_methods()[name]).unary
            assert unary is not None
            await unary(payload, Context("containerd.task.v2.Task", name))
        except StatusError:
            pass
        finally:
            await service.aclose()


def _harmless(payload: bytes) -> bool:
    """Whether Create will find no bundle, whatever the bytes have become."""
    try:
        bundle = task.CreateTaskRequest.FromString(payload).bundle
        return not (Path(bundle) / "config.json").exists()
    except Exception:  # what cannot be decoded, or is no path, is none
        return True


async def _publish(event: object) -> None:
    raise AssertionError(f"nothing has happened, and yet: {event}")


def _no_stdio(*args: object, **kwargs: object) -> Any:
    raise AssertionError("there is no process")


def _no_driver(configuration: Configuration) -> Any:
    raise AssertionError("there is no machine")


def check(case: tuple[str, bytes]) -> None:
    with nothing_unexpected("kata_py.shim.status"):
        run(_check(case))


TARGET = Target(
    "task_requests", st.tuples(st.sampled_from(METHODS), mutated(_messages)), check, lambda data: ("Create", data)
)
