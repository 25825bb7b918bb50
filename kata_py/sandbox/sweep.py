"""What sandboxes have left on the node whose shims died, and of which no manager will ever ask again.

containerd runs `delete` for a shim that is gone. CRI-O has nothing of the kind: it removes the bundle, or fails to, as
it cannot stop a pod whose shim is dead. The record with all that is on it stays, and so does the shim's socket, until
somebody sweeps.
"""

from __future__ import annotations

import logging
from pathlib import Path

from kata_py.oci.errors import SpecError
from kata_py.oci.load import load_spec
from kata_py.sandbox import failure, shims
from kata_py.sandbox.errors import SandboxError
from kata_py.sandbox.paths import HostPaths
from kata_py.sandbox.pod import managed_by_crio
from kata_py.sandbox.record import Record

logger = logging.getLogger(__name__)


def sweep(paths: HostPaths) -> None:
    """Undo what is on record of sandboxes without a shim for which nobody will ask, and remove their sockets.

    What cannot be undone stays on record, and is told. Blocks.

    Raises:
        OSError: The records cannot be listed, or a socket cannot be removed.
    """
    for directory in paths.records.iterdir() if paths.records.is_dir() else ():
        try:
            # A record is claimed only when nobody else will ask for it: a manager's delete would find it taken.
            if not is_forsaken(Record.load(directory.name, root=paths.records)):
                continue
            with Record.claimed(directory.name, root=paths.records) as record:
                if not is_forsaken(record):
                    continue
                if lost := failure.of_loss(record):
                    failure.keep(lost, paths.failures)
                left = record.unwind()
        except (SandboxError, OSError) as error:
            logger.debug("sandbox %s is not swept up: %s", directory.name, error)
            continue
        if left:
            logger.warning("sandbox %s: left behind by a shim that died: %s", directory.name, "; ".join(map(str, left)))
        else:
            logger.info("sandbox %s: what a shim that died has left is removed", directory.name)
    shims.sweep(str(paths.shims))


def is_forsaken(record: Record) -> bool:
    """Whether a sandbox has no shim any more, and nobody will ask for its removal.

    Also one that a shim had hardly begun when it was killed, or had all but removed: there is nothing to ask for. Whose
    shim lives and is about to begin it begins anew.
    """
    return not record.shim.alive and not (record.begun and _is_asked_for(Path(record.bundle)))


def _is_asked_for(bundle: Path) -> bool:
    """Whether a manager will ask for the removal of what goes with a bundle: CRI-O never does, others do."""
    try:
        return not managed_by_crio(load_spec(bundle).get("annotations", {}))
    except SpecError:
        return bundle.exists()
