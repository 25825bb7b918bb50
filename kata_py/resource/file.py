"""Small files that others read while we write them."""
# On the shim's start path, where pathlib would cost 5 ms.
# ruff: noqa: PTH104, PTH108, PTH123

from __future__ import annotations

import os


def replace(path: str, text: str) -> None:
    """Write a file beside its place and rename it into it: a reader sees all of it, or what was there before.

    Raises:
        OSError: It cannot be written, with its path; what was there before stays, and nothing beside it.
    """
    beside = f"{path}.new"
    try:
        with open(beside, "w") as file:
            file.write(text)
        os.rename(beside, path)
    except OSError as error:
        try:
            os.unlink(beside)
        except OSError:
            pass  # it never was
        raise OSError(error.errno, error.strerror, path) from None
