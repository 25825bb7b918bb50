"""Getting images from registries, by skopeo; what it says when it cannot becomes a cause and a next step.

What it is told besides lies in files, each of which may be missing: credentials, registries with mirrors or without
TLS, certificates, and a policy of signatures. Their forms are those of containers-auth.json(5),
containers-registries.conf(5), containers-certs.d(5) and containers-policy.json(5).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.image import program
from kata_agent.image.errors import DiskFull, PullError, Stalled

if TYPE_CHECKING:
    from kata_agent.container.reaper import Reaper


@dataclass(frozen=True, slots=True)
class Settings:
    """Where what concerns registries lies. The first three are written by who boots the guest.

    Attributes:
        auth: Credentials; without them, and with an empty file, registries are asked anonymously.
        registries: Registries that are mirrored, renamed, blocked, or asked without TLS (`insecure = true`).
        certificates: A directory with `*.crt` of further authorities, and `*.cert`, `*.key` to show.
        policy: Which images' signatures are wanted; without it, none are.
        environment: What the programs get besides PATH, such as HTTPS_PROXY.
        stall: Seconds that a program may go on without progress.
    """

    auth: Path = Path("/run/peerpod/auth.json")
    registries: Path = Path("/run/peerpod/registries.conf")
    certificates: Path = Path("/run/peerpod/certs")
    policy: Path = Path("/etc/containers/policy.json")
    environment: Mapping[str, str] | None = None
    stall: float = program.STALL_TIMEOUT


@dataclass(frozen=True, slots=True)
class _Fault:
    """What in skopeo's words means what.

    Attributes:
        words: Pattern of the words.
        cause: What it means.
        step: What to do about it.
        kind: The error's class.
    """

    words: str
    cause: str
    step: str
    kind: type[PullError] = PullError


# The first that fits counts. Source: containers/image `docker/docker_client.go`, `docker/errors.go`,
# `internal/image`; distribution `registry/api/errcode`; Go's net, crypto/x509, net/http.
_FAULTS = (
    _Fault(
        "no space left on device|disk quota exceeded", "there is no room for it in the guest",
        "give the pod more memory, or the guest a disk at /run/kata-containers/image", DiskFull,
    ),
    _Fault(
        "unauthorized|authentication required|access to the resource is denied|denied:|invalid username/password"
        "|StatusCode: 40[13]|status 40[13]",
        "the registry does not let us have it", "give the guest credentials for it in {auth}, or check its name",
    ),
    _Fault(
        "reading JSON file|unmarshaling JSON at|getting username and password", "the credentials cannot be read",
        "write {auth} as containers-auth.json(5) tells",
    ),
    _Fault(
        "manifest unknown|name unknown|name invalid|not found: manifest|StatusCode: 404|status 404",
        "the registry has no such image", "check its name, tag and digest",
    ),
    _Fault(
        "no image found in (manifest list|image index)|no matching manifest",
        "it is not made for this machine's architecture", "use an image for {machine}",
    ),
    _Fault(
        "no such host|server misbehaving|Temporary failure in name resolution", "there is no such host",
        "check the registry's name, and the guest's /etc/resolv.conf",
    ),
    _Fault(
        "server gave HTTP response to HTTPS client", "the registry speaks no TLS",
        "name it with insecure = true in {registries}, if it is to be trusted nevertheless",
    ),
    _Fault(
        "certificate has expired or is not yet valid", "the registry's certificate is not valid at this time",
        "set the clock of the node, which the guest's follows, or renew the certificate",
    ),
    _Fault(
        "x509: |tls: ", "the registry's certificate is not to be trusted",
        "put its authority's certificate into {certificates}, as a file *.crt",
    ),
    _Fault(
        "toomanyrequests|StatusCode: 429|status 429", "the registry has had too many requests",
        "wait, or give the guest credentials in {auth}",
    ),
    _Fault(
        "invalid reference format|must be lowercase", "that is no image's name", "name it registry/repository:tag",
    ),
    _Fault(
        "connection refused|connection reset|i/o timeout|TLS handshake timeout|network is unreachable"
        "|no route to host|Client.Timeout|deadline exceeded|unexpected EOF",
        "the registry cannot be reached from the guest", "check the guest's network, and agent.https_proxy",
    ),
    _Fault(
        "rejected by policy|Source image rejected", "the guest's policy of signatures rejects it",
        "sign it, or change {policy}",
    ),
)  # fmt: skip

_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_SAID_LIMIT = 500  # characters


class Registries:
    """All registries that can be asked.

    Args:
        reaper: Starts skopeo.
        settings: What it is told.
        machine: The architecture that images must be for, as OCI names it.
        scratch: A directory for its temporary files.
    """

    def __init__(self, reaper: Reaper, settings: Settings, machine: str, scratch: Path) -> None:
        self._reaper = reaper
        self._settings = settings
        self._machine = machine
        self._scratch = scratch

    def told(self) -> str:
        """A digest of what is known of registries now: credentials, mirrors, certificates, policy. It blocks."""
        settings = self._settings
        files = [settings.auth, settings.registries, settings.policy]
        if settings.certificates.is_dir():
            files += sorted(settings.certificates.iterdir())
        digest = hashlib.sha256()
        for file in files:
            content = file.read_bytes() if file.is_file() else b""
            digest.update(f"{file} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    async def check(self, reference: str) -> None:
        """Make sure that there is such an image, that we may have it, and that it runs here; nothing large is read.

        Raises:
            PullError: One of these is not so.
        """
        certificates = self._certificates("--cert-dir")
        argv = ("inspect", "--config", *self._credentials("--authfile"), *certificates, f"docker://{reference}")
        said = await self._skopeo(reference, argv, lambda: 0)
        self.check_platform(reference, json.loads(said))

    def check_platform(self, reference: str, config: Mapping[str, object]) -> None:
        """Make sure that the image with this configuration runs here.

        Raises:
            PullError: It is for another architecture or operating system.
        """
        platform = f"{config.get('os') or 'linux'}/{config.get('architecture') or self._machine}"
        if platform != f"linux/{self._machine}":
            raise PullError(
                f"image {reference}: it is made for {platform}, and this machine is linux/{self._machine}; use an image"
                f" for {self._machine}"
            )

    async def copy(self, reference: str, layout: Path, blobs: Path, progress: Callable[[], int]) -> None:
        """Bring an image into an OCI layout; blobs that are there already are not asked for.

        Args:
            reference: The image.
            layout: The layout's directory, which is made; its one entry is named `image`.
            blobs: Where the layout's blobs lie, by algorithm and digest.
            progress: As for `program.run`.

        Raises:
            PullError: It cannot be had.
        """
        argv = (
            "copy", "--dest-oci-accept-uncompressed-layers", f"--dest-shared-blob-dir={blobs}",
            *self._credentials("--src-authfile"), *self._certificates("--src-cert-dir"),
            f"docker://{reference}", f"oci:{layout}:image",
        )  # fmt: skip
        await self._skopeo(reference, argv, progress)

    async def _skopeo(self, reference: str, argv: Sequence[str], progress: Callable[[], int]) -> str:
        settings = self._settings
        told = [f"--tmpdir={self._scratch}"]
        told.append(f"--policy={settings.policy}" if settings.policy.exists() else "--insecure-policy")
        if settings.registries.exists():
            told.append(f"--registries-conf={settings.registries}")
        try:
            outcome = await program.run(
                self._reaper, ("skopeo", *told, *argv), progress=progress, stall=settings.stall,
                environment=settings.environment,
            )  # fmt: skip
        except Stalled:
            raise Stalled(
                f"image {reference}: the registry has sent nothing for {settings.stall:g} s: check the guest's network"
            ) from None
        if outcome.code:
            raise self._fault(reference, outcome)
        return outcome.output

    def _fault(self, reference: str, outcome: program.Outcome) -> PullError:
        fatal = _FATAL.search(outcome.errors)
        said = fatal[1] if fatal else outcome.errors.strip() or f"skopeo ended with status {outcome.code}"
        said = " ".join(said.replace("\\n", " ").replace("\\t", " ").replace('\\"', '"').split())[-_SAID_LIMIT:]
        fault = next(
            (fault for fault in _FAULTS if re.search(fault.words, said.replace(reference, ""), re.IGNORECASE)), None
        )
        if fault is None:
            return PullError(f"image {reference}: it cannot be pulled: {said}")
        settings = self._settings
        step = fault.step.format(
            auth=settings.auth, registries=settings.registries, certificates=settings.certificates,
            policy=settings.policy, machine=self._machine,
        )  # fmt: skip
        return fault.kind(f"image {reference}: {fault.cause}: {step} ({said})")

    def _credentials(self, option: str) -> tuple[str, ...]:
        """Nothing for a file without content, which upstream's guests have in the place of none."""
        try:
            known = bool(self._settings.auth.read_bytes().strip())
        except FileNotFoundError:
            known = False
        return (f"{option}={self._settings.auth}",) if known else ()

    def _certificates(self, option: str) -> tuple[str, ...]:
        certificates = self._settings.certificates
        return (f"{option}={certificates}",) if certificates.is_dir() else ()
