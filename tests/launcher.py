"""The shim's program as it is installed, plus the drivers that only tests have."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

_TEXT = """\
#!{python} -I
import sys
sys.path[:0] = {path!r}
from kata_py.shim.command import main
sys.exit(main())
"""


def write(directory: Path, *first: Path) -> Path:
    """Write the program below the directory, which is made, and return its path.

    Args:
        directory: Where it goes.
        first: What it looks for modules in before all else.
    """
    path = directory / "containerd-shim-kata-v2"
    path.parent.mkdir(parents=True, exist_ok=True)
    directories = [*first, REPOSITORY, REPOSITORY / "tests" / "drivers"]
    path.write_text(_TEXT.format(python=sys.executable, path=list(map(str, directories))))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
