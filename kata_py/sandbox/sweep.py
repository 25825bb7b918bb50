"""What sandboxes have left on the node whose shims died, and of which no manager will ever ask again.

containerd runs `delete` for a shim that is gone. CRI-O has nothing of the kind: it removes the bundle, and the record
with all that is on it stays, until somebody sweeps.
"""

from __future__ import annotations

import logging
from pathlib import Path

from kata_py.sandbox import failure
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.record import Record

logger = logging.getLogger(__name__)


def sweep(root: Path, failures: Path) -> list[tuple[str, str]]:
    """Undo what is on record of sandboxes that have neither a shim nor a bundle any more. Blocks.

    What cannot be undone stays on record, and is told.

    Args:
        root: Where the records are.
        failures: Where is kept that their shims were killed.

    Returns:
        Namespace and id of those that are gone now.
    """
    swept: list[tuple[str, str]] = []
    for directory in root.iterdir() if root.is_dir() else ():
        try:
            # A record is claimed only when nobody else will ask for it: a manager's delete would find it taken.
            if not is_forsaken(Record.load(directory.name, root=root)):
                continue
            with Record.claimed(directory.name, root=root) as record:
                if not is_forsaken(record):
                    continue
                if lost := failure.of_loss(record):
                    failure.keep(lost, failures)
                left = record.unwind()
        except (SandboxError, OSError) as error:
            logger.debug("sandbox %s is not swept up: %s", directory.name, error)
            continue
        if left:
            logger.warning("sandbox %s: left behind by a shim that died: %s", directory.name, "; ".join(map(str, left)))
        else:
            logger.info("sandbox %s: what a shim that died has left is removed", directory.name)
            swept.append((record.namespace, record.id))
    return swept


def is_forsaken(record: Record) -> bool:
    """Whether a sandbox has neither a shim nor a bundle any more: nobody will ask for its removal."""
    return not record.shim.alive and bool(record.bundle) and not Path(record.bundle).exists()
