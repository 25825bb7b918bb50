"""The disk's parts, read back by other programs than wrote them, or by their specifications."""

from __future__ import annotations

import hashlib
import itertools
import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

from image import gpt, zipl
from image.disk import TOOLS, Content, pack_disk, write_disk
from image.errors import BuildError
from image.fat import file_system
from image.gpt import SECTOR
from image.tree import File, Tree
from image.uki import unified

MEBIBYTE = 1 << 20
EFI = "EFI/BOOT/BOOTX64.EFI"
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
GRUB = Path("/usr/lib/grub/i386-pc")


def sections(program: bytes) -> dict[str, tuple[int, int, int, int]]:
    """Address and size in memory, place and size in the file, by name."""
    signature = struct.unpack_from("<I", program, 0x3C)[0]
    count, options = struct.unpack_from("<H12xH", program, signature + 6)
    table = signature + 24 + options
    heads = [struct.unpack_from("<8sIIII", program, table + 40 * number) for number in range(count)]
    return {name.rstrip(b"\0").decode(): (address, size, place, length) for name, size, address, length, place in heads}


def kernel_of_s390x() -> bytes:
    kernel = bytearray(range(256)) * 1024
    kernel[0x10008:0x1000E] = b"S390EP"
    return bytes(kernel)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    root = tmp_path / "root.img"
    root.write_bytes(b"root" * 100_000)
    tools = Tree()
    for path in (STUB, *GRUB.iterdir()):
        if path.is_file():
            tools.add(str(path).lstrip("/"), File(path.read_bytes()))
    return Content(b"kernel" * 9999, b"initramfs" * 999, root, "the-root", "console=none", tools)


def partition(disk: bytes, number: int) -> tuple[str, int, int]:
    """Label, first byte and end of a partition."""
    kind, _, first, last, _, label = struct.unpack_from("<16s16sQQQ72s", disk, 2 * SECTOR + 128 * number)
    assert uuid.UUID(bytes_le=kind).int
    return label.decode("utf-16-le").rstrip("\0"), first * SECTOR, (last + 1) * SECTOR


def test_both_tables_have_true_checksums_and_name_each_other() -> None:
    partitions, sectors = gpt.place((("one", gpt.RESERVED, 1), ("two", gpt.EFI_SYSTEM, MEBIBYTE + 1)))
    assert [(each.first, each.sectors) for each in partitions] == [(2048, 1), (4096, 2049)]
    first, last = gpt.tables(partitions, sectors)
    assert first[510:512] == b"\x55\xaa"
    for header, entries in ((first[SECTOR:], first[2 * SECTOR :]), (last[-SECTOR:], last)):
        words = struct.unpack_from("<8sIIIIQQQQ16sQIII", header)
        assert words[0] == b"EFI PART"
        assert words[3] == zlib.crc32(header[:16] + bytes(4) + header[20:92])
        assert words[13] == zlib.crc32(entries[: 128 * 128])
    here, there = (struct.unpack_from("<QQ", each, 24) for each in (first[SECTOR:], last[-SECTOR:]))
    assert here == (1, sectors - 1) == tuple(reversed(there))


def test_the_file_system_is_sound_and_its_file_where_it_says(tmp_path: Path) -> None:
    data = b"0123456789" * 100_001
    system = file_system(40 * MEBIBYTE, EFI, data)
    place = tmp_path / "efi"
    place.write_bytes(system.data)
    with place.open("r+b") as file:
        file.truncate(40 * MEBIBYTE)
    checked = subprocess.run(["fsck.fat", "-n", place], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    read = subprocess.run(["mtype", "-i", place, f"::{EFI}"], capture_output=True, check=True)
    assert read.stdout == data == system.data[system.file * SECTOR :]


@pytest.mark.parametrize("size", [MEBIBYTE, 40 * MEBIBYTE])
def test_a_file_system_that_would_be_too_small_is_refused(size: int) -> None:
    with pytest.raises(BuildError, match="does not fit"):
        file_system(size, EFI, bytes(40 * MEBIBYTE))


def test_a_unified_image_has_what_the_stub_has_and_the_new_sections_beyond(content: Content) -> None:
    stub = STUB.read_bytes()
    program, places = unified(stub, ((".linux", b"kernel" * 1000), (".initrd", b"files")))
    before, after = sections(stub), sections(program)
    assert list(after) == [*before, ".linux", ".initrd"]
    assert all(after[name] == before[name] for name in before)
    for name, data in ((".linux", b"kernel" * 1000), (".initrd", b"files")):
        assert program[places[name].offset :][: places[name].size] == data
        assert places[name].offset % SECTOR == 0
        assert after[name][1:3] == (len(data), places[name].offset)
    spans = sorted((address, address + size) for address, size, *_ in after.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("stub", [b"", b"MZ" + bytes(200), STUB.read_bytes().replace(b"\x0b\x02", b"\x0b\x01", 1)])
def test_what_is_no_stub_is_refused(stub: bytes) -> None:
    with pytest.raises(BuildError, match="the stub"):
        unified(stub, ())


def test_a_bios_reads_kernel_and_initramfs_out_of_what_uefi_starts(content: Content, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    write_disk("x86_64", content, disk)
    data = disk.read_bytes()
    assert [partition(data, number)[0] for number in range(3)] == ["kata-grub", "kata-efi", "the-root"]
    _, grub, _ = partition(data, 0)
    assert struct.unpack_from("<Q", data, 0x5C)[0] * SECTOR == grub
    assert struct.unpack_from("<Q", data, grub + 500)[0] * SECTOR == grub + SECTOR
    _, efi, end = partition(data, 1)
    (tmp_path / "efi").write_bytes(data[efi:end])
    program = subprocess.run(["mtype", "-i", tmp_path / "efi", f"::{EFI}"], capture_output=True, check=True).stdout
    own = sections(program)
    assert program[own[".cmdline"][2] :][: own[".cmdline"][1]] == b"console=none"
    for name, wanted in ((".linux", content.kernel), (".initrd", content.initramfs)):
        assert program[own[name][2] :][: own[name][1]] == wanted
    _, root, end = partition(data, 2)
    assert data[root:end].rstrip(b"\0") == content.root.read_bytes()


@pytest.mark.parametrize("machine", ["x86_64", "s390x"])
def test_the_same_content_is_the_same_disk_raw_and_packed(content: Content, tmp_path: Path, machine: str) -> None:
    if machine == "s390x":
        content = Content(kernel_of_s390x(), b"initramfs", content.root, "the-root", "console=none", Tree())
    digests = set()
    for number in range(2):
        raw, packed = tmp_path / f"{number}.raw", tmp_path / f"{number}.qcow2"
        write_disk(machine, content, raw)
        pack_disk(raw, packed)
        digests.add(tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (raw, packed)))
    assert len(digests) == 1


def test_a_machine_that_boots_no_disk_is_named(content: Content, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no disk boots on vax"):
        write_disk("vax", content, tmp_path / "disk")


def test_a_disk_without_its_loader_is_refused(content: Content, tmp_path: Path) -> None:
    lacking = Content(content.kernel, content.initramfs, content.root, "the-root", "", Tree())
    with pytest.raises(BuildError, match=f"no package has /{TOOLS[0]}"):
        write_disk("x86_64", lacking, tmp_path / "disk")


def memory(disk: bytes) -> tuple[dict[int, bytes], int]:
    """What firmware of s390x loads from a disk, by address, and the word that it starts with."""

    def block(number: int) -> bytes:
        return disk[number * SECTOR : (number + 1) * SECTOR]

    def pointer(data: bytes) -> tuple[int, int]:
        number, size, more = struct.unpack_from(">QHH", data)
        assert number == 0 or size == SECTOR
        return number, more + 1

    assert block(0)[:8] == b"zIPL\0\0\0\1"
    programs = block(pointer(block(0)[16:])[0])
    program = block(pointer(programs[16:])[0])
    assert programs[:4] == program[:4] == b"zIPL"
    loaded: dict[int, bytes] = {}
    for place in range(32, SECTOR, 32):
        kind, word = struct.unpack_from(">BQ", program, place + 23)
        if kind == 1:
            return loaded, word
        table = block(pointer(program[place:])[0])
        runs = (pointer(table[at:]) for at in range(0, SECTOR, 16))
        loaded[word] = b"".join(disk[first * SECTOR : (first + count) * SECTOR] for first, count in runs if first)
    raise AssertionError("nothing is started")


def test_firmware_of_s390x_loads_a_kernel_that_knows_its_initramfs_and_parameters(
    content: Content, tmp_path: Path
) -> None:
    kernel, initramfs = kernel_of_s390x(), bytes(range(1, 251)) * 150_000  # more than one pointer leads to
    disk = tmp_path / "disk"
    write_disk("s390x", Content(kernel, initramfs, content.root, "the-root", "console=none", Tree()), disk)
    data = disk.read_bytes()
    assert partition(data, 1)[0] == "the-root"
    loaded, word = memory(data)
    assert word == 0x0008000080010000
    started = loaded[0x10000]
    place, size = struct.unpack_from(">QQ", started, 0x408)
    assert loaded[place][:size] == initramfs
    assert started[0x480:].startswith(b"console=none\0")
    assert started[0x800 : len(kernel) - 0x10000] == kernel[0x10800:]


def test_what_is_no_kernel_of_s390x_is_refused() -> None:
    with pytest.raises(BuildError, match="none of s390x"):
        zipl.components(bytes(0x20000), b"", "")


def test_parameters_for_which_the_kernel_has_no_room_are_refused() -> None:
    with pytest.raises(BuildError, match="900 bytes of kernel parameters"):
        zipl.components(kernel_of_s390x(), b"", "x" * 900)
