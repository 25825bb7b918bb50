"""Compiles the guest's Python and packs what it starts with. Run by the guest's own interpreter, never imported.

    bytecode.py compile ROOT DIRECTORY
        Every source file in ROOT/DIRECTORY gives way to its bytecode, in which files have the guest's names.
    bytecode.py pack ROOT DIRECTORY NAME=MODULE[,MODULE...]...
        ROOT/DIRECTORY/NAME.pack holds the modules that importing those MODULEs loads, less those of packs before;
        ROOT/DIRECTORY/index says which pack holds a module. See guest/init.py for their form.

It imports nothing that is not built in or frozen, or that would be missing in the packs.
"""

# ruff: noqa: PTH107, PTH123
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

_UNCHECKED_HASH = (0b01).to_bytes(4, "little") + bytes(8)  # PEP 552: no time stamp, and no source to compare with
_HEADER = len(MAGIC_NUMBER + _UNCHECKED_HASH)


def compile_all(root: str, directory: str) -> None:
    """Replace sources by bytecode, in an order of names: what the bytes are depends on it."""
    for folder, folders, files in os.walk(f"{root}/{directory}"):
        folders.sort()
        for path in sorted(f"{folder}/{file}" for file in files if file.endswith(".py")):
            with open(path, "rb") as source:
                code = compile(source.read(), path.removeprefix(root), "exec", dont_inherit=True)
            with open(f"{path}c", "wb") as target:
                target.write(MAGIC_NUMBER + _UNCHECKED_HASH + marshal.dumps(code))
            os.remove(path)


def pack_all(root: str, directory: str, *packs: str) -> None:
    """Write the packs. The modules are imported for it: what loads what, only they know."""
    index: dict[str, str] = {}
    seen = set(sys.modules)  # the interpreter's own start brings these, in the guest too
    for pack, _, entries in (each.partition("=") for each in packs):
        for entry in entries.split(","):
            __import__(entry)
        origins = {name: _origin(name) for name in sorted(set(sys.modules) - seen)}
        code = {name: _code(origin) for name, origin in origins.items() if origin.endswith(".pyc")}
        with open(f"{root}/{directory}/{pack}.pack", "wb") as file:
            marshal.dump(code, file)
        index.update(dict.fromkeys(code, pack))
        seen.update(origins)
    with open(f"{root}/{directory}/index", "wb") as file:
        marshal.dump(index, file)


def _origin(name: str) -> str:
    spec = getattr(sys.modules[name], "__spec__", None)  # not all that stands there is a module
    return getattr(spec, "origin", None) or ""


def _code(path: str) -> object:
    with open(path, "rb") as file:
        return marshal.loads(file.read()[_HEADER:])


if __name__ == "__main__":
    {"compile": compile_all, "pack": pack_all}[sys.argv[1]](*sys.argv[2:])
