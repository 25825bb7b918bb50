"""The kernel and its modules, out of Debian's package.

Source: Linux `Documentation/arch/x86/boot.rst` (the bzImage), modules.dep(5), modinfo(8).
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from image.elf import Elf, is_elf
from image.errors import BuildError
from image.tree import File, Tree, read_package

_LZ4_LEGACY = b"\x02\x21\x4c\x18"


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module.

    Attributes:
        name: As the kernel has it.
        path: In the root.
        data: Its file.
        depends: Names of the modules it builds on.
        aliases: Patterns of what it can be asked for by: devices, file systems, protocols.
    """

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


class Kernel:
    """A kernel package's content.

    Args:
        package: Path of the package.

    Raises:
        BuildError: It holds no kernel.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        self._tree = read_package(package, ("boot/vmlinuz-*", "usr/lib/modules/**"))
        images = [path for path in self._tree.nodes if path.startswith("boot/vmlinuz-")]
        if len(images) != 1:
            raise BuildError(f"{package} holds {len(images)} kernels", "expected one: see kernel_package in recipe.py")
        self._image = images[0]
        self.release = images[0].removeprefix("boot/vmlinuz-")
        self._directory = f"usr/lib/modules/{self.release}"
        self._paths = {_name(path): path for path in self._tree.nodes if path.endswith(".ko")}
        self._builtin = {_name(line) for line in self._text(f"{self._directory}/modules.builtin").split()}

    def image(self, *, compressed: bool) -> bytes:
        """The kernel as QEMU starts it the fastest.

        Args:
            compressed: It is a bzImage; the ELF file inside is wanted.

        Raises:
            BuildError: It is no bzImage whose payload is LZ4.
        """
        return _uncompressed(self._file(self._image)) if compressed else self._file(self._image)

    def modules(self, names: Iterable[str]) -> tuple[Module, ...]:
        """Modules with all that they build on, in the order to load them in. What is built in needs no loading.

        Raises:
            BuildError: The kernel has no such module.
        """
        order: dict[str, Module] = {}
        for name in names:
            self._collect(name, order)
        return tuple(order.values())

    def tree(self, modules: Iterable[Module]) -> Tree:
        """Modules where modprobe looks for them, with what it has to know of them.

        Debian's signatures stay on: a kernel that is locked down asks for them.
        """
        tree = Tree()
        dependencies, aliases = [], []
        for module in modules:
            tree.add(module.path, File(module.data))
            below = [each.path for each in reversed(self.modules(module.depends))]
            first, *others = (path.removeprefix(f"{self._directory}/") for path in (module.path, *below))
            dependencies.append(" ".join((f"{first}:", *others)))
            aliases += [f"alias {alias} {module.name}" for alias in module.aliases]
        for name, lines in (("modules.dep", dependencies), ("modules.alias", aliases), ("modules.symbols", [])):
            tree.add(f"{self._directory}/{name}", File("".join(f"{line}\n" for line in lines).encode()))
        return tree

    def _collect(self, name: str, order: dict[str, Module]) -> None:
        if name in order or name in self._builtin:
            return
        path = self._paths.get(name)
        if path is None:
            raise BuildError(f"kernel {self.release} has no module {name}", "see the modules in recipe.py")
        data = self._file(path)
        information = [field.decode().partition("=") for field in Elf(data).section(".modinfo").split(b"\0")]
        needs = ",".join(value for key, _, value in information if key == "depends")
        depends = [_name(each) for each in needs.split(",") if each]
        for below in depends:
            self._collect(below, order)
        aliases = [value for key, _, value in information if key == "alias"]
        order[name] = Module(name, path, data, tuple(depends), tuple(aliases))

    def _file(self, path: str) -> bytes:
        node = self._tree.nodes.get(path)
        if not isinstance(node, File):
            raise BuildError(f"{self._package} has no {path}", "remove it and build again")
        return node.data

    def _text(self, path: str) -> str:
        return self._file(path).decode()


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def _uncompressed(image: bytes) -> bytes:
    hint = "Debian has changed how it packs kernels: set kernel_compressed to False in recipe.py, and start slower"
    if image[0x202:0x206] != b"HdrS":
        raise BuildError("the kernel is no bzImage", hint)
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length - 4]  # without its size, which follows
    if not payload.startswith(_LZ4_LEGACY):
        raise BuildError(f"the kernel is not packed with LZ4 but begins with {payload[:4].hex()}", hint)
    try:
        done = subprocess.run(["lz4", "-dc"], input=payload, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise BuildError("lz4 is not here", "run: apt-get install lz4") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"lz4 cannot unpack the kernel: {error.stderr.decode().strip()}", hint) from error
    if not is_elf(done.stdout):
        raise BuildError("what the bzImage holds is no ELF file", hint)
    return done.stdout
