"""The log of the adaptor and of the commands beside it: lines on standard error."""

from __future__ import annotations

import logging
import sys

from kata_caa.errors import SettingError

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CHATTY = ("httpx2", "httpcore2")  # a line for each request to the cluster, which are many


def begin(level: str) -> None:
    """Have what is logged on standard error.

    Args:
        level: debug, info, warning or error; of the HTTP library nothing below a warning is told but with debug.

    Raises:
        SettingError: It is none of these.
    """
    if level not in _LEVELS:
        raise SettingError(f"-log-level: {level!r} is none of {', '.join(_LEVELS)}")
    logging.basicConfig(
        stream=sys.stderr, level=_LEVELS[level], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else max(logging.WARNING, _LEVELS[level]))
