"""The services of kata_protos/task_v2.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from google.protobuf import empty_pb2
from kata_protos import task_v2_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class TaskService(abc.ABC):
    """An empty exec_id is the container's first process."""

    ttrpc_name = "containerd.task.v2.Task"

    @abc.abstractmethod
    async def State(self, request: task_v2_pb2.StateRequest, context: Context) -> task_v2_pb2.StateResponse:
        """containerd.task.v2.Task/State."""

    @abc.abstractmethod
    async def Create(self, request: task_v2_pb2.CreateTaskRequest, context: Context) -> task_v2_pb2.CreateTaskResponse:
        """containerd.task.v2.Task/Create."""

    @abc.abstractmethod
    async def Start(self, request: task_v2_pb2.StartRequest, context: Context) -> task_v2_pb2.StartResponse:
        """containerd.task.v2.Task/Start."""

    @abc.abstractmethod
    async def Delete(self, request: task_v2_pb2.DeleteRequest, context: Context) -> task_v2_pb2.DeleteResponse:
        """containerd.task.v2.Task/Delete."""

    @abc.abstractmethod
    async def Pids(self, request: task_v2_pb2.PidsRequest, context: Context) -> task_v2_pb2.PidsResponse:
        """containerd.task.v2.Task/Pids."""

    @abc.abstractmethod
    async def Pause(self, request: task_v2_pb2.PauseRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Pause."""

    @abc.abstractmethod
    async def Resume(self, request: task_v2_pb2.ResumeRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Resume."""

    @abc.abstractmethod
    async def Checkpoint(self, request: task_v2_pb2.CheckpointTaskRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Checkpoint."""

    @abc.abstractmethod
    async def Kill(self, request: task_v2_pb2.KillRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Kill."""

    @abc.abstractmethod
    async def Exec(self, request: task_v2_pb2.ExecProcessRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Exec."""

    @abc.abstractmethod
    async def ResizePty(self, request: task_v2_pb2.ResizePtyRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/ResizePty."""

    @abc.abstractmethod
    async def CloseIO(self, request: task_v2_pb2.CloseIORequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/CloseIO."""

    @abc.abstractmethod
    async def Update(self, request: task_v2_pb2.UpdateTaskRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Update."""

    @abc.abstractmethod
    async def Wait(self, request: task_v2_pb2.WaitRequest, context: Context) -> task_v2_pb2.WaitResponse:
        """containerd.task.v2.Task/Wait."""

    @abc.abstractmethod
    async def Stats(self, request: task_v2_pb2.StatsRequest, context: Context) -> task_v2_pb2.StatsResponse:
        """containerd.task.v2.Task/Stats."""

    @abc.abstractmethod
    async def Connect(self, request: task_v2_pb2.ConnectRequest, context: Context) -> task_v2_pb2.ConnectResponse:
        """containerd.task.v2.Task/Connect."""

    @abc.abstractmethod
    async def Shutdown(self, request: task_v2_pb2.ShutdownRequest, context: Context) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Shutdown."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "State": (self.State, task_v2_pb2.StateRequest, False, False),
            "Create": (self.Create, task_v2_pb2.CreateTaskRequest, False, False),
            "Start": (self.Start, task_v2_pb2.StartRequest, False, False),
            "Delete": (self.Delete, task_v2_pb2.DeleteRequest, False, False),
            "Pids": (self.Pids, task_v2_pb2.PidsRequest, False, False),
            "Pause": (self.Pause, task_v2_pb2.PauseRequest, False, False),
            "Resume": (self.Resume, task_v2_pb2.ResumeRequest, False, False),
            "Checkpoint": (self.Checkpoint, task_v2_pb2.CheckpointTaskRequest, False, False),
            "Kill": (self.Kill, task_v2_pb2.KillRequest, False, False),
            "Exec": (self.Exec, task_v2_pb2.ExecProcessRequest, False, False),
            "ResizePty": (self.ResizePty, task_v2_pb2.ResizePtyRequest, False, False),
            "CloseIO": (self.CloseIO, task_v2_pb2.CloseIORequest, False, False),
            "Update": (self.Update, task_v2_pb2.UpdateTaskRequest, False, False),
            "Wait": (self.Wait, task_v2_pb2.WaitRequest, False, False),
            "Stats": (self.Stats, task_v2_pb2.StatsRequest, False, False),
            "Connect": (self.Connect, task_v2_pb2.ConnectRequest, False, False),
            "Shutdown": (self.Shutdown, task_v2_pb2.ShutdownRequest, False, False),
        }


class TaskClient:
    """Calls containerd.task.v2.Task over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def State(
        self,
        request: task_v2_pb2.StateRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.StateResponse:
        """containerd.task.v2.Task/State."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "State", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.StateResponse.FromString(answer)

    async def Create(
        self,
        request: task_v2_pb2.CreateTaskRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.CreateTaskResponse:
        """containerd.task.v2.Task/Create."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Create", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.CreateTaskResponse.FromString(answer)

    async def Start(
        self,
        request: task_v2_pb2.StartRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.StartResponse:
        """containerd.task.v2.Task/Start."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Start", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.StartResponse.FromString(answer)

    async def Delete(
        self,
        request: task_v2_pb2.DeleteRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.DeleteResponse:
        """containerd.task.v2.Task/Delete."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Delete", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.DeleteResponse.FromString(answer)

    async def Pids(
        self,
        request: task_v2_pb2.PidsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.PidsResponse:
        """containerd.task.v2.Task/Pids."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Pids", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.PidsResponse.FromString(answer)

    async def Pause(
        self,
        request: task_v2_pb2.PauseRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Pause."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Pause", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def Resume(
        self,
        request: task_v2_pb2.ResumeRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Resume."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Resume", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def Checkpoint(
        self,
        request: task_v2_pb2.CheckpointTaskRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Checkpoint."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Checkpoint", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def Kill(
        self,
        request: task_v2_pb2.KillRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Kill."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Kill", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def Exec(
        self,
        request: task_v2_pb2.ExecProcessRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Exec."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Exec", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def ResizePty(
        self,
        request: task_v2_pb2.ResizePtyRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/ResizePty."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "ResizePty", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def CloseIO(
        self,
        request: task_v2_pb2.CloseIORequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/CloseIO."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "CloseIO", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def Update(
        self,
        request: task_v2_pb2.UpdateTaskRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Update."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Update", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def Wait(
        self,
        request: task_v2_pb2.WaitRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.WaitResponse:
        """containerd.task.v2.Task/Wait."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Wait", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.WaitResponse.FromString(answer)

    async def Stats(
        self,
        request: task_v2_pb2.StatsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.StatsResponse:
        """containerd.task.v2.Task/Stats."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Stats", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.StatsResponse.FromString(answer)

    async def Connect(
        self,
        request: task_v2_pb2.ConnectRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> task_v2_pb2.ConnectResponse:
        """containerd.task.v2.Task/Connect."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Connect", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return task_v2_pb2.ConnectResponse.FromString(answer)

    async def Shutdown(
        self,
        request: task_v2_pb2.ShutdownRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """containerd.task.v2.Task/Shutdown."""
        answer = await self._client.call(
            "containerd.task.v2.Task", "Shutdown", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)
