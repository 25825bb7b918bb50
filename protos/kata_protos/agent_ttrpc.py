"""The services of kata_protos/agent.proto. Written by protoc-gen-ttrpc-python; do not edit."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from google.protobuf import empty_pb2
from kata_protos import agent_pb2
from kata_protos import agent_types_pb2
from kata_protos import csi_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_py.ttrpc.client import Caller
    from kata_py.ttrpc.context import Context
    from kata_py.ttrpc.service import Entry


class AgentService(abc.ABC):
    """Serves grpc.AgentService."""

    ttrpc_name = "grpc.AgentService"

    @abc.abstractmethod
    async def CreateContainer(self, request: agent_pb2.CreateContainerRequest, context: Context) -> empty_pb2.Empty:
        """Containers and their processes. An empty exec_id is the container's first process."""

    @abc.abstractmethod
    async def StartContainer(self, request: agent_pb2.StartContainerRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/StartContainer."""

    @abc.abstractmethod
    async def RemoveContainer(self, request: agent_pb2.RemoveContainerRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/RemoveContainer."""

    @abc.abstractmethod
    async def ExecProcess(self, request: agent_pb2.ExecProcessRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/ExecProcess."""

    @abc.abstractmethod
    async def SignalProcess(self, request: agent_pb2.SignalProcessRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/SignalProcess."""

    @abc.abstractmethod
    async def WaitProcess(self, request: agent_pb2.WaitProcessRequest, context: Context) -> agent_pb2.WaitProcessResponse:
        """grpc.AgentService/WaitProcess."""

    @abc.abstractmethod
    async def UpdateContainer(self, request: agent_pb2.UpdateContainerRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/UpdateContainer."""

    @abc.abstractmethod
    async def UpdateEphemeralMounts(self, request: agent_pb2.UpdateEphemeralMountsRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/UpdateEphemeralMounts."""

    @abc.abstractmethod
    async def StatsContainer(self, request: agent_pb2.StatsContainerRequest, context: Context) -> agent_pb2.StatsContainerResponse:
        """grpc.AgentService/StatsContainer."""

    @abc.abstractmethod
    async def PauseContainer(self, request: agent_pb2.PauseContainerRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/PauseContainer."""

    @abc.abstractmethod
    async def ResumeContainer(self, request: agent_pb2.ResumeContainerRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/ResumeContainer."""

    @abc.abstractmethod
    async def RemoveStaleVirtiofsShareMounts(self, request: agent_pb2.RemoveStaleVirtiofsShareMountsRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/RemoveStaleVirtiofsShareMounts."""

    @abc.abstractmethod
    async def GetDiagnosticData(self, request: agent_pb2.GetDiagnosticDataRequest, context: Context) -> agent_pb2.GetDiagnosticDataResponse:
        """grpc.AgentService/GetDiagnosticData."""

    @abc.abstractmethod
    async def WriteStdin(self, request: agent_pb2.WriteStreamRequest, context: Context) -> agent_pb2.WriteStreamResponse:
        """Standard streams. Writing nothing ends stdin; reading nothing is the stream's end."""

    @abc.abstractmethod
    async def ReadStdout(self, request: agent_pb2.ReadStreamRequest, context: Context) -> agent_pb2.ReadStreamResponse:
        """grpc.AgentService/ReadStdout."""

    @abc.abstractmethod
    async def ReadStderr(self, request: agent_pb2.ReadStreamRequest, context: Context) -> agent_pb2.ReadStreamResponse:
        """grpc.AgentService/ReadStderr."""

    @abc.abstractmethod
    async def CloseStdin(self, request: agent_pb2.CloseStdinRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/CloseStdin."""

    @abc.abstractmethod
    async def TtyWinResize(self, request: agent_pb2.TtyWinResizeRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/TtyWinResize."""

    @abc.abstractmethod
    async def UpdateInterface(self, request: agent_pb2.UpdateInterfaceRequest, context: Context) -> agent_types_pb2.Interface:
        """The guest's network."""

    @abc.abstractmethod
    async def UpdateRoutes(self, request: agent_pb2.UpdateRoutesRequest, context: Context) -> agent_pb2.Routes:
        """grpc.AgentService/UpdateRoutes."""

    @abc.abstractmethod
    async def ListInterfaces(self, request: agent_pb2.ListInterfacesRequest, context: Context) -> agent_pb2.Interfaces:
        """grpc.AgentService/ListInterfaces."""

    @abc.abstractmethod
    async def ListRoutes(self, request: agent_pb2.ListRoutesRequest, context: Context) -> agent_pb2.Routes:
        """grpc.AgentService/ListRoutes."""

    @abc.abstractmethod
    async def AddARPNeighbors(self, request: agent_pb2.AddARPNeighborsRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/AddARPNeighbors."""

    @abc.abstractmethod
    async def GetIPTables(self, request: agent_pb2.GetIPTablesRequest, context: Context) -> agent_pb2.GetIPTablesResponse:
        """grpc.AgentService/GetIPTables."""

    @abc.abstractmethod
    async def SetIPTables(self, request: agent_pb2.SetIPTablesRequest, context: Context) -> agent_pb2.SetIPTablesResponse:
        """grpc.AgentService/SetIPTables."""

    @abc.abstractmethod
    async def GetMetrics(self, request: agent_pb2.GetMetricsRequest, context: Context) -> agent_pb2.Metrics:
        """Metrics, and the guest's memory agent."""

    @abc.abstractmethod
    async def MemAgentMemcgSet(self, request: agent_pb2.MemAgentMemcgConfig, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/MemAgentMemcgSet."""

    @abc.abstractmethod
    async def MemAgentCompactSet(self, request: agent_pb2.MemAgentCompactConfig, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/MemAgentCompactSet."""

    @abc.abstractmethod
    async def CreateSandbox(self, request: agent_pb2.CreateSandboxRequest, context: Context) -> empty_pb2.Empty:
        """The sandbox and the machine under it."""

    @abc.abstractmethod
    async def DestroySandbox(self, request: agent_pb2.DestroySandboxRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/DestroySandbox."""

    @abc.abstractmethod
    async def OnlineCPUMem(self, request: agent_pb2.OnlineCPUMemRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/OnlineCPUMem."""

    @abc.abstractmethod
    async def ReseedRandomDev(self, request: agent_pb2.ReseedRandomDevRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/ReseedRandomDev."""

    @abc.abstractmethod
    async def GetGuestDetails(self, request: agent_pb2.GuestDetailsRequest, context: Context) -> agent_pb2.GuestDetailsResponse:
        """grpc.AgentService/GetGuestDetails."""

    @abc.abstractmethod
    async def MemHotplugByProbe(self, request: agent_pb2.MemHotplugByProbeRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/MemHotplugByProbe."""

    @abc.abstractmethod
    async def SetGuestDateTime(self, request: agent_pb2.SetGuestDateTimeRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/SetGuestDateTime."""

    @abc.abstractmethod
    async def CopyFile(self, request: agent_pb2.CopyFileRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/CopyFile."""

    @abc.abstractmethod
    async def GetOOMEvent(self, request: agent_pb2.GetOOMEventRequest, context: Context) -> agent_pb2.OOMEvent:
        """grpc.AgentService/GetOOMEvent."""

    @abc.abstractmethod
    async def AddSwap(self, request: agent_pb2.AddSwapRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/AddSwap."""

    @abc.abstractmethod
    async def AddSwapPath(self, request: agent_pb2.AddSwapPathRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/AddSwapPath."""

    @abc.abstractmethod
    async def GetVolumeStats(self, request: agent_pb2.VolumeStatsRequest, context: Context) -> csi_pb2.VolumeStatsResponse:
        """grpc.AgentService/GetVolumeStats."""

    @abc.abstractmethod
    async def ResizeVolume(self, request: agent_pb2.ResizeVolumeRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/ResizeVolume."""

    @abc.abstractmethod
    async def SetPolicy(self, request: agent_pb2.SetPolicyRequest, context: Context) -> empty_pb2.Empty:
        """grpc.AgentService/SetPolicy."""

    def ttrpc_methods(self) -> Mapping[str, Entry]:
        """By name: handler, request type, whether the client streams, whether the server does."""
        return {
            "CreateContainer": (self.CreateContainer, agent_pb2.CreateContainerRequest, False, False),
            "StartContainer": (self.StartContainer, agent_pb2.StartContainerRequest, False, False),
            "RemoveContainer": (self.RemoveContainer, agent_pb2.RemoveContainerRequest, False, False),
            "ExecProcess": (self.ExecProcess, agent_pb2.ExecProcessRequest, False, False),
            "SignalProcess": (self.SignalProcess, agent_pb2.SignalProcessRequest, False, False),
            "WaitProcess": (self.WaitProcess, agent_pb2.WaitProcessRequest, False, False),
            "UpdateContainer": (self.UpdateContainer, agent_pb2.UpdateContainerRequest, False, False),
            "UpdateEphemeralMounts": (self.UpdateEphemeralMounts, agent_pb2.UpdateEphemeralMountsRequest, False, False),
            "StatsContainer": (self.StatsContainer, agent_pb2.StatsContainerRequest, False, False),
            "PauseContainer": (self.PauseContainer, agent_pb2.PauseContainerRequest, False, False),
            "ResumeContainer": (self.ResumeContainer, agent_pb2.ResumeContainerRequest, False, False),
            "RemoveStaleVirtiofsShareMounts": (self.RemoveStaleVirtiofsShareMounts, agent_pb2.RemoveStaleVirtiofsShareMountsRequest, False, False),
            "GetDiagnosticData": (self.GetDiagnosticData, agent_pb2.GetDiagnosticDataRequest, False, False),
            "WriteStdin": (self.WriteStdin, agent_pb2.WriteStreamRequest, False, False),
            "ReadStdout": (self.ReadStdout, agent_pb2.ReadStreamRequest, False, False),
            "ReadStderr": (self.ReadStderr, agent_pb2.ReadStreamRequest, False, False),
            "CloseStdin": (self.CloseStdin, agent_pb2.CloseStdinRequest, False, False),
            "TtyWinResize": (self.TtyWinResize, agent_pb2.TtyWinResizeRequest, False, False),
            "UpdateInterface": (self.UpdateInterface, agent_pb2.UpdateInterfaceRequest, False, False),
            "UpdateRoutes": (self.UpdateRoutes, agent_pb2.UpdateRoutesRequest, False, False),
            "ListInterfaces": (self.ListInterfaces, agent_pb2.ListInterfacesRequest, False, False),
            "ListRoutes": (self.ListRoutes, agent_pb2.ListRoutesRequest, False, False),
            "AddARPNeighbors": (self.AddARPNeighbors, agent_pb2.AddARPNeighborsRequest, False, False),
            "GetIPTables": (self.GetIPTables, agent_pb2.GetIPTablesRequest, False, False),
            "SetIPTables": (self.SetIPTables, agent_pb2.SetIPTablesRequest, False, False),
            "GetMetrics": (self.GetMetrics, agent_pb2.GetMetricsRequest, False, False),
            "MemAgentMemcgSet": (self.MemAgentMemcgSet, agent_pb2.MemAgentMemcgConfig, False, False),
            "MemAgentCompactSet": (self.MemAgentCompactSet, agent_pb2.MemAgentCompactConfig, False, False),
            "CreateSandbox": (self.CreateSandbox, agent_pb2.CreateSandboxRequest, False, False),
            "DestroySandbox": (self.DestroySandbox, agent_pb2.DestroySandboxRequest, False, False),
            "OnlineCPUMem": (self.OnlineCPUMem, agent_pb2.OnlineCPUMemRequest, False, False),
            "ReseedRandomDev": (self.ReseedRandomDev, agent_pb2.ReseedRandomDevRequest, False, False),
            "GetGuestDetails": (self.GetGuestDetails, agent_pb2.GuestDetailsRequest, False, False),
            "MemHotplugByProbe": (self.MemHotplugByProbe, agent_pb2.MemHotplugByProbeRequest, False, False),
            "SetGuestDateTime": (self.SetGuestDateTime, agent_pb2.SetGuestDateTimeRequest, False, False),
            "CopyFile": (self.CopyFile, agent_pb2.CopyFileRequest, False, False),
            "GetOOMEvent": (self.GetOOMEvent, agent_pb2.GetOOMEventRequest, False, False),
            "AddSwap": (self.AddSwap, agent_pb2.AddSwapRequest, False, False),
            "AddSwapPath": (self.AddSwapPath, agent_pb2.AddSwapPathRequest, False, False),
            "GetVolumeStats": (self.GetVolumeStats, agent_pb2.VolumeStatsRequest, False, False),
            "ResizeVolume": (self.ResizeVolume, agent_pb2.ResizeVolumeRequest, False, False),
            "SetPolicy": (self.SetPolicy, agent_pb2.SetPolicyRequest, False, False),
        }


class AgentClient:
    """Calls grpc.AgentService over a connection, which stays its owner's."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    async def CreateContainer(
        self,
        request: agent_pb2.CreateContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """Containers and their processes. An empty exec_id is the container's first process."""
        answer = await self._client.call(
            "grpc.AgentService", "CreateContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def StartContainer(
        self,
        request: agent_pb2.StartContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/StartContainer."""
        answer = await self._client.call(
            "grpc.AgentService", "StartContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def RemoveContainer(
        self,
        request: agent_pb2.RemoveContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/RemoveContainer."""
        answer = await self._client.call(
            "grpc.AgentService", "RemoveContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def ExecProcess(
        self,
        request: agent_pb2.ExecProcessRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/ExecProcess."""
        answer = await self._client.call(
            "grpc.AgentService", "ExecProcess", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def SignalProcess(
        self,
        request: agent_pb2.SignalProcessRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/SignalProcess."""
        answer = await self._client.call(
            "grpc.AgentService", "SignalProcess", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def WaitProcess(
        self,
        request: agent_pb2.WaitProcessRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.WaitProcessResponse:
        """grpc.AgentService/WaitProcess."""
        answer = await self._client.call(
            "grpc.AgentService", "WaitProcess", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.WaitProcessResponse.FromString(answer)

    async def UpdateContainer(
        self,
        request: agent_pb2.UpdateContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/UpdateContainer."""
        answer = await self._client.call(
            "grpc.AgentService", "UpdateContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def UpdateEphemeralMounts(
        self,
        request: agent_pb2.UpdateEphemeralMountsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/UpdateEphemeralMounts."""
        answer = await self._client.call(
            "grpc.AgentService", "UpdateEphemeralMounts", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def StatsContainer(
        self,
        request: agent_pb2.StatsContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.StatsContainerResponse:
        """grpc.AgentService/StatsContainer."""
        answer = await self._client.call(
            "grpc.AgentService", "StatsContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.StatsContainerResponse.FromString(answer)

    async def PauseContainer(
        self,
        request: agent_pb2.PauseContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/PauseContainer."""
        answer = await self._client.call(
            "grpc.AgentService", "PauseContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def ResumeContainer(
        self,
        request: agent_pb2.ResumeContainerRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/ResumeContainer."""
        answer = await self._client.call(
            "grpc.AgentService", "ResumeContainer", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def RemoveStaleVirtiofsShareMounts(
        self,
        request: agent_pb2.RemoveStaleVirtiofsShareMountsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/RemoveStaleVirtiofsShareMounts."""
        answer = await self._client.call(
            "grpc.AgentService", "RemoveStaleVirtiofsShareMounts", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def GetDiagnosticData(
        self,
        request: agent_pb2.GetDiagnosticDataRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.GetDiagnosticDataResponse:
        """grpc.AgentService/GetDiagnosticData."""
        answer = await self._client.call(
            "grpc.AgentService", "GetDiagnosticData", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.GetDiagnosticDataResponse.FromString(answer)

    async def WriteStdin(
        self,
        request: agent_pb2.WriteStreamRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.WriteStreamResponse:
        """Standard streams. Writing nothing ends stdin; reading nothing is the stream's end."""
        answer = await self._client.call(
            "grpc.AgentService", "WriteStdin", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.WriteStreamResponse.FromString(answer)

    async def ReadStdout(
        self,
        request: agent_pb2.ReadStreamRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.ReadStreamResponse:
        """grpc.AgentService/ReadStdout."""
        answer = await self._client.call(
            "grpc.AgentService", "ReadStdout", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.ReadStreamResponse.FromString(answer)

    async def ReadStderr(
        self,
        request: agent_pb2.ReadStreamRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.ReadStreamResponse:
        """grpc.AgentService/ReadStderr."""
        answer = await self._client.call(
            "grpc.AgentService", "ReadStderr", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.ReadStreamResponse.FromString(answer)

    async def CloseStdin(
        self,
        request: agent_pb2.CloseStdinRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/CloseStdin."""
        answer = await self._client.call(
            "grpc.AgentService", "CloseStdin", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def TtyWinResize(
        self,
        request: agent_pb2.TtyWinResizeRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/TtyWinResize."""
        answer = await self._client.call(
            "grpc.AgentService", "TtyWinResize", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def UpdateInterface(
        self,
        request: agent_pb2.UpdateInterfaceRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_types_pb2.Interface:
        """The guest's network."""
        answer = await self._client.call(
            "grpc.AgentService", "UpdateInterface", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_types_pb2.Interface.FromString(answer)

    async def UpdateRoutes(
        self,
        request: agent_pb2.UpdateRoutesRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.Routes:
        """grpc.AgentService/UpdateRoutes."""
        answer = await self._client.call(
            "grpc.AgentService", "UpdateRoutes", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.Routes.FromString(answer)

    async def ListInterfaces(
        self,
        request: agent_pb2.ListInterfacesRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.Interfaces:
        """grpc.AgentService/ListInterfaces."""
        answer = await self._client.call(
            "grpc.AgentService", "ListInterfaces", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.Interfaces.FromString(answer)

    async def ListRoutes(
        self,
        request: agent_pb2.ListRoutesRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.Routes:
        """grpc.AgentService/ListRoutes."""
        answer = await self._client.call(
            "grpc.AgentService", "ListRoutes", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.Routes.FromString(answer)

    async def AddARPNeighbors(
        self,
        request: agent_pb2.AddARPNeighborsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/AddARPNeighbors."""
        answer = await self._client.call(
            "grpc.AgentService", "AddARPNeighbors", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def GetIPTables(
        self,
        request: agent_pb2.GetIPTablesRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.GetIPTablesResponse:
        """grpc.AgentService/GetIPTables."""
        answer = await self._client.call(
            "grpc.AgentService", "GetIPTables", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.GetIPTablesResponse.FromString(answer)

    async def SetIPTables(
        self,
        request: agent_pb2.SetIPTablesRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.SetIPTablesResponse:
        """grpc.AgentService/SetIPTables."""
        answer = await self._client.call(
            "grpc.AgentService", "SetIPTables", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.SetIPTablesResponse.FromString(answer)

    async def GetMetrics(
        self,
        request: agent_pb2.GetMetricsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.Metrics:
        """Metrics, and the guest's memory agent."""
        answer = await self._client.call(
            "grpc.AgentService", "GetMetrics", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.Metrics.FromString(answer)

    async def MemAgentMemcgSet(
        self,
        request: agent_pb2.MemAgentMemcgConfig,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/MemAgentMemcgSet."""
        answer = await self._client.call(
            "grpc.AgentService", "MemAgentMemcgSet", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def MemAgentCompactSet(
        self,
        request: agent_pb2.MemAgentCompactConfig,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/MemAgentCompactSet."""
        answer = await self._client.call(
            "grpc.AgentService", "MemAgentCompactSet", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def CreateSandbox(
        self,
        request: agent_pb2.CreateSandboxRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """The sandbox and the machine under it."""
        answer = await self._client.call(
            "grpc.AgentService", "CreateSandbox", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def DestroySandbox(
        self,
        request: agent_pb2.DestroySandboxRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/DestroySandbox."""
        answer = await self._client.call(
            "grpc.AgentService", "DestroySandbox", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def OnlineCPUMem(
        self,
        request: agent_pb2.OnlineCPUMemRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/OnlineCPUMem."""
        answer = await self._client.call(
            "grpc.AgentService", "OnlineCPUMem", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def ReseedRandomDev(
        self,
        request: agent_pb2.ReseedRandomDevRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/ReseedRandomDev."""
        answer = await self._client.call(
            "grpc.AgentService", "ReseedRandomDev", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def GetGuestDetails(
        self,
        request: agent_pb2.GuestDetailsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.GuestDetailsResponse:
        """grpc.AgentService/GetGuestDetails."""
        answer = await self._client.call(
            "grpc.AgentService", "GetGuestDetails", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.GuestDetailsResponse.FromString(answer)

    async def MemHotplugByProbe(
        self,
        request: agent_pb2.MemHotplugByProbeRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/MemHotplugByProbe."""
        answer = await self._client.call(
            "grpc.AgentService", "MemHotplugByProbe", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def SetGuestDateTime(
        self,
        request: agent_pb2.SetGuestDateTimeRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/SetGuestDateTime."""
        answer = await self._client.call(
            "grpc.AgentService", "SetGuestDateTime", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def CopyFile(
        self,
        request: agent_pb2.CopyFileRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/CopyFile."""
        answer = await self._client.call(
            "grpc.AgentService", "CopyFile", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def GetOOMEvent(
        self,
        request: agent_pb2.GetOOMEventRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> agent_pb2.OOMEvent:
        """grpc.AgentService/GetOOMEvent."""
        answer = await self._client.call(
            "grpc.AgentService", "GetOOMEvent", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return agent_pb2.OOMEvent.FromString(answer)

    async def AddSwap(
        self,
        request: agent_pb2.AddSwapRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/AddSwap."""
        answer = await self._client.call(
            "grpc.AgentService", "AddSwap", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def AddSwapPath(
        self,
        request: agent_pb2.AddSwapPathRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/AddSwapPath."""
        answer = await self._client.call(
            "grpc.AgentService", "AddSwapPath", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def GetVolumeStats(
        self,
        request: agent_pb2.VolumeStatsRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> csi_pb2.VolumeStatsResponse:
        """grpc.AgentService/GetVolumeStats."""
        answer = await self._client.call(
            "grpc.AgentService", "GetVolumeStats", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return csi_pb2.VolumeStatsResponse.FromString(answer)

    async def ResizeVolume(
        self,
        request: agent_pb2.ResizeVolumeRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/ResizeVolume."""
        answer = await self._client.call(
            "grpc.AgentService", "ResizeVolume", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)

    async def SetPolicy(
        self,
        request: agent_pb2.SetPolicyRequest,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> empty_pb2.Empty:
        """grpc.AgentService/SetPolicy."""
        answer = await self._client.call(
            "grpc.AgentService", "SetPolicy", request.SerializeToString(), timeout=timeout, metadata=metadata
        )
        return empty_pb2.Empty.FromString(answer)
