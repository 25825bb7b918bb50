"""Specs and configurations, and what is planned of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from kata_py.config.model import AgentConfig, Configuration, HypervisorConfig, RuntimeConfig
from kata_py.oci.spec import Spec
from kata_py.oci.wire import from_agent
from kata_py.sandbox.container_plan import ContainerPlan, plan_container
from kata_py.sandbox.pod import Role
from kata_py.sandbox.sandbox_plan import SandboxPlan, plan_sandbox
from kata_py.sandbox.size import Host
from kata_py.sandbox.stdio import StdioSpec

HOST = Host(cpus=8, memory=16384)
BUNDLE = Path("/run/bundle")


ALL = ("pid", "ipc", "uts", "mount", "network")


SHARE = "/run/kata-containers/shared/containers"


def configuration(**hypervisor: Any) -> Configuration:
    return Configuration(
        hypervisor=HypervisorConfig(name="qemu", **hypervisor),
        source=Path("/etc/kata-containers/configuration.toml"),
        agent=AgentConfig(dial_timeout=7),
        runtime=RuntimeConfig(create_container_timeout=9),
    )


def spec(**members: Any) -> Spec:
    process = {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"}
    return cast(Spec, {"ociVersion": "1.1.0", "process": process, "root": {"path": "rootfs"}, **members})


def namespaced(*kinds: str, **linux: Any) -> Spec:
    """A spec with namespaces of these kinds, and whatever else its `linux` says."""
    return spec(linux={"namespaces": [{"type": kind} for kind in kinds], **linux})


def sandbox(spec: Spec, *, role: Role = Role.SINGLE, **hypervisor: Any) -> SandboxPlan:
    linux = {"namespaces": [{"type": kind} for kind in ALL], **spec.get("linux", {})}
    return plan_sandbox(
        configuration(**hypervisor), cast(Spec, {**spec, "linux": linux}), sandbox_id="pod", role=role,
        dns=["nameserver 1.1.1.1"], host=HOST,
    )  # fmt: skip


def container(spec: Spec, **fields: Any) -> ContainerPlan:
    fields.setdefault("stdio", StdioSpec())
    return plan_container(configuration(), spec, container_id="c1", bundle=BUNDLE, **fields)


def guest(spec: Spec, **fields: Any) -> dict[str, Any]:
    return cast(dict[str, Any], from_agent(container(spec, **fields).guest.OCI))


def bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "source": source, "type": "bind", "options": ["rbind", *options]}
