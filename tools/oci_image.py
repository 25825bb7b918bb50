"""A small OCI image made on the spot from Debian's busybox-static: no registry, no network.

Source of the formats: OCI image specification 1.0, `image-layout.md`, `manifest.md`, `config.md`.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REFERENCE = "docker.io/library/kata-py-busybox:latest"
SHELL = ("/bin/sh",)
BUSYBOX = Path("/bin/busybox")

_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nmail:x:8:nobody\nnogroup:x:65534:\n",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file that an image has besides busybox; its mode may have the set-user-id bit."""

    data: bytes
    mode: int = 0o755


def build(
    path: Path,
    reference: str = REFERENCE,
    command: Sequence[str] = SHELL,
    files: Mapping[str, File] | None = None,
) -> None:
    """Write the image as an OCI archive that `ctr images import` reads.

    Args:
        path: The archive to write; its directory must exist.
        reference: The image's name.
        command: What its containers run if they are not told otherwise.
        files: What it has besides busybox, by path from the root.

    Raises:
        FileNotFoundError: There is no `/bin/busybox` (Debian package busybox-static).
    """
    layer = _layer(files or {})
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": list(command), "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    index = {
        "schemaVersion": 2,
        "manifests": [
            _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
            | {"annotations": {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": "latest"}}
        ],
    }
    with tarfile.open(path, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json(index))
        for blob in (layer, config, manifest):
            _add(archive, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)


def rootfs(directory: Path) -> None:
    """Unpack the image's only layer: a root file system for tests that need no containerd."""
    with tarfile.open(fileobj=io.BytesIO(_layer({}))) as layer:
        layer.extractall(directory)


def copy(rootfs: Path, to: Path) -> None:
    """Copy a root file system to a new directory, whose parents are made, with its hard links as such.

    Copied one by one, the applets would be hundreds of megabytes.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["/bin/cp", "--archive", rootfs, to], check=True)


def _layer(files: Mapping[str, File]) -> bytes:
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for name in _DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            layer.addfile(entry)
        for name, text in _FILES.items():
            _add(layer, name, text.encode())
        _add(layer, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            # Hard links, so that one applet can be masked and the others stay; a link's mode is its file's.
            entry.type, entry.linkname, entry.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            layer.addfile(entry)
        for name, file in files.items():
            _add(layer, name, file.data, mode=file.mode)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}
