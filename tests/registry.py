"""A real registry for tests, Debian's docker-registry, filled by skopeo with images that are made on the spot.

It listens on the loopback of a network namespace, so that whoever lives there reaches it.
Source of the formats: OCI image specification 1.0, `image-layout.md`, `manifest.md`, `layer.md`.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.oci_image import BUSYBOX

USER, PASSWORD = "kata", "s3cret"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n"  # bcrypt, the only one it takes
_START_TIMEOUT = 10.0  # seconds
_COPY_TIMEOUT = 30.0

_CONFIG = """\
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "{host}:0"{tls}}}
{auth}
"""
_TLS = ", tls: {{certificate: {certificate}, key: {key}}}"
_AUTH = "auth: {{htpasswd: {{realm: tests, path: {path}}}}}"


@dataclass(frozen=True)
class Entry:
    """Something in a layer.

    Attributes:
        data: A file's content; None makes a directory.
        mode: Its permissions.
        owner: Its user and group.
        link: What it links to, if it is a symbolic link.
        attributes: Its extended attributes.
    """

    data: bytes | None = b""
    mode: int = 0o644
    owner: int = 0
    link: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


DIRECTORY = Entry(None, 0o755)


def layer(entries: Mapping[str, Entry], *, packed: str = "gzip") -> tuple[bytes, str]:
    """A layer with these entries, and its media type.

    Args:
        entries: By path.
        packed: How: gzip, zstd, or nothing.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, entry in entries.items():
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in entry.attributes.items()}
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            elif entry.data is None:
                info.type = tarfile.DIRTYPE
            info.size = len(entry.data or b"") if info.isreg() else 0
            archive.addfile(info, io.BytesIO(entry.data or b""))
    return pack(buffer.getvalue(), packed)


def layer_of(directory: Path) -> tuple[bytes, str]:
    """A layer with all that is in a directory, as root's."""

    def as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        return entry

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(directory, arcname=".", filter=as_root)
    return pack(buffer.getvalue())


def write_pause_bundle(directory: Path) -> Path:
    """Write what a guest holds pods together with: sleep, in the place of a program that waits for its end."""
    program = directory / "rootfs" / "bin" / "sleep"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_bytes(BUSYBOX.read_bytes())
    program.chmod(0o755)
    process = {"args": ["/bin/sleep", "1000"], "env": ["PAUSE=1"], "cwd": "/bin", "terminal": True}
    (directory / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "process": process}))
    return directory


def pack(content: bytes, packed: str = "gzip") -> tuple[bytes, str]:
    """A layer from a tar archive, and its media type."""
    media_type = "application/vnd.oci.image.layer.v1.tar"
    match packed:
        case "gzip":
            return gzip.compress(content, mtime=0), f"{media_type}+gzip"
        case "zstd":
            return subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True).stdout, (
                f"{media_type}+zstd"
            )
        case _:
            return content, media_type


def write_layout(
    directory: Path, layers: Sequence[tuple[bytes, str]], *, architecture: str = "amd64", listed: bool = False
) -> None:
    """Write an image as an OCI layout.

    Args:
        directory: Where; it is made.
        layers: The lowest first, as `layer` makes them.
        architecture: What the image says that it is for.
        listed: Whether it is one of a list of images by architecture.
    """
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def document(content: object, kind: str, **more: object) -> dict[str, object]:
        return blob(json.dumps(content).encode(), f"application/vnd.oci.image.{kind}.v1+json", **more)

    config = {"architecture": architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    config["rootfs"]["diff_ids"] = [  # type: ignore[index]
        "sha256:" + hashlib.sha256(content + media_type.encode()).hexdigest() for content, media_type in layers
    ]
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": document(config, "config"), "layers": [blob(content, kind) for content, kind in layers],
    }  # fmt: skip
    entry = document(manifest, "manifest")
    if listed:
        platform = {"os": "linux", "architecture": architecture}
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        entry = document({**index, "manifests": [{**entry, "platform": platform}]}, "index")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def skopeo_environment(directory: Path) -> dict[str, str]:
    """What keeps skopeo's notes of blobs out of /var/lib."""
    return {"_CONTAINERS_ROOTLESS_UID": "1000", "XDG_DATA_HOME": str(directory / "skopeo")}


@dataclass
class Registry:
    """A registry that listens.

    Attributes:
        address: Host and port, as the front of an image's name.
        pid: Its process.
    """

    address: str
    pid: int
    directory: Path
    netns: Path
    lines: list[str] = field(default_factory=list)
    serial: int = 0

    @property
    def configuration(self) -> str:
        """What makes a client trust it without TLS, in the form of containers-registries.conf(5)."""
        return f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n'

    @property
    def credentials(self) -> str:
        """What it wants if it wants any, in the form of containers-auth.json(5)."""
        return json.dumps({"auths": {self.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}})

    async def push(
        self, name: str, *layers: tuple[bytes, str], architecture: str = "amd64", listed: bool = False
    ) -> str:
        """Put an image into it and return its reference.

        Args:
            name: Repository and tag.
            layers: As for `write_layout`.
            architecture: As for `write_layout`.
            listed: As for `write_layout`.
        """
        self.serial += 1
        layout = self.directory / f"layout-{self.serial}"
        write_layout(layout, layers, architecture=architecture, listed=listed)
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={self.netns}", "skopeo", "--insecure-policy", "copy", "--quiet", "--all",
            "--preserve-digests", "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}",
            f"oci:{layout}:image", f"docker://{self.address}/{name}",
            env={**os.environ, **skopeo_environment(self.directory)}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(_COPY_TIMEOUT):
            assert await process.wait() == 0
        return f"{self.address}/{name}"

    def fetches(self, digest: str) -> int:
        """How often a blob or manifest was read since the last image was put in."""
        return sum("GET /v2/" in line and digest in line and '" 200 ' in line for line in self.lines)

    def forget(self) -> None:
        """Count from now on."""
        self.lines.clear()


def digest_of(layer: tuple[bytes, str]) -> str:
    """The digest by which a registry knows a layer."""
    return "sha256:" + hashlib.sha256(layer[0]).hexdigest()


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    netns: Path = Path("/proc/self/ns/net"),
    host: str = "127.0.0.1",
    protected: bool = False,
    encrypted: bool = False,
    expired: bool = False,
) -> AsyncIterator[Registry]:
    """Serve a registry whose files lie below the directory.

    Args:
        directory: For its files.
        netns: The network namespace in which it listens.
        host: The address that it listens on.
        protected: Whether it wants to know who asks.
        encrypted: Whether it speaks TLS, with the certificate `certificate` of its own making.
        expired: Whether that was valid until yesterday, as to a node whose clock is ahead.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "htpasswd").write_text(_HTPASSWD)
    auth = _AUTH.format(path=directory / "htpasswd") if protected else ""
    tls = ""
    if encrypted:
        tls = _TLS.format(certificate=directory / "certificate", key=directory / "key")
        await _certify(directory, host, expired=expired)
    (directory / "config.yml").write_text(_CONFIG.format(host=host, root=directory / "data", auth=auth, tls=tls))
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net={netns}", "docker-registry", "serve", str(directory / "config.yml"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    output: asyncio.StreamReader = process.stdout
    lines: list[str] = []

    async def follow() -> None:
        async for line in output:
            lines.append(line.decode())

    following: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            while not (found := re.search(r"listening on ([0-9.]+:\d+)", (await output.readline()).decode())):
                assert not output.at_eof(), "docker-registry has ended"
        following = asyncio.create_task(follow(), name="registry's log")
        yield Registry(found[1], process.pid, directory, netns, lines)
    finally:
        process.terminate()
        await process.wait()
        if following is not None:
            await following


async def _certify(directory: Path, host: str, *, expired: bool) -> None:
    """Make a key and a certificate for an address."""
    key, certificate = str(directory / "key"), str(directory / "certificate")
    await _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-keyout", key, "-out", certificate, "-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{host}",
    )  # fmt: skip
    if expired:
        await _openssl("x509", "-in", certificate, "-signkey", key, "-days", "-1", "-out", certificate)


async def _openssl(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "openssl", *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(_START_TIMEOUT):
        assert await process.wait() == 0
