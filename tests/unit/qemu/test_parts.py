from __future__ import annotations

from pathlib import Path

import pytest

from kata_qemu.parts import Backend, BlockNode, Command, Frontend, Part, SocketChardev, TapBackend, words

PARTS: list[tuple[Part, tuple[str, str], Command, Command]] = [
    (
        Frontend("virtio-blk-pci", "disk0", {"bus": "port1", "share-rw": True, "queue-size": 128}),
        ("-device", "virtio-blk-pci,id=disk0,bus=port1,share-rw=on,queue-size=128"),
        Command(
            "device_add",
            {"driver": "virtio-blk-pci", "id": "disk0", "bus": "port1", "share-rw": True, "queue-size": 128},
        ),
        Command("device_del", {"id": "disk0"}),
    ),
    (
        Backend("memory-backend-memfd", "ram", {"size": 1024, "share": True}),
        ("-object", "memory-backend-memfd,id=ram,size=1024,share=on"),
        Command("object-add", {"qom-type": "memory-backend-memfd", "id": "ram", "size": 1024, "share": True}),
        Command("object-del", {"id": "ram"}),
    ),
    (
        BlockNode("raw", "node", {"read-only": False, "file": {"driver": "file", "filename": Path("/a,b")}}),
        ("-blockdev", "raw,node-name=node,read-only=off,file.driver=file,file.filename=/a,,b"),
        Command(
            "blockdev-add",
            {
                "driver": "raw",
                "node-name": "node",
                "read-only": False,
                "file": {"driver": "file", "filename": "/a,b"},
            },
        ),
        Command("blockdev-del", {"node-name": "node"}),
    ),
    (
        SocketChardev("fs", Path("/run/fs.sock")),
        ("-chardev", "socket,id=fs,path=/run/fs.sock"),
        Command(
            "chardev-add",
            {
                "id": "fs",
                "backend": {
                    "type": "socket",
                    "data": {"addr": {"type": "unix", "data": {"path": "/run/fs.sock"}}, "server": False},
                },
            },
        ),
        Command("chardev-remove", {"id": "fs"}),
    ),
    (
        SocketChardev("console", 7, listening=True),
        ("-chardev", "socket,id=console,fd=7,server=on,wait=off"),
        Command(
            "chardev-add",
            {
                "id": "console",
                "backend": {
                    "type": "socket",
                    "data": {"addr": {"type": "fd", "data": {"str": "7"}}, "server": True, "wait": False},
                },
            },
        ),
        Command("chardev-remove", {"id": "console"}),
    ),
]


def test_a_tap_is_inherited_by_number_and_lent_by_name() -> None:
    tap = TapBackend("network-0", (7, 8), (17, 18))
    assert tap.option() == ("-netdev", "tap,id=network-0,fds=7:8,vhost=on,vhostfds=17:18")
    assert tap.lent == {"network-0-tap0": 7, "network-0-tap1": 8, "network-0-vhost0": 17, "network-0-vhost1": 18}
    fds, vhostfds = "network-0-tap0:network-0-tap1", "network-0-vhost0:network-0-vhost1"
    assert tap.addition() == Command(
        "netdev_add", {"type": "tap", "id": "network-0", "fds": fds, "vhost": True, "vhostfds": vhostfds}
    )
    assert tap.removal() == Command("netdev_del", {"id": "network-0"})
    assert "vhost" not in TapBackend("network-0", (7,)).option()[1]


@pytest.mark.parametrize(("part", "option", "addition", "removal"), PARTS, ids=[type(p[0]).__name__ for p in PARTS])
def test_a_part_reads_the_same_on_the_command_line_and_in_qmp(
    part: Part, option: tuple[str, str], addition: Command, removal: Command
) -> None:
    assert (part.option(), part.addition(), part.removal()) == (option, addition, removal)


def test_commas_in_values_are_doubled() -> None:
    assert words("first", {"path": "/a,b,,c"}) == "first,path=/a,,b,,,,c"
