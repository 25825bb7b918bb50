"""PID 1 of a guest: the agent, with its modules taken from packs.

A pack is one marshalled dictionary of code by module name. Under emulation the interpreter has a hundred modules
from a pack in half the time that as many .pyc files take; what is in no pack it finds as ever.
"""

# ruff: noqa: PTH123 pathlib is an import that the boot would wait for
import gc
import marshal
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

ROOT = "/usr/lib/kata-agent"


class Packs:
    """Finds and loads modules; a pack is read when a module of it is first asked for.

    Args:
        index: The pack's name, by module name.
    """

    def __init__(self, index: dict[str, str]) -> None:
        self._index = index
        self._code: dict[str, CodeType] = {}  # of the packs read, what is not yet loaded

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The import system asks for a module."""
        pack = self._index.get(name)
        if pack is None:
            return None
        if name not in self._code:
            with open(f"{ROOT}/{pack}.pack", "rb") as file:
                self._code.update(marshal.loads(file.read()))
        origin = self._code[name].co_filename
        directory, _, file_name = origin.rpartition("/")
        spec = ModuleSpec(name, self, origin=origin, is_package=file_name == "__init__.py")  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(directory)
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system's own kind of module will do."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run a module's code, and forget it: what is left of it the module keeps."""
        exec(self._code.pop(module.__name__), module.__dict__)


gc.set_threshold(50_000, 20, 20)  # a boot makes much that stays, and little rubbish
_archive, stdlib, extensions = sys.path
sys.path[:] = [extensions, ROOT, stdlib, "/usr/lib/python3/dist-packages"]  # in the order of what packs do not have
with open(f"{ROOT}/index", "rb") as index:
    sys.meta_path.insert(0, Packs(marshal.load(index)))

from kata_agent.__main__ import main  # noqa: E402 found by what stands above

sys.exit(main())
