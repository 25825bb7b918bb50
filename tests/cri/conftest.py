"""A real containerd with its CRI plug-in, driven as a kubelet drives it, over our shim.

One containerd serves all cases, with a runtime handler for each hypervisor driver. The namespace driver shows
breadth; each family of cases has one that boots a machine.

With KATA_TEST_CRIO_SOCKET a CRI-O that runs already is driven instead, by its handler KATA_TEST_CRIO_HANDLER (`kata` if
that is not set); it must have the images of `tools.oci_image` and of `tools.cri`. Cases that need a containerd of the
tests' own are skipped then.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cri import client
from tests.cri.client import Cri
from tests.cri.pods import Container, Pod, Pods, attempts
from tests.launcher import write as write_launcher
from tests.leftovers import left_behind
from tools import configuration, conformance
from tools.cri import REFERENCE, CriContainerd
from tools.footprint import Footprint

CRIO = os.environ.get("KATA_TEST_CRIO_SOCKET", "")
CRIO_HANDLER = os.environ.get("KATA_TEST_CRIO_HANDLER", "kata")

_RESULTS = pytest.StashKey[dict[str, str]]()
SETTLE_TIMEOUT = 3.0  # seconds that a shim may take to end once it has answered its last call

NAMESPACE = pytest.param("namespace", id="namespace")
QEMU = pytest.param("qemu", id="qemu", marks=pytest.mark.qemu)
ON_BOTH = pytest.mark.parametrize("driver", [NAMESPACE, QEMU], indirect=True)
ON_QEMU = pytest.mark.parametrize("driver", [QEMU], indirect=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/cri --cri-handler runc` runs the cases over the reference, to prove the cases themselves."""
    parser.addoption("--cri-handler", help="the runtime handler that stands in for the namespace driver")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember how each case came out, for docs/conformance.md."""
    report = yield
    results = item.config.stash.setdefault(_RESULTS, {})
    if report.when == "call" or not report.passed:
        results[item.nodeid] = "passed" if report.passed else "failed"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note the results, unless they are the reference's."""
    results = session.config.stash.get(_RESULTS, {})
    if results and not CRIO and session.config.getoption("--cri-handler", default=None) is None:
        conformance.note(results)


@pytest.fixture(scope="session", params=[NAMESPACE])
def driver(request: pytest.FixtureRequest) -> str:
    """A hypervisor driver's name, which is its runtime handler's too."""
    name = str(request.param)
    if CRIO:
        return CRIO_HANDLER
    return (name == "namespace" and request.config.getoption("--cri-handler", default=None)) or name


@pytest.fixture(scope="session")
def containerd(guest: Path, short_tmp: Path, request: pytest.FixtureRequest) -> Iterator[CriContainerd]:
    """A private containerd; after the session the machine is as before."""
    if CRIO:
        pytest.skip("needs a containerd of the tests' own")
    before = Footprint.take()
    handlers = {
        name: configuration.write(short_tmp / f"{name}.toml", image, program="the tests", hypervisor=name, memory=256)
        for name, image in (("namespace", None), ("qemu", guest))
    }
    for path in handlers.values():
        path.write_text(path.read_text() + "disable_guest_seccomp = false\n")
    with CriContainerd(short_tmp / "cri", write_launcher(short_tmp / "cri-bin"), handlers) as containerd:
        yield containerd
    if request.config.getoption("--cri-handler", default=None) is None:
        assert left_behind(before) == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cri(request: pytest.FixtureRequest) -> AsyncIterator[Cri]:
    """The manager's services."""
    socket = Path(CRIO) if CRIO else request.getfixturevalue("containerd").address
    async with client.connected(socket) as cri:
        await client.serving(cri)
        pods = Pods(cri, "", Path())
        kept = await pods.all()  # of a node that has pods of its own
        yield cri
        await pods.remove_all_but(kept)


@pytest.fixture(scope="session")
def pods(cri: Cri, driver: str, short_tmp: Path) -> Pods:
    """Runs pods under the driver."""
    return Pods(cri, driver, short_tmp / "logs")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_pod(pods: Pods) -> AsyncIterator[Pod]:
    """A pod for tests that leave it as it was."""
    async with pods.run() as pod:
        yield pod


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(shared_pod: Pod) -> Container:
    """A container that sleeps, for tests that only exec into it."""
    return await shared_pod.run("sleep", "100000")


@pytest_asyncio.fixture(loop_scope="session")
async def clean(pods: Pods, driver: str, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """The machine afterwards is the machine before; but for the reference's cgroups, and a node's own."""
    compared = driver != REFERENCE and not CRIO
    containerd: CriContainerd | None = request.getfixturevalue("containerd") if compared else None
    kept, kept_containers = await pods.all(), await pods.containers()
    before = Footprint.take()
    yield
    await pods.remove_all_but(kept)
    await pods.remove_containers_but(kept_containers)
    if containerd is not None:
        with suppress(TimeoutError):
            async for _ in attempts(SETTLE_TIMEOUT, "something is left"):
                if all(map(containerd.is_own, left_behind(before))):
                    return
        assert [line for line in left_behind(before) if not containerd.is_own(line)] == []
