"""Memory, swap and what changes them, where a machine without any can show it."""

from __future__ import annotations

import pytest

from kata_protos import agent_pb2 as agent
from kata_py.ttrpc.errors import StatusError
from kata_py.ttrpc.status import Code
from tests.drivers.pod import TIMEOUT, Pod

pytestmark = pytest.mark.root


async def test_memory_at_an_address_needs_a_kernel_with_that_switch(pod: Pod) -> None:
    with pytest.raises(StatusError, match=r"MemHotplugByProbe: .*probe") as refusal:
        await pod.calls.MemHotplugByProbe(
            agent.MemHotplugByProbeRequest(memHotplugProbeAddr=[0x100000000]), timeout=TIMEOUT
        )

    assert refusal.value.code is Code.INTERNAL


async def test_what_is_no_swap_is_named(pod: Pod) -> None:
    pod.path("/run/file").write_bytes(bytes(65536))

    for path, cause in (("/run/none", "No such file"), ("/run/file", "Invalid argument")):
        with pytest.raises(StatusError, match=f"{cause}.*{path}") as refusal:
            await pod.calls.AddSwapPath(agent.AddSwapPathRequest(path=path), timeout=TIMEOUT)
        assert refusal.value.code is Code.INTERNAL


async def test_a_disk_to_swap_to_that_does_not_appear_is_named(pod: Pod) -> None:
    with pytest.raises(StatusError, match=r"waiting for uevent of the virtio-blk disk at PCI path 1f\.0/1f\.0"):
        await pod.calls.AddSwap(agent.AddSwapRequest(PCIPath=[31, 31]), timeout=TIMEOUT)


@pytest.mark.parametrize("slots", [[], [32], [1, 4000]])
async def test_what_pci_has_not_is_no_path(pod: Pod, slots: list[int]) -> None:
    with pytest.raises(StatusError, match="not a PCI path") as refusal:
        await pod.calls.AddSwap(agent.AddSwapRequest(PCIPath=slots), timeout=TIMEOUT)
    assert refusal.value.code is Code.INVALID_ARGUMENT


async def test_there_is_no_mem_agent(pod: Pod) -> None:
    for call in (
        pod.calls.MemAgentMemcgSet(agent.MemAgentMemcgConfig(disabled=True), timeout=TIMEOUT),
        pod.calls.MemAgentCompactSet(agent.MemAgentCompactConfig(), timeout=TIMEOUT),
    ):
        with pytest.raises(StatusError, match="mem-agent is disabled") as refusal:
            await call
        assert refusal.value.code is Code.INTERNAL
