from __future__ import annotations

from pathlib import Path

import pytest

from kata_qemu.parts import Backend, BlockNode, Command, Frontend, Part, SocketChardev, words

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


@pytest.mark.parametrize(("part", "option", "addition", "removal"), PARTS, ids=[type(p[0]).__name__ for p in PARTS])
def test_a_part_reads_the_same_on_the_command_line_and_in_qmp(
    part: Part, option: tuple[str, str], addition: Command, removal: Command
) -> None:
    assert (part.option(), part.addition(), part.removal()) == (option, addition, removal)


def test_commas_in_values_are_doubled() -> None:
    assert words("first", {"path": "/a,b,,c"}) == "first,path=/a,,b,,,,c"
