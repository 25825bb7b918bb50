"""What a shim that never served, or crashed, leaves for `kata-ctl explain`. Imported when that has happened."""

from __future__ import annotations

import logging

from kata_py.sandbox import failure
from kata_py.shim import bundle
from kata_py.shim.errors import UsageError
from kata_py.shim.invocation import Invocation


def keep(invocation: Invocation, error: Exception) -> None:
    """Keep why a shim does not serve. An id that could be no name of a file is told to the manager alone."""
    logging.getLogger().addHandler(logging.NullHandler())  # the one line on stderr is the manager's
    try:
        bundle.check_id("id", invocation.id)
        directory = invocation.bundle
    except (UsageError, OSError):
        return
    try:
        _, sandbox_id = bundle.membership(directory, invocation.id)
    except UsageError:
        sandbox_id = invocation.id
    failure.keep(failure.of_shim(sandbox_id, invocation.id, invocation.namespace, directory, error))
