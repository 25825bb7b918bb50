"""Finds a hypervisor driver by its name, which is the NAME of the configuration's `[hypervisor.NAME]`."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, cast

from kata_py.config.model import Configuration
from kata_py.hypervisor.api import Hypervisor, HypervisorError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "kata_py.hypervisors"

# What an entry point names: a class, or any function that makes a driver.
Driver = Callable[[Configuration], Hypervisor]


def names() -> list[str]:
    """The drivers installed beside us."""
    return sorted({entry.name for entry in _entries()})


def load(configuration: Configuration) -> Hypervisor:
    """Make the driver that the configuration asks for; the first entry point of that name counts.

    Raises:
        HypervisorError: There is none of that name, or it cannot be loaded.
    """
    wanted = configuration.hypervisor.name
    for entry in _entries():
        if entry.name == wanted:
            try:
                driver = cast(Driver, entry.load())
            except (ImportError, AttributeError) as error:
                raise HypervisorError(
                    "hypervisor", f"driver {wanted!r} ({entry.value}) cannot be loaded: {error}",
                    hint="install the project with its extra `host`",
                ) from error  # fmt: skip
            return driver(configuration)
    known = names()
    near = get_close_matches(wanted, known, n=1)
    raise HypervisorError(
        "hypervisor",
        f"no driver {wanted!r} for [hypervisor.{wanted}] in {configuration.source}",
        hint=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}",
    )


def _entries() -> list[EntryPoint]:
    from importlib.metadata import entry_points  # 30 ms of email parser, which not every command pays

    return list(entry_points(group=GROUP))
