"""What kata-ctl's parts log while a verb runs: on stderr, for people or as JSON."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LEVELS = {"trace": logging.DEBUG, "warn": logging.WARNING}  # upstream's words that are not Python's


@contextmanager
def logging_to_stderr(level: str, *, as_json: bool) -> Iterator[None]:
    """Log while the context lasts.

    Args:
        level: From which on, in upstream's words; nothing here is finer than `debug`.
        as_json: Whether a line is an object: `ts` (RFC 3339), `level`, `name` (who logs) and `msg`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if as_json else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(_LEVELS.get(level, level.upper()))
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(),
            "level": record.levelname.lower(),
            "name": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            fields["stack"] = self.formatException(record.exc_info)
        return json.dumps(fields)
