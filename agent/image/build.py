"""Build the guest: kernel, initramfs and root image, from Debian packages and this checkout.

    python -m image.build --output build/guest
    python -m image.build --flavour peer --output build/podvm/x86_64

What is made depends on the packages and the sources alone; it is made again only if one of them changed, and the
Debian part not for a change of our own code.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from image import root, wheel
from image.archive import Archive, Package
from image.disk import TOOLS, Content, pack_disk, write_disk
from image.errors import BuildError
from image.initramfs import initramfs
from image.kernel import Kernel
from image.peer import PEER
from image.recipe import CODE_ROOT, LOCAL, Architecture, Flavour
from image.tree import File, Tree, read_package

KERNEL, INITRAMFS, IMAGE = LOCAL.kernel, "initramfs.img", "kata-containers.img"
BOOT, MANIFEST = "boot.json", "manifest.json"
RAW_DISK, DISK = "podvm.raw", "podvm.qcow2"
CHECKOUT = Path(__file__).parents[2]
FLAVOURS = {flavour.name: flavour for flavour in (LOCAL, PEER)}
_HERE = Path(__file__).parent
_SPACE = 600 << 20  # bytes that a first build takes


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser("image.build", description="Build the guest from Debian packages.")
    parser.add_argument("--output", type=Path, default=CHECKOUT / "build/guest", help="directory of the results")
    parser.add_argument("--flavour", choices=FLAVOURS, default=LOCAL.name, help="which guest (default: local)")
    parser.add_argument("--machine", choices=LOCAL.architectures, help="the guest's architecture, if not ours")
    parser.add_argument("--update", action="store_true", help="take the newest packages, not those of the last build")
    options = parser.parse_args(arguments)
    machine = options.machine or os.uname().machine
    flavour = FLAVOURS[options.flavour]
    if machine not in flavour.architectures:
        parser.error(f"no guest for {machine}; there are those for {', '.join(flavour.architectures)}")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"==> guest: {text}", flush=True)

    try:
        changed = Build(flavour, flavour.architectures[machine], options.output, say).run(update=options.update)
    except BuildError as error:
        print(f"guest: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"guest: {error}\n  is the disk full, or {options.output} not ours?", file=sys.stderr)
        return 1
    say(f"{options.output} in {time.monotonic() - began:.0f} s" if changed else f"{options.output} is up to date")
    return 0


class Build:
    """One guest.

    Args:
        flavour: What it is for.
        architecture: Its architecture.
        output: Directory of the results; `cache/` in it keeps packages and the unpacked root.
        say: Told of each step that takes time.
    """

    def __init__(self, flavour: Flavour, architecture: Architecture, output: Path, say: Callable[[str], None]) -> None:
        self._flavour = flavour
        self._architecture = architecture
        self._output = output
        self._cache = output / "cache" / architecture.debian
        self._root = self._cache / "root"
        self._say = say

    def run(self, *, update: bool = False) -> bool:
        """Build what is not there or out of date; returns whether anything was.

        Args:
            update: Take the newest packages.

        Raises:
            BuildError: It cannot be built; says why and what to do.
            OSError: A file could not be written.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time
            self._check_space()
            archive = Archive(self._architecture, self._cache, self._say)
            boot_packages = self._architecture.disk_packages
            packages = archive.packages((*self._flavour.packages, *boot_packages), update=update)
            code = root.code_tree(self._flavour, CHECKOUT)
            debian_inputs = _digest(*_recipe(), *(package.sha256.encode() for package in packages))
            inputs = _digest(debian_inputs.encode(), *_contents(code))
            manifest, debian = self._output / MANIFEST, self._cache / "root.json"
            if self._holds(manifest, inputs):
                return False
            manifest.unlink(missing_ok=True)
            if not self._holds(debian, debian_inputs):
                debian.unlink(missing_ok=True)
                self._make_debian_part([archive.path(each) for each in packages if each.name not in boot_packages])
                files = self._files(self._flavour.kernel, INITRAMFS)
                debian.write_bytes(_json({"inputs": debian_inputs, "files": files}))
            self._make_image(code)
            if self._flavour.root_label:
                self._make_disk([archive.path(each) for each in packages if each.name in boot_packages])
            self._write_manifest(inputs, packages)
            return True

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._cache).free
        if free < _SPACE and not self._root.is_dir():
            raise BuildError(
                f"{self._cache} has {free >> 20} MiB free", f"a first build needs {_SPACE >> 20} MiB: make room"
            )

    def _holds(self, record: Path, inputs: str) -> bool:
        """Whether a record tells of these inputs, and the files it names are as it says."""
        try:
            told = json.loads(record.read_text())
            return bool(told["inputs"] == inputs and told["files"] == self._files(*told["files"]))
        except (FileNotFoundError, ValueError, KeyError):
            return False

    def _make_debian_part(self, packages: Sequence[Path]) -> None:
        flavour, architecture = self._flavour, self._architecture
        self._say("kernel")
        kernel = Kernel(packages[0])
        self._write(flavour.kernel, kernel.image(compressed=architecture.kernel_compressed))
        self._say("initramfs")
        wheels = [(each, wheel.fetch(each, self._cache / "wheels", self._say)) for each in architecture.wheels]
        files = root.unpack(flavour, architecture, packages[1:], wheels)
        self._write(INITRAMFS, initramfs(flavour, architecture, kernel, files).cpio(), flavour.initramfs_limit)
        self._say("root: Debian's part, byte-compiled")
        tree = root.debian_tree(flavour, architecture, kernel, files)
        shutil.rmtree(self._root, ignore_errors=True)
        tree.write(self._root)
        root.compile_python(architecture, self._root, "usr/lib")

    def _make_image(self, code: Tree) -> None:
        self._say("root: the agent, and the image")
        shutil.rmtree(self._root / CODE_ROOT, ignore_errors=True)
        code.write(self._root)
        root.compile_python(self._architecture, self._root, CODE_ROOT)
        root.pack_code(self._flavour, self._architecture, self._root)
        image = self._output / f"{IMAGE}.new"
        root.write_image(self._flavour, self._root, image)
        _check_size(image, self._flavour.image_limit)
        image.replace(self._output / IMAGE)

    def _make_disk(self, packages: Sequence[Path]) -> None:
        flavour = self._flavour
        self._say("disk")
        tools = Tree()
        for package in packages:
            tools.update(read_package(package, TOOLS))
        root = (f"root=PARTLABEL={flavour.root_label}", "rootfstype=erofs", "ro")
        content = Content(
            kernel=(self._output / flavour.kernel).read_bytes(),
            initramfs=(self._output / INITRAMFS).read_bytes(),
            root=self._output / IMAGE,
            root_label=flavour.root_label,
            parameters=" ".join((*self._architecture.parameters, *root)),
            tools=tools,
        )
        raw, packed = (self._output / f"{name}.new" for name in (RAW_DISK, DISK))
        write_disk(self._architecture.machine, content, raw)
        pack_disk(raw, packed)
        _check_size(packed, flavour.disk_limit)
        raw.replace(self._output / RAW_DISK)
        packed.replace(self._output / DISK)

    def _write_manifest(self, inputs: str, packages: Sequence[Package]) -> None:
        boot = {
            "kernel": self._flavour.kernel,
            "initramfs": INITRAMFS,
            "image": IMAGE,
            "image_fstype": "erofs",
            "parameters": self._architecture.parameters,
        }
        self._write(BOOT, _json(boot))
        disks = (RAW_DISK, DISK) if self._flavour.root_label else ()
        manifest = {
            "machine": self._architecture.machine,
            "inputs": inputs,
            "files": self._files(self._flavour.kernel, INITRAMFS, IMAGE, BOOT, *disks),
            "packages": [asdict(package) for package in packages],
            "wheels": [asdict(each) for each in self._architecture.wheels],
        }
        self._write(MANIFEST, _json(manifest))

    def _files(self, *names: str) -> dict[str, dict[str, int | str]]:
        files: dict[str, dict[str, int | str]] = {}
        for name in names:
            with (self._output / name).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = {"size": (self._output / name).stat().st_size, "sha256": sha256}
        return files

    def _write(self, name: str, data: bytes, limit: int | None = None) -> None:
        """Write beside and rename: a machine that runs on the old file keeps it."""
        new = self._output / f"{name}.new"
        new.write_bytes(data)
        if limit is not None:
            _check_size(new, limit)
        new.replace(self._output / name)


def _check_size(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size > limit:
        raise BuildError(f"{path.stem} has {size >> 10} KiB, more than {limit >> 10}", "see what recipe.py puts in")


def _recipe() -> Iterator[bytes]:
    for path in sorted([*_HERE.glob("*.py"), *_HERE.glob("guest/*")]):
        yield path.read_bytes()


def _contents(tree: Tree) -> Iterator[bytes]:
    for path, node in tree.items():
        if isinstance(node, File):
            yield path.encode()
            yield node.data


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


if __name__ == "__main__":
    sys.exit(main())
