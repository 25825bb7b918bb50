"""An archive for a bug report: texts that may fail one by one, bounded and redacted, and an index of them."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from kata_py.diagnosis.redaction import Redactor
from kata_py.diagnosis.sources import Absent, bounded

TOTAL_MAX = 64 << 20  # bytes of all texts
TIME_MAX = 180.0  # seconds after which no further text is begun
INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive.

    Attributes:
        file: Its name in it.
        text: Makes what it holds. Raises `Absent` where the node has no such thing, and anything else when it fails.
    """

    file: str
    text: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a part.

    Attributes:
        file: Its name.
        state: `there`, `absent`, `failed` or `left out`.
        size: Bytes.
        truncated: Whether that is less than all.
        seconds: How long it took.
        cause: Why it is not there, in words.
    """

    file: str
    state: str
    size: int = 0
    truncated: bool = False
    seconds: float = 0.0
    cause: str = ""


def write(path: Path, parts: Iterable[Part], redactor: Redactor, about: dict[str, str]) -> list[Entry]:
    """Write an archive, for its owner alone. Blocks.

    Args:
        path: Where it is to be; there must be nothing yet.
        parts: What is in it.
        redactor: What all of it goes through.
        about: What the index says of the whole.

    Returns:
        What became of each part; the index in the archive says the same.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
            top = path.name.removesuffix(".gz").removesuffix(".tar")
            entries = _filled(archive, top, parts, redactor)
            index = json.dumps(about | {"files": [asdict(each) for each in entries]}, indent=1)
            _add(archive, f"{top}/{INDEX}", redactor.text(index).encode())
    except BaseException:
        path.unlink()
        raise
    return entries


def _filled(archive: tarfile.TarFile, top: str, parts: Iterable[Part], redactor: Redactor) -> list[Entry]:
    entries: list[Entry] = []
    began, total = time.monotonic(), 0
    for part in parts:
        begun = time.monotonic()
        if begun - began > TIME_MAX or total > TOTAL_MAX:
            entries.append(Entry(part.file, "left out", cause="the archive has taken long enough, or is large enough"))
            continue
        try:
            text, truncated = bounded(part.text())
            data = redactor.text(text).encode(errors="replace")
        except Absent as error:
            entries.append(Entry(part.file, "absent", cause=str(error)))
        except Exception as error:  # whatever fails, the rest is told
            cause = f"{type(error).__name__}: {error}"[:1000]
            entries.append(Entry(part.file, "failed", seconds=_since(begun), cause=cause))
        else:
            _add(archive, f"{top}/{part.file}", data)
            total += len(data)
            entries.append(Entry(part.file, "there", len(data), truncated, _since(begun)))
    return entries


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(data))


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)
