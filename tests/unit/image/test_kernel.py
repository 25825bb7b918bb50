from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from image.errors import BuildError
from image.kernel import Kernel
from image.tree import File

PAYLOAD_OFFSET = 0x100
BUILTIN = "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n"


def module(*information: str) -> bytes:
    """An ELF file that has nothing but a module's words."""
    words = "".join(f"{each}\0" for each in information).encode()
    names = b"\0.modinfo\0.shstrtab\0"
    end = 64 + len(words) + len(names)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, end, 0, 64, 0, 0, 64, 3, 2)
    sections = ((0, 0, 0, 0), (1, 1, 64, len(words)), (10, 3, 64 + len(words), len(names)))
    table = [struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, at, size, 0, 0, 1, 0) for name, kind, at, size in sections]
    return head + words + names + b"".join(table)


def bzimage(payload: bytes) -> bytes:
    """A bzImage with one sector of set-up code."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, PAYLOAD_OFFSET, len(payload) + 4)
    return bytes(image) + bytes(PAYLOAD_OFFSET) + payload + struct.pack("<I", 4096)


def packed(data: bytes) -> bytes:
    return subprocess.run(["lz4", "-l", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


class Package:
    """A kernel package, as far as filled."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "content"
        self.path = directory / "kernel.deb"
        control = "Package: k\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n"
        self.add("DEBIAN/control", control.encode())
        self.add("lib/modules/6.1/modules.builtin", BUILTIN.encode())
        self.add("lib/modules/6.1/kernel/drivers/virtio/virtio.ko", module("depends=virtio_ring"))
        self.add("lib/modules/6.1/kernel/drivers/virtio/virtio_ring.ko", module("license=GPL", "depends="))
        rng = module("depends=virtio,crc-t10dif", "alias=virtio:d00000004v*", "alias=rng")
        self.add("lib/modules/6.1/kernel/drivers/char/virtio-rng.ko", rng)

    def add(self, path: str, data: bytes) -> None:
        place = self.directory / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def kernel(self, image: bytes = b"kernel") -> Kernel:
        self.add("boot/vmlinuz-6.1", image)
        subprocess.run(["dpkg-deb", "--build", "-Znone", self.directory, self.path], check=True, capture_output=True)
        return Kernel(self.path)


def test_the_kernel_inside_a_bzimage_is_unpacked(package: Package) -> None:
    program = Path("/bin/true").read_bytes()
    assert package.kernel(bzimage(packed(program))).image(compressed=True) == program


def test_an_image_that_boots_by_itself_is_taken_as_it_is(package: Package) -> None:
    kernel = package.kernel(b"s390x")
    assert kernel.image(compressed=False) == b"s390x"
    assert kernel.release == "6.1"


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (b"", "no bzImage"),
        (bytes(2048), "no bzImage"),
        (bzimage(b"\x28\xb5\x2f\xfd" + bytes(64)), "not packed with LZ4 but begins with 28b52ffd"),
        (bzimage(b"\x02\x21\x4c\x18" + b"\xff" * 64), "lz4 cannot unpack"),
        (bzimage(packed(b"no program")), "no ELF file"),
    ],
)
def test_what_is_no_such_image_is_refused(package: Package, image: bytes, cause: str) -> None:
    with pytest.raises(BuildError, match=cause):
        package.kernel(image).image(compressed=True)


def test_modules_come_after_those_they_build_on_and_without_what_is_built_in(package: Package) -> None:
    modules = package.kernel().modules(["ext4", "virtio_rng", "virtio"])
    assert [each.name for each in modules] == ["virtio_ring", "virtio", "virtio_rng"]


def test_an_unknown_module_is_named(package: Package) -> None:
    with pytest.raises(BuildError, match="has no module virtio_teapot"):
        package.kernel().modules(["virtio_teapot"])


def test_modprobe_is_told_paths_dependencies_and_aliases(package: Package) -> None:
    kernel = package.kernel()
    tree = kernel.tree(kernel.modules(["virtio_rng"]))
    texts = {path: node.data.decode() for path, node in tree.items() if isinstance(node, File) and ".ko" not in path}
    ring, virtio = "kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko"
    assert texts == {
        "usr/lib/modules/6.1/modules.alias": "alias virtio:d00000004v* virtio_rng\nalias rng virtio_rng\n",
        "usr/lib/modules/6.1/modules.dep": (
            f"{ring}:\n{virtio}: {ring}\nkernel/drivers/char/virtio-rng.ko: {virtio} {ring}\n"
        ),
        "usr/lib/modules/6.1/modules.symbols": "",
    }


def test_a_package_without_a_kernel_is_refused(package: Package, tmp_path: Path) -> None:
    package.kernel()
    (package.directory / "boot/vmlinuz-6.1").unlink()
    subprocess.run(["dpkg-deb", "--build", package.directory, package.path], check=True, capture_output=True)
    with pytest.raises(BuildError, match="holds 0 kernels"):
        Kernel(package.path)
