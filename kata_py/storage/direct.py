"""Volumes that a storage driver hands to the machine as disks, past the host's mounts: direct-assigned volumes.

The driver, or `kata-ctl direct-volume add`, leaves a description beside the path that the pod's mount names.
Source: kata `src/runtime/pkg/direct-volume/utils.go`, `docs/design/direct-blk-device-assignment.md`.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kata_py.resource import file
from kata_py.resource.journal import Journal, undone
from kata_py.resource.undo import RemoveFile
from kata_py.storage.errors import StorageError

ROOT = Path("/run/kata-containers/shared/direct-volumes")
_INFO = "mountInfo.json"


@dataclass(frozen=True, slots=True)
class DirectVolume:
    """A volume's description.

    Attributes:
        device: The disk: a block device, or an image file.
        fstype: Its file system.
        options: Options of its mount in the guest.
        metadata: What else is known: `fsGroup`, `fsGroupChangePolicy`, …
        volume_type: What the driver calls it: `directvol`, `block`.
    """

    device: Path
    fstype: str
    options: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    volume_type: str = "block"

    def to_json(self) -> str:
        """As it is kept on disk, and as `kata-ctl` takes it."""
        return json.dumps(
            {
                "volume-type": self.volume_type, "device": str(self.device), "fstype": self.fstype,
                "metadata": dict(self.metadata), "options": list(self.options),
            }
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str, source: str) -> DirectVolume:
        """Read a description.

        Raises:
            StorageError: It is garbled, or lacks device or file system; names the source.
        """
        try:
            content = json.loads(text)
            device, fstype = content["device"], content["fstype"]
            options, metadata = content.get("options") or [], content.get("metadata") or {}
            if not all(isinstance(each, str) for each in (device, fstype, *options, *metadata, *metadata.values())):
                raise TypeError("a value is no string")
            return cls(Path(device), fstype, tuple(options), metadata, content.get("volume-type", "block"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"direct-assigned volume: {source} cannot be used: {error!r}") from error


def place(path: str, root: Path = ROOT) -> Path:
    """Where the description of the volume that pods name by this path lies."""
    return root / base64.urlsafe_b64encode(path.encode()).decode()


def find(path: Path, root: Path = ROOT) -> DirectVolume | None:
    """The volume that pods name by this path, if there is one.

    Raises:
        StorageError: Its description cannot be used.
    """
    info = place(str(path), root) / _INFO
    try:
        text = info.read_text()
    except OSError:
        return None
    return DirectVolume.from_json(text, str(info))


def add(path: str, volume: DirectVolume, root: Path = ROOT) -> None:
    """Describe a volume, or describe it anew.

    Raises:
        OSError: The description cannot be written.
    """
    directory = place(path, root)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.replace(str(directory / _INFO), volume.to_json())


def remove(path: str, root: Path = ROOT) -> None:
    """Forget a volume; one that is not known is forgotten already."""
    shutil.rmtree(place(path, root), ignore_errors=True)


@contextmanager
def noted(path: Path, sandbox_id: str, journal: Journal, root: Path = ROOT) -> Iterator[None]:
    """Have it written down that the sandbox uses the volume, as `kata-ctl direct-volume stats` and `resize` look it up.

    Raises:
        OSError: It cannot be written.
    """
    note = place(str(path), root) / sandbox_id
    with undone(journal, RemoveFile(str(note))):
        note.touch()
        yield


def sandbox_of(path: str, root: Path = ROOT) -> str | None:
    """The sandbox that uses the volume; None if none does."""
    directory = place(path, root)
    names = [entry.name for entry in directory.iterdir() if entry.name != _INFO] if directory.is_dir() else []
    return names[0] if names else None
