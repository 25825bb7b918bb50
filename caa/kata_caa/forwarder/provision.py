"""From user data to files: what the pod VM's programs find under `/run/peerpod`. Also the command `process-user-data`.

Source: cloud-api-adaptor `pkg/userdata/provision.go`, `cmd/process-user-data`; initdata's specification in
confidential-containers/trustee `kbs/docs/initdata.md`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from kata_caa import userdata
from kata_caa.errors import AdaptorError, ForwarderError, MalformedConfig
from kata_caa.forwarder import sources
from kata_caa.forwarder.sources import Source
from kata_caa.userdata import File

logger = logging.getLogger(__name__)

TIMEOUT: Final = 180.0
"""Seconds within which user data must be there."""

POLICY: Final = f"{userdata.DIRECTORY}/policy.rego"
DIGEST: Final = f"{userdata.DIRECTORY}/initdata.digest"
INITDATA_KEYS: Final = ("aa.toml", "cdh.toml", "policy.rego")
"""The files that initdata may bring."""

_PAUSE: Final = 5.0  # seconds between two attempts
_SECRETS: Final = frozenset({userdata.APF, userdata.AUTH})  # for root alone
_INITDATA_MAX: Final = 4 << 20  # bytes of its text: no more than an agent's message
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")
_DUMMY: Final = b'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = ""\n'


class Initdata(NamedTuple):
    """What initdata says.

    Attributes:
        digest: In hexadecimal, of its text, by the algorithm it names.
        files: By name; any names.
    """

    digest: str
    files: dict[str, str]


def provision(
    source: Source | None, timeout: float = TIMEOUT, *, root: Path = Path("/"), pause: float = _PAUSE
) -> None:
    """Write the files of the user data, then those of its initdata.

    Args:
        source: Where user data is; None where somebody else (cloud-init) has written the files.
        timeout: Seconds within which user data must be there and well-formed.
        root: Where `/run` is.
        pause: Seconds between two attempts.

    Raises:
        ForwarderError: It did not come in time, or a file cannot be written.
        MalformedConfig: The initdata has not its form.
    """
    if source is None:
        logger.info("no source of user data; only initdata is processed")
    else:
        write(fetch(source, timeout, pause=pause), root=root)
    write_initdata(root=root)


def fetch(
    source: Source, timeout: float = TIMEOUT, *, pause: float = _PAUSE, sleep: Callable[[float], None] = time.sleep
) -> tuple[File, ...]:
    """The files of the user data. A cloud may have none at first, or not all of it: so what is malformed is read again.

    Args:
        source: Where it is.
        timeout: Seconds.
        pause: Seconds between two attempts.
        sleep: Waits.

    Raises:
        ForwarderError: It did not come in time; says what the last attempt met.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return userdata.parse(source.read())
        except (ForwarderError, MalformedConfig) as error:
            if time.monotonic() + pause > deadline:
                raise ForwarderError(
                    f"waited {timeout:g} s for user data of {source.name}; the last attempt met: {error}"
                ) from error
            logger.info("user data is not there yet: %s", error)
        sleep(pause)


def write(files: Sequence[File], *, root: Path = Path("/")) -> None:
    """Write those that a pod VM takes; the others are logged and left.

    Raises:
        ForwarderError: One cannot be written.
    """
    for path, content in files:
        if path in userdata.PATHS:
            _write(root, path, content)
        else:
            logger.warning("user data: %s is not one of the files that are taken", path)


def write_initdata(*, root: Path = Path("/")) -> None:
    """Write the files of the initdata, and its digest. Without initdata there is one with an empty `aa.toml`, since
    what attests waits for that file.

    Raises:
        ForwarderError: One cannot be written.
        MalformedConfig: The initdata has not its form.
    """
    try:
        encoded = (root / userdata.INITDATA.lstrip("/")).read_bytes()
    except FileNotFoundError:
        text = _DUMMY
    else:
        text = unpack_initdata(encoded)
    initdata = read_initdata(text)
    for name, content in initdata.files.items():
        if name in INITDATA_KEYS:
            _write(root, f"{userdata.DIRECTORY}/{name}", content)
        else:
            logger.warning("initdata: %.100r is not one of the files that are taken", name)
    _write(root, DIGEST, initdata.digest)


def read_initdata(text: bytes) -> Initdata:
    """Read the TOML text of initdata.

    Raises:
        MalformedConfig: It has not its form.
    """
    import hashlib
    import tomllib

    try:
        tree = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MalformedConfig(f"initdata is no TOML: {error}") from None
    except RecursionError:
        raise MalformedConfig("initdata is no TOML of ours: it is nested too deep") from None
    algorithm = tree.get("algorithm")
    if algorithm not in _ALGORITHMS:
        raise MalformedConfig(f"initdata: algorithm cannot be {algorithm!r:.100}, but one of {', '.join(_ALGORITHMS)}")
    if not isinstance(tree.get("version"), str):
        raise MalformedConfig("initdata: version is no text")
    data = tree.get("data", {})
    if not isinstance(data, dict):
        raise MalformedConfig("initdata: data is no table")
    for name, content in data.items():
        if not isinstance(content, str):
            raise MalformedConfig(f"initdata: data.{name:.100} is no text")
    return Initdata(hashlib.new(algorithm, text).hexdigest(), data)


def unpack_initdata(encoded: bytes) -> bytes:
    """The TOML text inside base64 and gzip.

    Raises:
        MalformedConfig: It has not its form, or is too large.
    """
    import base64
    import zlib

    try:
        packed = base64.b64decode(b"".join(encoded.split()), validate=True)
    except ValueError:
        raise MalformedConfig("initdata is no base64") from None
    reader = zlib.decompressobj(wbits=31)  # gzip's form
    try:
        text = reader.decompress(packed, _INITDATA_MAX + 1)
    except zlib.error as error:
        raise MalformedConfig(f"initdata is no gzip: {error}") from None
    if len(text) > _INITDATA_MAX:
        raise MalformedConfig(f"initdata has more than {_INITDATA_MAX} bytes")
    if not reader.eof or reader.unused_data:
        raise MalformedConfig("initdata is no gzip: it is cut short, or something follows it")
    return text


def _write(root: Path, path: str, content: str) -> None:
    """Write beside and rename: nobody sees half of it, and no link is followed."""
    target = root / path.lstrip("/")
    beside = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 a descriptor
            file.write(content)
            os.fchmod(fd, 0o600 if path in _SECRETS else 0o644)
        beside.rename(target)
    except OSError as error:
        raise ForwarderError(f"{path} cannot be written: {error.strerror}") from error
    logger.info("wrote %s", path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `process-user-data provision-files [-t SECONDS]`."""
    import argparse

    parser = argparse.ArgumentParser("process-user-data", description="write the files that this pod VM was given")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("provision-files", help="write them, from user data")
    command.add_argument(
        "-t", "--user-data-fetch-timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for user data to come"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="[userdata/provision] %(message)s")
    try:
        provision(sources.find(), options.user_data_fetch_timeout)
    except AdaptorError as error:
        print(f"process-user-data: {error}", file=sys.stderr)  # noqa: T201 a command
        return 1
    return 0
