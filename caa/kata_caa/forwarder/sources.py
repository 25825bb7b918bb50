"""Where a pod VM finds its user data: a file, a disk labelled `cidata`, or its cloud's metadata service.

Which cloud it is tells the machine's own description (DMI), so that nobody is asked who is not there.
Source: cloud-api-adaptor `pkg/userdata/provision.go`, `pkg/userdata/imds.go`; Amazon EC2 user guide, "Use the
Instance Metadata Service"; Azure Instance Metadata Service, "user data"; Google Compute Engine, "Compute metadata".
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from kata_caa.errors import ForwarderError
from kata_caa.forwarder import iso9660
from kata_caa.userdata import LENGTH_MAX

logger = logging.getLogger(__name__)

CIDATA: Final = Path("/media/cidata")
LINK_LOCAL: Final = "http://169.254.169.254"
GCP: Final = "http://metadata.google.internal"
ALIBABA: Final = "http://100.100.100.200"

_AZURE_TAG: Final = "7783-7084-3265-9085-8269-3286-77"
_ANSWER_TIMEOUT: Final = 5.0  # seconds for one answer of a metadata service
_TOKEN_TTL: Final = "60"  # seconds
_NO_DISKS: Final = ("loop", "ram", "zram", "dm-", "md", "nbd", "fd")


class Source(Protocol):
    """A place that user data is read from."""

    @property
    def name(self) -> str:
        """For people."""

    def read(self) -> bytes:
        """The user data.

        Raises:
            ForwarderError: It is not there, or not yet.
        """


class FileSource(NamedTuple):
    """A file: a mounted disk's, or one that somebody put there."""

    path: Path

    @property
    def name(self) -> str:
        """For people."""
        return str(self.path)

    def read(self) -> bytes:
        """The file."""
        try:
            with self.path.open("rb") as file:
                return _bounded(file.read(LENGTH_MAX + 1), self.name)
        except OSError as error:
            raise ForwarderError(f"user data: {self.path} cannot be read: {error.strerror}") from error


class DiskSource(NamedTuple):
    """A disk labelled `cidata`, as cloud-init's NoCloud has it. Read in place: a mount would need its driver."""

    disk: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"the disk {self.disk}"

    def read(self) -> bytes:
        """The file `user-data` on it."""
        try:
            return _bounded(iso9660.read(self.disk, "user-data", LENGTH_MAX + 1), self.name)
        except ForwarderError as error:
            raise ForwarderError(f"user data: {error}") from error


class AzureSource(NamedTuple):
    """Azure's metadata service; its user data is in base64."""

    base: str = LINK_LOCAL

    @property
    def name(self) -> str:
        """For people."""
        return "Azure's metadata service"

    def read(self) -> bytes:
        """The user data."""
        path = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text"
        return _base64(_get(self.base, path, {"Metadata": "true"}), self.name)


class AwsSource(NamedTuple):
    """AWS's metadata service: version 2, which wants a token, or 1, where there is no 2."""

    base: str = LINK_LOCAL

    @property
    def name(self) -> str:
        """For people."""
        return "AWS's metadata service"

    def read(self) -> bytes:
        """The user data."""
        headers = {}
        try:
            ttl = {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_TTL}
            token = _request(self.base, "PUT", "/latest/api/token", ttl)
            headers["X-aws-ec2-metadata-token"] = token.decode("ascii")
        except (ForwarderError, UnicodeDecodeError) as error:
            logger.info("no token of %s, trying without: %s", self.name, error)
        return _get(self.base, "/latest/user-data", headers)


class GcpSource(NamedTuple):
    """Google's metadata server; the adaptor puts the user data there in base64."""

    base: str = GCP

    @property
    def name(self) -> str:
        """For people."""
        return "Google's metadata server"

    def read(self) -> bytes:
        """The user data."""
        path = "/computeMetadata/v1/instance/attributes/user-data"
        return _base64(_get(self.base, path, {"Metadata-Flavor": "Google"}), self.name)


class AlibabaSource(NamedTuple):
    """Alibaba Cloud's metadata service."""

    base: str = ALIBABA

    @property
    def name(self) -> str:
        """For people."""
        return "Alibaba Cloud's metadata service"

    def read(self) -> bytes:
        """The user data."""
        return _get(self.base, "/latest/user-data", {})


def find(root: Path = Path("/")) -> Source | None:
    """Where this machine's user data is; None where nothing tells.

    Args:
        root: Where the machine's `/media`, `/dev` and `/sys` are.
    """
    file = root / CIDATA.relative_to("/") / "user-data"
    if file.exists():
        return FileSource(file)
    if (disk := labelled_disk(root)) is not None:
        return DiskSource(disk)
    return _cloud(root)


def labelled_disk(root: Path = Path("/")) -> Path | None:
    """The disk with an ISO 9660 volume named `cidata`, in any case of letters; udev need not run."""
    for label in ("cidata", "CIDATA"):
        link = root / "dev/disk/by-label" / label
        if link.exists():
            return link
    try:
        names = sorted(each.name for each in (root / "sys/class/block").iterdir())
    except OSError:
        return None
    for name in names:
        if not name.startswith(_NO_DISKS) and iso9660.label(root / "dev" / name).lower() == "cidata":
            return root / "dev" / name
    return None


def _cloud(root: Path) -> Source | None:
    dmi = {
        name: _line(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name", "chassis_asset_tag")
    }
    vendor = dmi["sys_vendor"]
    if vendor == "Microsoft Corporation" or dmi["chassis_asset_tag"] == _AZURE_TAG:
        return AzureSource()
    if vendor == "Amazon EC2":
        return AwsSource()
    if vendor == "Google" or dmi["product_name"] == "Google Compute Engine":
        return GcpSource()
    return AlibabaSource() if vendor == "Alibaba Cloud" else None


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _get(base: str, path: str, headers: dict[str, str]) -> bytes:
    return _request(base, "GET", path, headers)


def _request(base: str, method: str, path: str, headers: dict[str, str]) -> bytes:
    """Ask once, directly: no proxy, no redirect."""
    import http.client

    host = base.removeprefix("http://")
    what = f"{method} {base}{path.partition('?')[0]}"
    connection = http.client.HTTPConnection(host, timeout=_ANSWER_TIMEOUT)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ForwarderError(f"user data: {what} is answered {response.status} {response.reason}")
        data = _bounded(response.read(LENGTH_MAX + 1), what)
        if response.length:  # that many bytes are still to come
            raise ForwarderError(f"user data: {what} is answered {response.length} bytes short")
        return data
    except (OSError, http.client.HTTPException) as error:
        raise ForwarderError(f"user data: {what} failed: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()


def _base64(data: bytes, name: str) -> bytes:
    import base64

    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except ValueError:
        raise ForwarderError(f"user data: what {name} gives is no base64") from None


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > LENGTH_MAX:
        raise ForwarderError(f"user data: {name} gives more than {LENGTH_MAX} bytes")
    return data
