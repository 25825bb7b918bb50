"""The root file system: Debian's part, our code, and the image of both."""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from image import wheel
from image.elf import Elf, is_elf
from image.errors import BuildError
from image.kernel import Kernel
from image.recipe import CODE_ROOT, DIST_PACKAGES, PYTHON, STDLIB, WHEELS_ROOT, Architecture, Flavour
from image.tree import Directory, File, Link, Tree, read_package
from image.wheel import Wheel

_HERE = Path(__file__).parent
_CLUSTER = 65536  # bytes that are unpacked at once
_UUID = "6b617461-7079-4775-9573-740000000000"  # fixed: the same content is the same image
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"  # where programs of Debian look for them


def unpack(
    flavour: Flavour,
    architecture: Architecture,
    packages: Iterable[Path],
    wheels: Iterable[tuple[Wheel, Path]] = (),
) -> Tree:
    """What the packages have of all that could be wanted: what is kept, and every library.

    Args:
        flavour: The guest's.
        architecture: The guest's.
        packages: Files of Debian's packages.
        wheels: Wheels and their files.

    Raises:
        BuildError: A package cannot be read.
    """
    files = Tree()
    libraries = (f"usr/lib/{architecture.multiarch}/*.so*", f"usr/{architecture.loader}")
    for package in packages:
        files.update(read_package(package, (*flavour.keep, *flavour.certificates, *libraries)))
    for each, path in wheels:
        files.update(wheel.read(path, each.keep, WHEELS_ROOT))
    return files


def debian_tree(flavour: Flavour, architecture: Architecture, kernel: Kernel, files: Tree) -> Tree:
    """Everything but our code: Debian's files, and the few that make them a system.

    Args:
        flavour: The guest's.
        architecture: The guest's.
        kernel: Whose modules it has for later.
        files: What the packages have.

    Raises:
        BuildError: A program lacks a library, or the kernel a module.
    """
    tree = files.matching((*flavour.keep, f"{WHEELS_ROOT}/**"))
    for path in [path for path in tree.nodes if _is_left_out(path, flavour)]:
        tree.remove(path)
    for path, target in flavour.links.items():
        tree.add(path, Link(target))
    tree.update(Tree(dict(files.trail(f"usr/{architecture.loader}"))))
    loader_directory = architecture.loader.partition("/")[0]
    tree.add(loader_directory, Link(f"usr/{loader_directory}"))
    _add_libraries(tree, files, f"usr/lib/{architecture.multiarch}")
    for path in flavour.directories:
        tree.add(path, Directory(0o1777 if path == "tmp" else 0o755))
    for path, text in flavour.texts.items():
        tree.add(path, File(text.encode(), executable=text.startswith("#!")))
    for path, name in flavour.scripts.items():
        tree.add(path, File((_HERE / "guest" / name).read_bytes(), executable=True))
    for path, other in flavour.copies.items():
        tree.add(path, tree.nodes[other])
    if flavour.certificates:
        tree.add(_CERTIFICATES, File(_bundle(files.matching(flavour.certificates))))
    tree.update(kernel.tree(kernel.modules(architecture.modules)))
    return tree


def code_tree(flavour: Flavour, checkout: Path) -> Tree:
    """Our part of the root, in source.

    Raises:
        BuildError: The checkout lacks a part.
    """
    tree = Tree()
    for name in flavour.programs:
        tree.add(f"{CODE_ROOT}/{name}", File((_HERE / "guest" / name).read_bytes()))
    for base, parts in flavour.code.items():
        for path in sorted(path for part in parts for path in _sources(checkout / base / part)):
            name = path.relative_to(checkout / base).as_posix()
            tree.add(f"{CODE_ROOT}/{name}", File(path.read_bytes()))
    return tree


def compile_python(architecture: Architecture, root: Path, directory: str) -> None:
    """Replace the Python sources in a directory of the root by bytecode.

    Raises:
        BuildError: One is no Python.
    """
    _python(architecture, root, "compile", str(root), directory)


def pack_code(flavour: Flavour, architecture: Architecture, root: Path) -> None:
    """Write the packs that PID 1 reads its modules from.

    Raises:
        BuildError: A module that the boot needs cannot be imported.
    """
    packs = (f"{pack}={','.join(entries)}" for pack, entries in flavour.packs.items())
    _python(architecture, root, "pack", str(root), CODE_ROOT, *packs)


def write_image(flavour: Flavour, root: Path, image: Path) -> None:
    """Make the root an erofs image; the same files give the same bytes.

    Raises:
        BuildError: mkfs.erofs failed.
    """
    hints = image.with_suffix(".hints")
    compressing = ["-zlz4hc,12", f"--compress-hints={hints}"]
    command = ["mkfs.erofs", "--quiet", "--all-root", "-x-1", "-T0", f"-U{_UUID}", *compressing, str(image), str(root)]
    try:
        image.unlink(missing_ok=True)
        hints.write_text("".join(f"{_CLUSTER} {pattern}\n" for pattern in flavour.compressed) + "0 .*\n")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("mkfs.erofs is not here", "run: apt-get install erofs-utils") from error
    finally:
        hints.unlink(missing_ok=True)
    if done.returncode:
        raise BuildError(f"mkfs.erofs failed: {done.stderr.strip()}", "is the disk full?")


def _is_left_out(path: str, flavour: Flavour) -> bool:
    if not path.startswith(f"{STDLIB}/"):
        return False
    name = path.removeprefix(f"{STDLIB}/").removeprefix("lib-dynload/").partition("/")[0].partition(".")[0]
    return any(fnmatch.fnmatchcase(name, pattern) for patterns in flavour.left_out.values() for pattern in patterns)


def _add_libraries(tree: Tree, files: Tree, directory: str) -> None:
    """Add the libraries that programs in the tree need, and those that these need."""
    todo = list(tree.nodes)
    while todo:
        path = todo.pop()
        node = tree.nodes[path]
        if not isinstance(node, File) or not is_elf(node.data):
            continue
        for name in Elf(node.data).needed():
            found = dict(files.trail(f"{directory}/{name}"))
            if not any(isinstance(each, File) for each in found.values()):
                raise BuildError(f"/{path} needs {name}, which is in no package", "add its package in recipe.py")
            todo += found.keys() - tree.nodes.keys()
            tree.update(Tree(found))


def _sources(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise BuildError(f"{path} is not there", "see the code in recipe.py")
    yield from (path,) if path.is_file() else path.rglob("*.py")


def _bundle(certificates: Tree) -> bytes:
    """Certificates in one file, in the order of their names."""
    texts = (node.data.strip() + b"\n" for _, node in certificates.items() if isinstance(node, File))
    bundle = b"".join(texts)
    if not bundle:
        raise BuildError("no package has certificates", "see the certificates in recipe.py")
    return bundle


def _python(architecture: Architecture, root: Path, *arguments: str) -> None:
    """Run bytecode.py on the root, whose libraries in Python it uses: what it writes is what it reads in the guest."""
    paths = [root / CODE_ROOT, root / DIST_PACKAGES]
    if architecture.machine == os.uname().machine:
        libraries = root / "usr/lib" / architecture.multiarch
        loader = libraries / Path(architecture.loader).name
        interpreter: list[str | Path] = [loader, "--library-path", libraries, root / "usr/bin" / PYTHON]
    else:
        interpreter = [_like_the_guests(architecture)]
        paths.append(Path(sysconfig.get_config_var("DESTSHARED")))  # modules in C, of which it cannot load the root's
    options = ("-s", "-S", "-P", "-B", _HERE / "bytecode.py")
    environment = {
        "PYTHONHOME": f"{root}/usr",
        "PYTHONPATH": ":".join(str(path) for path in paths),
        "PYTHONHASHSEED": "0",  # the order of sets in the bytecode
    }
    command = [*interpreter, *options, *arguments]
    done = subprocess.run(command, env=environment, umask=0o022, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"the guest's Python cannot be prepared:\n{done.stderr.strip()}", "mend what it says above")


def _like_the_guests(architecture: Architecture) -> Path:
    """This interpreter, if its bytecode is the guest's, which is the same on any processor.

    Packs then hold what is imported where protobuf has no C++: a little more than the guest reads.
    """
    if sys.implementation.cache_tag != f"cpython-{PYTHON.removeprefix('python').replace('.', '')}":
        raise BuildError(
            f"this machine cannot run {PYTHON} of {architecture.machine}, nor is its own the same",
            f"build the guest on one that can, or by {PYTHON}",
        )
    return Path(sys.executable).resolve()  # not by the way of a virtual environment, which has paths of its own
