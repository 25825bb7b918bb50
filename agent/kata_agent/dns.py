"""The guest's resolv.conf, where the root file system has one to cover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kata_agent import linux

RESOLV_CONF = Path("/etc/resolv.conf")


def cover_resolv_conf(lines: Sequence[str], own: Path, target: Path = RESOLV_CONF) -> None:
    """Write the lines to a file of our own and bind it over the guest's.

    Nothing is done without lines, or when the guest has no such file.

    Args:
        lines: Lines of resolv.conf.
        own: Where they are written.
        target: What is covered.

    Raises:
        OSError: The file cannot be written or mounted; the target is a directory.
    """
    if not lines or not target.exists():
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("".join(f"{line}\n" for line in lines))
    linux.mount(str(own), str(target), flags=linux.MS_BIND)
