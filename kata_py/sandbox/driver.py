"""Finding the hypervisor driver that a configuration names."""

from __future__ import annotations

from importlib.metadata import entry_points

from kata_py.config.model import Configuration
from kata_py.hypervisor.api import Hypervisor
from kata_py.sandbox.errors import InvalidArgument

GROUP = "kata_py.hypervisors"


def find_driver(configuration: Configuration) -> Hypervisor:
    """Load and make the driver of the configuration's `[hypervisor.NAME]`, an entry point of `kata_py.hypervisors`.

    Raises:
        InvalidArgument: No driver of that name is installed, or it cannot be loaded.
    """
    name = configuration.hypervisor.name
    drivers = entry_points(group=GROUP)
    if name not in drivers.names:
        known = ", ".join(sorted(drivers.names)) or "none"
        raise InvalidArgument(
            f"{configuration.source}: no driver for [hypervisor.{name}] is installed; there is: {known}"
        )
    try:
        driver: Hypervisor = drivers[name].load()(configuration)
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(
            f"{configuration.source}: the driver of [hypervisor.{name}] cannot be loaded: {error}"
        ) from error
    return driver
