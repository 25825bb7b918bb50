"""What the runtime class and the pod's annotations make of the configuration, over a fake guest."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kata_protos.runtimeoptions_pb2 import Options
from kata_py.config.load import load
from kata_py.config.model import Configuration
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests import bundle
from tests.fakes import FakeAgent, FakeHypervisor, MemoryOpener
from tests.tasks import Tasks, serving

pytestmark = pytest.mark.root

HYPERVISOR = "io.katacontainers.config.hypervisor."


@dataclass
class Node:
    """A Task service that reads its configuration, and what drivers were made from."""

    tasks: Tasks
    seen: list[Configuration] = field(default_factory=list)

    async def create(self, options: AnyMessage | None = None, annotations: dict[str, str] | None = None) -> None:
        spec: dict[str, Any] = bundle.spec("c1", "rootfs", bundle.process(["true"]))
        spec["annotations"] = annotations or {}
        await self.tasks.create(spec=spec, **({"options": options} if options else {}))


@pytest.fixture
async def node(top: Path, agent: FakeAgent, opener: MemoryOpener) -> AsyncIterator[Node]:
    seen: list[Configuration] = []

    def driver(configuration: Configuration) -> FakeHypervisor:
        seen.append(configuration)
        return FakeHypervisor(agent)

    async with serving(top, driver, opener, load_configuration=load) as tasks:
        yield Node(tasks, seen)


def options(type_url: str = "runtimeoptions.v1.Options", **fields: Any) -> AnyMessage:
    return AnyMessage(type_url=type_url, value=Options(**fields).SerializeToString())


async def refused(node: Node, *arguments: Any) -> str:
    with pytest.raises(StatusError) as caught:
        await node.create(*arguments)
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert node.tasks.leftovers() == []
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "cri.", "types.containerd.io/"])
async def test_the_file_that_the_runtime_class_names_counts_whatever_the_manager_calls_its_options(
    node: Node, top: Path, prefix: str
) -> None:
    file = top / "mine.toml"
    file.write_text("[hypervisor.fake]\ndefault_memory = 300\n")
    await node.create(options(f"{prefix}runtimeoptions.v1.Options", config_path=str(file), config_body=b"x"))
    assert (node.seen[0].source, node.seen[0].hypervisor.default_memory) == (file, 300)


async def test_the_text_that_the_runtime_class_has_counts(node: Node) -> None:
    await node.create(options(config_body=b"[hypervisor.fake]\ndefault_memory = 300\n"))
    assert node.seen[0].hypervisor.default_memory == 300


async def test_a_fault_in_the_text_is_told_with_its_place(node: Node) -> None:
    said = await refused(node, options(config_body=b"[hypervisor.fake]\ndefault_memroy = 1\n"))
    assert "options in the runtime class:2: unknown key default_memroy" in said


async def test_options_that_are_not_of_their_type_are_refused(node: Node) -> None:
    said = await refused(node, AnyMessage(type_url="runtimeoptions.v1.Options", value=b"\xff"))
    assert "the options of the runtime class are no runtimeoptions.v1.Options" in said


async def test_a_pod_s_annotations_are_laid_over_the_configuration(node: Node) -> None:
    body = b"[hypervisor.fake]\nkernel_params = 'a'\n"
    await node.create(options(config_body=body), {f"{HYPERVISOR}kernel_params": "b"})
    assert node.seen[0].hypervisor.kernel_params == "a b"


async def test_an_annotation_that_is_not_enabled_ends_the_creation(node: Node) -> None:
    said = await refused(node, options(config_body=b"[hypervisor.fake]\n"), {f"{HYPERVISOR}default_vcpus": "1"})
    assert f"annotation {HYPERVISOR}default_vcpus is not enabled" in said
    assert node.seen == []


async def test_a_file_with_another_digest_ends_the_creation(node: Node, top: Path) -> None:
    kernel = top / "kernel"
    kernel.write_bytes(b"kernel")
    body = f"[hypervisor.fake]\nkernel = '{kernel}'\nenable_annotations = ['kernel_hash']\n".encode()
    digest = hashlib.sha512(b"kernel").hexdigest()
    assert "the sha512 of" in await refused(node, options(config_body=body), {f"{HYPERVISOR}kernel_hash": "0" * 128})
    (top / "bundles" / "c1" / "config.json").unlink()
    (top / "bundles" / "c1").rmdir()
    await node.create(options(config_body=body), {f"{HYPERVISOR}kernel_hash": digest})
    assert node.seen[0].hypervisor.kernel == kernel
