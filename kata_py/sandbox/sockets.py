"""Where the management APIs of the sandboxes on this node are.

Kata's Go shim and ours have them in one place, runtime-rs in another. Source: kata
`src/runtime/pkg/utils/shimclient/shim_management_client.go`, `src/libs/shim-interface/src/lib.rs`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOTS = (Path("/run/vc/sbs"), Path("/run/kata"))
SOCKET = "shim-monitor.sock"  # beside the sandbox's record


def serving(roots: tuple[Path, ...] = ROOTS) -> dict[str, Path]:
    """The sockets of all sandboxes that have one, by the sandbox's id; of two with an id that of the first root."""
    found: dict[str, Path] = {}
    for root in roots:
        for path in sorted(root.glob(f"*/{SOCKET}")):
            found.setdefault(path.parent.name, path)
    return found


def directories(root: Path) -> list[Path]:
    """The directories of all sandboxes below a root, by their ids; none where there is no such root.

    Raises:
        PermissionError: This user may not look into it: a pattern finds nothing there, and says nothing of it.
    """
    with contextlib.suppress(FileNotFoundError):
        return [path for path in sorted(root.iterdir()) if path.is_dir()]
    return []


def require_readable(roots: tuple[Path, ...] = ROOTS) -> None:
    """Make sure that this user sees all sandboxes that are served.

    Raises:
        PermissionError: There may be more than `serving` finds.
    """
    for root in roots:
        for directory in directories(root):
            with contextlib.suppress(FileNotFoundError):
                os.stat(directory / SOCKET)  # noqa: PTH116 (Path.exists keeps some errors to itself)
