"""Where the management APIs of the sandboxes on this node are.

Kata's Go shim and ours have them in one place, runtime-rs in another. Source: kata
`src/runtime/pkg/utils/shimclient/shim_management_client.go`, `src/libs/shim-interface/src/lib.rs`.
"""

from __future__ import annotations

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
