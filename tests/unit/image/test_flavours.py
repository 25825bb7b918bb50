"""The two guests of one recipe."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from image import root
from image.build import CHECKOUT
from image.errors import BuildError
from image.initramfs import initramfs
from image.kernel import Kernel
from image.peer import PEER, ROOT_LABEL
from image.recipe import LOCAL
from image.tree import File, Link, Tree
from tests.unit.image.test_kernel import Package, module

GUEST = CHECKOUT / "agent/image/guest"
LIMIT = 10.0  # seconds


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    package = Package(tmp_path)
    names = (
        "crc32c_generic",
        "erofs",
        "virtio_console",
        "vmw_vsock_virtio_transport",
        *PEER.architectures["s390x"].found_modules,
    )
    names += ("virtio_blk", *PEER.architectures["s390x"].modules)
    for name in dict.fromkeys(names):
        package.add(f"lib/modules/6.1/kernel/{name}.ko", module("depends=", f"alias=for-{name}"))
    return package.kernel()


def test_a_part_of_the_code_that_is_missing_is_named() -> None:
    flavour = replace(LOCAL, code={"agent": ("kata_teapot",)})
    with pytest.raises(BuildError, match="agent/kata_teapot is not there"):
        root.code_tree(flavour, CHECKOUT)


def test_both_guests_have_the_agent_and_the_peer_alone_what_the_node_talks_to() -> None:
    local, peer = (root.code_tree(flavour, CHECKOUT).nodes.keys() for flavour in (LOCAL, PEER))
    assert local < peer
    assert "usr/lib/kata-agent/kata_agent/__main__.py" in local
    added = {path.removeprefix("usr/lib/kata-agent/").split("/")[0] for path in peer - local}
    assert added == {"peer.py", "kata_caa"}


@pytest.mark.parametrize("machine", ["x86_64", "s390x"])
def test_the_peers_kernel_has_what_the_local_one_has(machine: str) -> None:
    local, peer = (flavour.architectures[machine] for flavour in (LOCAL, PEER))
    assert set(local.modules) <= set(peer.modules)
    assert "agent.server_addr=unix:///run/kata-containers/agent.sock" in peer.parameters


def test_the_peers_initramfs_has_drivers_to_find_its_disk_by_and_the_local_one_has_none(kernel: Kernel) -> None:
    files = Tree({"usr/bin/busybox": File(b"busybox", executable=True)})
    local, peer = (initramfs(flavour, flavour.architectures["s390x"], kernel, files).nodes for flavour in (LOCAL, PEER))
    aliases = "usr/lib/modules/6.1/modules.alias"
    texts = [node.data for tree in (local, peer) if isinstance(node := tree[aliases], File)]
    assert [b"for-sd_mod" in text for text in texts] == [False, True]
    assert ("usr/bin/sleep" in local, "usr/bin/sleep" in peer) == (False, True)


def test_the_peers_root_has_certificates_in_one_file_and_the_files_of_a_pause_container(kernel: Kernel) -> None:
    busybox = File(b"busybox", executable=True)
    files = Tree()
    for path in ("usr/bin/busybox", "usr/lib/ld64.so.1"):
        files.add(path, busybox)
    for name in ("b", "a"):
        files.add(f"usr/share/ca-certificates/mozilla/{name}.crt", File(f"{name}\n\n".encode()))
    tree = root.debian_tree(PEER, PEER.architectures["s390x"], kernel, files)
    assert tree.nodes["etc/ssl/certs/ca-certificates.crt"] == File(b"a\nb\n")
    assert tree.nodes["pause_bundle/rootfs/bin/busybox"] == busybox
    assert tree.nodes["pause_bundle/rootfs/pause"] == File((GUEST / "pause").read_bytes(), executable=True)
    assert isinstance(tree.nodes["etc/resolv.conf"], Link)
    assert not any(path.startswith("usr/share/ca-certificates") for path in tree.nodes)


def test_a_root_that_should_have_certificates_and_has_none_is_refused(kernel: Kernel) -> None:
    files = Tree({"usr/bin/busybox": File(b"busybox"), "usr/lib/ld64.so.1": File(b"loader")})
    with pytest.raises(BuildError, match="no package has certificates"):
        root.debian_tree(PEER, PEER.architectures["s390x"], kernel, files)


def test_the_script_looks_for_the_label_that_the_disk_has() -> None:
    assert f"root=PARTLABEL={ROOT_LABEL} " in (GUEST / "peer-initramfs").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_pause_container_ends_when_told_to(number: signal.Signals) -> None:
    with subprocess.Popen(["busybox", "sh", GUEST / "pause"], start_new_session=True) as pause:
        try:
            children = Path(f"/proc/{pause.pid}/task/{pause.pid}/children")
            until = time.monotonic() + LIMIT
            while not children.read_text() and time.monotonic() < until:
                assert pause.poll() is None
            pause.send_signal(number)
            assert pause.wait(LIMIT) == 0
        finally:
            os.killpg(pause.pid, signal.SIGKILL)
