"""How much sooner a pod starts in a machine that waits than in one that must boot: libvirt, under emulation (root).

Timed is what a kubelet waits for when it runs a pod sandbox: the real shim is started, the pod's network connected to
its machine, and its pause container runs there. Both ways in turns, in a room of their own, each with an adaptor of its
own that does nothing else meanwhile; a machine that is taken is replaced only after its pod runs.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.adaptor import ROOM

Figure = tuple[str, str, str]

RUNS = 5
FILL_TIMEOUT = 120.0  # seconds
TIMEOUT = 900.0  # seconds for all of it


def figures() -> list[Figure]:
    """Measure; takes about three minutes."""
    line = [ROOM, sys.executable, "-m", "bench.pool", "inside"]
    told = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT).stdout
    misses, hits = json.loads(told.splitlines()[-1])
    share = statistics.median(hits) / statistics.median(misses)
    return [
        ("pool: a pod starts in a machine that boots (libvirt, TCG)", seconds(misses), ""),
        ("pool: a pod starts in a machine that waits", seconds(hits), ""),
        ("pool: the second as a share of the first", f"{share:.1%}", "≤ 15 %"),
    ]


def seconds(values: list[float]) -> str:
    """Median and spread."""
    return f"{statistics.median(values):.2f} s (of {len(values)}: {min(values):.2f}–{max(values):.2f})"


async def inside() -> tuple[list[float], list[float]]:
    """Seconds of each start without and with the pool."""
    from tests.adaptor import Adaptor
    from tests.conftest import REPOSITORY
    from tests.integration.peer.conftest import CONFIGURATION
    from tests.integration.peer.pods import bridged, network, pod
    from tests.libvirt import BASE, NETWORK, POOL, libvirtd
    from tests.manager import Manager
    from tools.oci_image import rootfs

    misses: list[float] = []
    hits: list[float] = []
    async with AsyncExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kp-", dir="/tmp")))
        stack.enter_context(bridged())
        host = stack.enter_context(libvirtd())
        host.virsh("vol-upload", "--pool", POOL, BASE, str(REPOSITORY / "build/podvm/x86_64/podvm.qcow2"))
        environ = {
            "LIBVIRT_URI": host.uri, "LIBVIRT_POOL": POOL, "LIBVIRT_NET": NETWORK, "LIBVIRT_VOL_NAME": BASE,
            "LIBVIRT_DOMAIN_TYPE": "qemu", "LIBVIRT_CPU": "2", "LIBVIRT_MEMORY": "1024", "LIBVIRT_ROOT_DISK_SIZE": "1",
            "OWNER": "bench",
        }  # fmt: skip
        (top / "rootfs").mkdir()
        rootfs(top / "rootfs")
        flags = ["libvirt", "-firmware=", "-host-interface", host.bridge, "-proxy-timeout", "120s"]

        async def start(warm: str) -> float:
            """Seconds of one start, by an adaptor that keeps so many machines ready."""
            home = Path(tempfile.mkdtemp(dir=top))
            adaptor = Adaptor(home, [*flags, *(["-warm-pool", warm] if warm else [])], environ)
            await adaptor.start()
            try:
                if warm:
                    await filled(adaptor)
                config = home / "remote.toml"
                config.write_text(CONFIGURATION.format(socket=adaptor.socket).replace("timeout = 60", "timeout = 180"))
                manager = Manager(launcher, home / "manager", config, top / "rootfs")
                with network() as net:
                    began = time.perf_counter()
                    async with pod(manager, "pod", net):
                        took = time.perf_counter() - began
                async with asyncio.timeout(FILL_TIMEOUT):
                    while any(adaptor.pods.iterdir()):  # noqa: ASYNC110 files have no event
                        await asyncio.sleep(0.1)
            finally:
                await adaptor.end()
                for name in host.virsh("list", "--all", "--name").split():
                    host.virsh("destroy", name, check=False)
                    host.virsh("undefine", name)
                for each in host.virsh("vol-list", POOL).splitlines():
                    if each.split()[0] != BASE:
                        host.virsh("vol-delete", "--pool", POOL, each.split()[0])
            return took

        from tests.launcher import write

        launcher = write(top / "bin")
        for _ in range(RUNS):
            misses.append(await start(""))
            hits.append(await start("default=1"))
    return misses, hits


async def filled(adaptor) -> None:
    """Wait until a machine waits."""
    async with asyncio.timeout(FILL_TIMEOUT):
        while not any('"waiting"' in path.read_text() for path in adaptor.socket.parent.glob("pool/*.json")):  # noqa: ASYNC110 files have no event
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(inside())))
    else:
        for name, value, bar in figures():
            print(f"{name:65} {value:>25}   {bar}")
