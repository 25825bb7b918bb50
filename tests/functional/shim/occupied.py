"""A Task service that always has a task, for a daemon that must not be disturbed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty

from kata_protos.task_v2_pb2 import ConnectRequest, ConnectResponse, ShutdownRequest
from kata_protos.task_v2_ttrpc import TaskService
from kata_py.sandbox.events import EventQueue
from kata_py.sandbox.stdio import StdioOpener
from kata_py.ttrpc.context import Context


class OccupiedTasks(TaskService):
    """Answers Connect, and Shutdown with nothing done."""

    def __init__(self) -> None:
        self.vacant = asyncio.Event()

    async def Connect(self, request: ConnectRequest, context: Context) -> ConnectResponse:
        return ConnectResponse(shim_pid=os.getpid(), task_pid=os.getpid())

    async def Shutdown(self, request: ShutdownRequest, context: Context) -> Empty:
        return Empty()

    async def aclose(self) -> None:
        pass

    async def drained(self, timeout: float) -> None:
        pass


OccupiedTasks.__abstractmethods__ = frozenset()  # the rest is never called


def make_tasks(events: EventQueue, open_stdio: StdioOpener, shut_down: Callable[[], None]) -> OccupiedTasks:
    return OccupiedTasks()
