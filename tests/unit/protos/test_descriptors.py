"""The messages and services are upstream's, number by number: read off their definitions, not off our .proto files.

A row lists a message's fields in the order of their numbers, from 1 on: `name:type`, a string if no type is given,
`*` for repeated. `=n` sets the number where one is left out.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

import kata_protos

MODULES = sorted(name for _, name, _ in pkgutil.iter_modules(kata_protos.__path__) if name.endswith("_pb2"))
POOL = descriptor_pool.Default()

TASK = {
    "StateRequest": "id exec_id",
    "StateResponse": "id bundle pid:uint32 status:.containerd.v1.types.Status stdin stdout stderr terminal:bool"
    " exit_status:uint32 exited_at:.google.protobuf.Timestamp exec_id",
    "CreateTaskRequest": "id bundle rootfs:.containerd.types.Mount* terminal:bool stdin stdout stderr checkpoint"
    " parent_checkpoint options:.google.protobuf.Any",
    "CreateTaskResponse": "pid:uint32",
    "StartRequest": "id exec_id",
    "StartResponse": "pid:uint32",
    "DeleteRequest": "id exec_id",
    "DeleteResponse": "pid:uint32 exit_status:uint32 exited_at:.google.protobuf.Timestamp",
    "PidsRequest": "id",
    "PidsResponse": "processes:.containerd.v1.types.ProcessInfo*",
    "PauseRequest": "id",
    "ResumeRequest": "id",
    "CheckpointTaskRequest": "id path options:.google.protobuf.Any",
    "KillRequest": "id exec_id signal:uint32 all:bool",
    "ExecProcessRequest": "id exec_id terminal:bool stdin stdout stderr spec:.google.protobuf.Any",
    "ResizePtyRequest": "id exec_id width:uint32 height:uint32",
    "CloseIORequest": "id exec_id stdin:bool",
    "WaitRequest": "id exec_id",
    "WaitResponse": "exit_status:uint32 exited_at:.google.protobuf.Timestamp",
    "StatsRequest": "id",
    "StatsResponse": "stats:.google.protobuf.Any",
    "ConnectRequest": "id",
    "ConnectResponse": "shim_pid:uint32 task_pid:uint32 version",
    "ShutdownRequest": "id now:bool",
}

FIELDS = {
    **{f"containerd.task.{version}.{name}": row for version in ("v2", "v3") for name, row in TASK.items()},
    "v1beta1.DevicePluginOptions": "pre_start_required:bool get_preferred_allocation_available:bool",
    "v1beta1.RegisterRequest": "version endpoint resource_name options:.v1beta1.DevicePluginOptions",
    "v1beta1.ListAndWatchResponse": "devices:.v1beta1.Device*",
    "v1beta1.AllocateRequest": "container_requests:.v1beta1.ContainerAllocateRequest*",
    "v1beta1.ContainerAllocateRequest": "devices_ids*",
    "v1beta1.AllocateResponse": "container_responses:.v1beta1.ContainerAllocateResponse*",
    "runtime.v1.PodSandboxMetadata": "name uid namespace attempt:uint32",
    "runtime.v1.PodSandboxFilter": "id state:.runtime.v1.PodSandboxStateValue"
    " label_selector:.runtime.v1.PodSandboxFilter.LabelSelectorEntry*",
    "runtime.v1.ListPodSandboxRequest": "filter:.runtime.v1.PodSandboxFilter",
    "runtime.v1.ListPodSandboxResponse": "items:.runtime.v1.PodSandbox*",
    "containerd.v1.types.ProcessInfo": "pid:uint32 info:.google.protobuf.Any",
    "containerd.types.Mount": "type source target options*",
    "containerd.types.Envelope": "timestamp:.google.protobuf.Timestamp namespace topic event:.google.protobuf.Any",
    "containerd.types.RuntimeVersion": "version revision",
    "containerd.services.events.ttrpc.v1.ForwardRequest": "envelope:.containerd.types.Envelope",
    "containerd.events.TaskCreate": "container_id bundle rootfs:.containerd.types.Mount* io:.containerd.events.TaskIO"
    " checkpoint pid:uint32",
    "containerd.events.TaskIO": "stdin stdout stderr terminal:bool",
    "containerd.events.TaskStart": "container_id pid:uint32",
    "containerd.events.TaskExit": "container_id id pid:uint32 exit_status:uint32 exited_at:.google.protobuf.Timestamp",
    "containerd.events.TaskDelete": "container_id pid:uint32 exit_status:uint32"
    " exited_at:.google.protobuf.Timestamp id",
    "containerd.events.TaskOOM": "container_id",
    "containerd.events.TaskExecAdded": "container_id exec_id",
    "containerd.events.TaskExecStarted": "container_id exec_id pid:uint32",
    "containerd.runtime.bootstrap.v1.BootstrapParams": "instance_id namespace"
    " log_level:.containerd.runtime.bootstrap.v1.LogLevel containerd_version containerd_ttrpc_address"
    " containerd_grpc_address containerd_binary extensions:.containerd.runtime.bootstrap.v1.Extension* socket_dir",
    "runtimeoptions.v1.Options": "type_url config_path config_body:bytes",
    "hypervisor.CreateVMResponse": "agentSocketPath",
    "hypervisor.StartVMRequest": "id",
    "hypervisor.StopVMRequest": "id",
    "hypervisor.VersionResponse": "version",
    "ttrpc.Request": "service method payload:bytes timeout_nano:int64 metadata:.ttrpc.KeyValue*",
    "ttrpc.Response": "status:.ttrpc.Status payload:bytes",
    "ttrpc.Status": "code:int32 message details:.google.protobuf.Any*",
    "grpc.CheckRequest": "service",
    "grpc.VersionCheckResponse": "grpc_version agent_version",
    "grpc.CreateSandboxRequest": "hostname dns* storages:.grpc.Storage* sandbox_pidns:bool sandbox_id guest_hook_path"
    " kernel_modules:.grpc.KernelModule*",
    "grpc.CreateContainerRequest": "container_id exec_id string_user:.grpc.StringUser devices:.grpc.Device*"
    " storages:.grpc.Storage* OCI:.grpc.Spec sandbox_pidns:bool shared_mounts:.grpc.SharedMount* stdin_port:uint32"
    " stdout_port:uint32 stderr_port:uint32",
    "grpc.StartContainerRequest": "container_id",
    "grpc.RemoveContainerRequest": "container_id timeout:uint32",
    "grpc.ExecProcessRequest": "container_id exec_id string_user:.grpc.StringUser process:.grpc.Process"
    " stdin_port:uint32 stdout_port:uint32 stderr_port:uint32",
    "grpc.SignalProcessRequest": "container_id exec_id signal:uint32",
    "grpc.WaitProcessRequest": "container_id exec_id",
    "grpc.WaitProcessResponse": "status:int32",
    "grpc.UpdateContainerRequest": "container_id resources:.grpc.LinuxResources",
    "grpc.StatsContainerResponse": "cgroup_stats:.grpc.CgroupStats network_stats:.grpc.NetworkStats*",
    "grpc.WriteStreamRequest": "container_id exec_id data:bytes",
    "grpc.WriteStreamResponse": "len:uint32",
    "grpc.ReadStreamRequest": "container_id exec_id len:uint32",
    "grpc.ReadStreamResponse": "data:bytes",
    "grpc.CloseStdinRequest": "container_id exec_id",
    "grpc.TtyWinResizeRequest": "container_id exec_id row:uint32 column:uint32",
    "grpc.OnlineCPUMemRequest": "wait:bool nb_cpus:uint32 cpu_only:bool",
    "grpc.ReseedRandomDevRequest": "data:bytes=2",
    "grpc.GuestDetailsRequest": "mem_block_size:bool mem_hotplug_probe:bool",
    "grpc.GuestDetailsResponse": "mem_block_size_bytes:uint64 agent_details:.grpc.AgentDetails"
    " support_mem_hotplug_probe:bool",
    "grpc.AgentDetails": "version init_daemon:bool device_handlers* storage_handlers* supports_seccomp:bool"
    " extra_features*",
    "grpc.SetGuestDateTimeRequest": "Sec:int64 Usec:int64",
    "grpc.CopyFileRequest": "path file_size:int64 file_mode:uint32 dir_mode:uint32 uid:int32 gid:int32 offset:int64"
    " data:bytes",
    "grpc.OOMEvent": "container_id",
    "grpc.Storage": "driver driver_options* source fstype options* mount_point fs_group:.grpc.FSGroup shared:bool",
    "grpc.FSGroup": "group_id:uint32=2 group_change_policy:.types.FSGroupChangePolicy",
    "grpc.Device": "id type vm_path container_path options*",
    "grpc.SharedMount": "name src_ctr src_path dst_ctr dst_path",
    "grpc.CpuUsage": "total_usage:uint64 percpu_usage:uint64* usage_in_kernelmode:uint64 usage_in_usermode:uint64",
    "grpc.MemoryData": "usage:uint64 max_usage:uint64 failcnt:uint64 limit:uint64",
    "grpc.BlkioStatsEntry": "major:uint64 minor:uint64 op value:uint64",
    "grpc.Root": "Path Readonly:bool",
    "grpc.Mount": "destination source type options*",
    "grpc.Process": "Terminal:bool ConsoleSize:.grpc.Box User:.grpc.User Args* Env* Cwd"
    " Capabilities:.grpc.LinuxCapabilities Rlimits:.grpc.POSIXRlimit* NoNewPrivileges:bool ApparmorProfile"
    " OOMScoreAdj:int64 SelinuxLabel",
    "grpc.User": "UID:uint32 GID:uint32 AdditionalGids:uint32* Username",
    "grpc.LinuxCapabilities": "Bounding* Effective* Inheritable* Permitted* Ambient*",
    "grpc.POSIXRlimit": "Type Hard:uint64 Soft:uint64",
    "grpc.Hooks": "Prestart:.grpc.Hook* Poststart:.grpc.Hook* Poststop:.grpc.Hook* CreateRuntime:.grpc.Hook*"
    " CreateContainer:.grpc.Hook* StartContainer:.grpc.Hook*",
    "grpc.LinuxResources": "Devices:.grpc.LinuxDeviceCgroup* Memory:.grpc.LinuxMemory CPU:.grpc.LinuxCPU"
    " Pids:.grpc.LinuxPids BlockIO:.grpc.LinuxBlockIO HugepageLimits:.grpc.LinuxHugepageLimit*"
    " Network:.grpc.LinuxNetwork",
    "grpc.LinuxMemory": "Limit:int64 Reservation:int64 Swap:int64 Kernel:int64 KernelTCP:int64 Swappiness:uint64"
    " DisableOOMKiller:bool",
    "grpc.LinuxCPU": "Shares:uint64 Quota:int64 Period:uint64 RealtimeRuntime:int64 RealtimePeriod:uint64 Cpus Mems",
    "grpc.LinuxSyscall": "Names* Action errnoret:uint32 Args:.grpc.LinuxSeccompArg*",
    "types.Interface": "device name IPAddresses:.types.IPAddress* mtu:uint64 hwAddr devicePath type raw_flags:uint32",
    "types.Route": "dest gateway device source scope:uint32 family:.types.IPFamily flags:uint32 mtu:uint32",
    "types.ARPNeighbor": "toIPAddress:.types.IPAddress device lladdr state:int32 flags:int32",
    "io.containerd.cgroups.v1.Metrics": "hugetlb:.io.containerd.cgroups.v1.HugetlbStat*"
    " pids:.io.containerd.cgroups.v1.PidsStat cpu:.io.containerd.cgroups.v1.CPUStat"
    " memory:.io.containerd.cgroups.v1.MemoryStat blkio:.io.containerd.cgroups.v1.BlkIOStat"
    " rdma:.io.containerd.cgroups.v1.RdmaStat network:.io.containerd.cgroups.v1.NetworkStat*"
    " cgroup_stats:.io.containerd.cgroups.v1.CgroupStats"
    " memory_oom_control:.io.containerd.cgroups.v1.MemoryOomControl",
    "io.containerd.cgroups.v2.Metrics": "pids:.io.containerd.cgroups.v2.PidsStat cpu:.io.containerd.cgroups.v2.CPUStat"
    " memory:.io.containerd.cgroups.v2.MemoryStat=4 rdma:.io.containerd.cgroups.v2.RdmaStat"
    " io:.io.containerd.cgroups.v2.IOStat hugetlb:.io.containerd.cgroups.v2.HugeTlbStat*"
    " memory_events:.io.containerd.cgroups.v2.MemoryEvents network:.io.containerd.cgroups.v2.NetworkStat*",
}

# Single fields far down in long messages, where one slip would move all that follow.
NUMBERS = {
    "io.containerd.cgroups.v1.MemoryStat": {"total_cache": 18, "total_unevictable": 32, "usage": 33, "kernel_tcp": 36},
    "io.containerd.cgroups.v2.MemoryStat": {"pgfault": 18, "usage": 32, "usage_limit": 33, "swap_limit": 35},
    "v1beta1.Device": {"ID": 1, "health": 2},
    "runtime.v1.PodSandbox": {"id": 1, "metadata": 2, "state": 3, "created_at": 4, "runtime_handler": 7},
    "grpc.Spec": {"Process": 2, "Mounts": 5, "Annotations": 7, "Linux": 8, "Windows": 10},
    "grpc.Linux": {"Sysctl": 3, "CgroupsPath": 5, "Seccomp": 8, "MaskedPaths": 10, "IntelRdt": 13},
    "hypervisor.CreateVMRequest": {"id": 1, "annotations": 2, "networkNamespacePath": 3},
    "containerd.task.v2.UpdateTaskRequest": {"id": 1, "resources": 2, "annotations": 3},
    "containerd.types.RuntimeInfo": {"name": 1, "version": 2, "options": 3, "features": 4, "annotations": 5},
    "grpc.CgroupStats": {"cpu_stats": 1, "memory_stats": 2, "pids_stats": 3, "blkio_stats": 4, "hugetlb_stats": 5},
    "grpc.MemAgentCompactConfig": {"compact_sec_max": 5, "compact_force_times": 8},
}

AGENT = (
    "CreateSandbox DestroySandbox CreateContainer StartContainer RemoveContainer ExecProcess SignalProcess WaitProcess"
    " UpdateContainer UpdateEphemeralMounts StatsContainer PauseContainer ResumeContainer"
    " RemoveStaleVirtiofsShareMounts GetDiagnosticData WriteStdin ReadStdout ReadStderr CloseStdin TtyWinResize"
    " UpdateInterface UpdateRoutes ListInterfaces ListRoutes AddARPNeighbors GetIPTables SetIPTables GetMetrics"
    " MemAgentMemcgSet MemAgentCompactSet OnlineCPUMem ReseedRandomDev GetGuestDetails MemHotplugByProbe"
    " SetGuestDateTime CopyFile GetOOMEvent AddSwap AddSwapPath GetVolumeStats ResizeVolume SetPolicy"
)
TASK_METHODS = (
    "State Create Start Delete Pids Pause Resume Checkpoint Kill Exec ResizePty CloseIO Update Wait Stats Connect"
    " Shutdown"
)
SERVICES = {
    "grpc.AgentService": AGENT,
    "grpc.Health": "Check Version",
    "containerd.task.v2.Task": TASK_METHODS,
    "containerd.task.v3.Task": TASK_METHODS,
    "containerd.services.events.ttrpc.v1.Events": "Forward",
    "hypervisor.Hypervisor": "CreateVM StartVM StopVM Version",
}

ENUMS = {
    "runtime.v1.PodSandboxState": {"SANDBOX_READY": 0, "SANDBOX_NOTREADY": 1},
    "containerd.v1.types.Status": {"UNKNOWN": 0, "CREATED": 1, "RUNNING": 2, "STOPPED": 3, "PAUSED": 4, "PAUSING": 5},
    "grpc.HealthCheckResponse.ServingStatus": {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2},
    "types.IPFamily": {"v4": 0, "v6": 1},
    "types.FSGroupChangePolicy": {"Always": 0, "OnRootMismatch": 1},
    "containerd.runtime.bootstrap.v1.LogLevel": {
        "LOG_LEVEL_TRACE": -8,
        "LOG_LEVEL_DEBUG": -4,
        "LOG_LEVEL_INFO": 0,
        "LOG_LEVEL_WARN": 4,
        "LOG_LEVEL_ERROR": 8,
        "LOG_LEVEL_FATAL": 10,
        "LOG_LEVEL_PANIC": 12,
    },
}


@pytest.fixture(scope="module", autouse=True)
def _every_module_is_loaded() -> None:
    for name in MODULES:
        importlib.import_module(f"kata_protos.{name}")


def expected(row: str) -> Iterator[tuple[int, str, str]]:
    """A row as (number, name, type)."""
    number = 0
    for column in row.split():
        field, _, given = column.partition("=")
        name, _, kind = field.partition(":")
        if name.endswith("*"):
            name, kind = name[:-1], "string*"
        number = int(given) if given else number + 1
        yield number, name, kind or "string"


def actual(message: Descriptor) -> Iterator[tuple[int, str, str]]:
    """A message's fields in the same form, taken from its serialised definition."""
    definition = DescriptorProto()
    message.CopyToProto(definition)
    for field in sorted(definition.field, key=lambda field: field.number):
        kind = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        repeated = "*" if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
        yield field.number, field.name, kind + repeated


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_has_upstream_s_fields_and_no_others(name: str) -> None:
    assert list(actual(POOL.FindMessageTypeByName(name))) == list(expected(FIELDS[name]))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_field_far_down_has_its_number(name: str) -> None:
    fields = POOL.FindMessageTypeByName(name).fields_by_name
    assert {field: fields[field].number for field in NUMBERS[name]} == NUMBERS[name]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_its_methods(name: str) -> None:
    assert sorted(POOL.FindServiceByName(name).methods_by_name) == sorted(SERVICES[name].split())


@pytest.mark.parametrize("name", ENUMS)
def test_an_enumeration_has_its_numbers(name: str) -> None:
    assert {value.name: value.number for value in POOL.FindEnumTypeByName(name).values} == ENUMS[name]


def test_the_agent_has_42_methods() -> None:
    assert len(SERVICES["grpc.AgentService"].split()) == 42


def test_task_v3_is_v2_under_another_name() -> None:
    def shape(version: str) -> bytes:
        file = POOL.FindFileByName(f"kata_protos/task_{version}.proto")
        return file.serialized_pb.replace(version.encode(), b"v_")

    assert shape("v2") == shape("v3")


@pytest.mark.parametrize("name", MODULES)
def test_the_generated_code_runs_on_the_guest_s_protobuf_too(name: str) -> None:
    """Later protocs than 3.21 write a check of the runtime's version, which the guest's 3.21 has no module for."""
    assert "runtime_version" not in (Path(kata_protos.__path__[0]) / f"{name}.py").read_text()
