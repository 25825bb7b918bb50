"""From the manager's Create to plans: what the request, its options, and the files that it leads to say.

Nothing is made here; files of the host are read, off the loop where they may block.
Source: containerd `api/runtime/task/v2/shim.proto`, `pkg/cri/runtimeoptions/v1/api.proto`.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from kata_protos import task_v2_pb2 as task
from kata_protos.runtimeoptions_pb2 import Options
from kata_py.config.assets import verify
from kata_py.config.model import Configuration, Source
from kata_py.hypervisor.vfio import find
from kata_py.oci.spec import Spec
from kata_py.resource.mntns import MountNamespace
from kata_py.sandbox import vfio, volumes
from kata_py.sandbox.container_plan import ContainerPlan, look_up, plan_container
from kata_py.sandbox.errors import InvalidArgument
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.pod import Role
from kata_py.sandbox.sandbox_plan import SandboxPlan, plan_sandbox, resolv_conf, shm
from kata_py.sandbox.stdio import StdioSpec
from kata_py.storage.rootfs import RootfsMount
from kata_py.storage.share import off_loop

_OPTIONS = ("runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options")  # of containerd from 1.7 on, and before


def source_of(options: Any) -> Source:
    """The configuration that the runtime class names, or has itself. Other runtimes' options are not ours to read.

    Raises:
        InvalidArgument: The options are not of the type that they say.
    """
    if options.type_url.rpartition("/")[2] not in _OPTIONS:
        return None
    try:
        named = Options.FromString(options.value)
    except DecodeError as error:
        raise InvalidArgument(f"the options of the runtime class are no {options.type_url}") from error
    return Path(named.config_path) if named.config_path else named.config_body or None


def stdio_of(request: task.CreateTaskRequest | task.ExecProcessRequest) -> StdioSpec:
    """Where a process's streams are."""
    return StdioSpec(request.stdin, request.stdout, request.stderr, request.terminal)


async def sandbox(
    request: task.CreateTaskRequest,
    configuration: Configuration,
    spec: Spec,
    role: Role,
    paths: HostPaths,
    node: MountNamespace | None,
) -> tuple[SandboxPlan, ContainerPlan]:
    """Plan a sandbox and its first container.

    Args:
        request: The manager's.
        configuration: With the pod's annotations applied.
        spec: The bundle's.
        role: What the container is to its pod.
        paths: Where the sandbox's files lie.
        node: Where what the spec names is seen; None for this process's namespace.

    Raises:
        ConfigurationError: A file that the configuration names is not what it is said to be.
        SandboxError: Something is asked for that cannot be.
    """
    if configuration.assets:
        await asyncio.to_thread(verify, configuration.assets)
    planned = plan_sandbox(
        configuration,
        spec,
        sandbox_id=request.id,
        role=role,
        dns=_dns(resolv_conf(spec)),
        shm_size=_size(shm(spec)),
        paths=paths,
    )
    first = await container(request, configuration, spec, role, node)
    cold = vfio.cold_plugged(configuration, first.vfio)
    return replace(planned, vm=planned.vm.having(cold)), first


async def container(
    request: task.CreateTaskRequest,
    configuration: Configuration,
    spec: Spec,
    role: Role,
    node: MountNamespace | None,
    sandbox_id: str = "",
) -> ContainerPlan:
    """Plan a container.

    Args:
        request: The manager's.
        configuration: The sandbox's.
        spec: The bundle's.
        role: What it is to its pod.
        node: As for `sandbox`.
        sandbox_id: The sandbox that it is added to; empty for the first container of one.

    Raises:
        SandboxError: Something is asked for that cannot be.
    """
    nodes = vfio.nodes(spec)
    rootfs = [RootfsMount(m.type, m.source, tuple(m.options)) for m in request.rootfs]
    return plan_container(
        configuration,
        spec,
        container_id=request.id,
        bundle=Path(request.bundle),
        rootfs=rootfs,
        stdio=stdio_of(request),
        role=role,
        sandbox_id=sandbox_id,
        sources=await off_loop(lambda: node.run(look_up, spec, rootfs) if node else look_up(spec, rootfs)),
        found=await off_loop(lambda: {node: find(node) for node in nodes}),
    )


def _size(shm: Path | None) -> int:
    """Bytes that the manager's mount for /dev/shm holds at most."""
    if shm is not None:
        with suppress(OSError):
            status = os.statvfs(shm)
            return status.f_frsize * status.f_blocks or volumes.SHM_SIZE  # 0 is without a limit
    return volumes.SHM_SIZE


def _dns(resolv_conf: Path | None) -> list[str]:
    if resolv_conf is None:
        return []
    with suppress(OSError):  # what is missing is told when it is to be shared
        return resolv_conf.read_text(errors="replace").splitlines()
    return []
