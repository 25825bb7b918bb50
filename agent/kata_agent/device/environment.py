"""PCI addresses in the environment that a device plug-in wrote: the host's, to be the guest's.

The SR-IOV plug-in names its devices in `PCIDEVICE_<resource>`, separated by commas, and tells more of them in
`PCIDEVICE_<resource>_INFO`, as JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from kata_agent.device.address import pci_address
from kata_agent.errors import AgentError, InvalidArgument

_LOG = logging.getLogger(__name__)


def translated(environment: Iterable[str], addresses: Mapping[str, str]) -> list[str]:
    """The environment with the guest's addresses.

    Args:
        environment: `NAME=value` each.
        addresses: The guest's PCI address by the host's; of a container without such devices nothing is changed.

    Raises:
        AgentError: A device that is named has not been given to the container.
    """
    result = list(environment)
    if not addresses:
        return result
    for index, variable in enumerate(result):
        name, _, value = variable.partition("=")
        if not name.startswith("PCIDEVICE_"):
            continue
        if name.endswith("_INFO"):
            for host, guest in _swapped(addresses):
                value = value.replace(host, guest)
        else:
            value = ",".join(_guest(name, each, addresses) for each in value.split(","))
        result[index] = f"{name}={value}"
    return result


def _swapped(addresses: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Replacements one after another that amount to all at once: a guest's address may be another one's host's."""
    marks = {host: f"\0{number}\0" for number, host in enumerate(addresses)}
    yield from marks.items()
    for host, mark in marks.items():
        yield mark, addresses[host]


def _guest(name: str, host: str, addresses: Mapping[str, str]) -> str:
    try:
        known = addresses.get(pci_address(host))
    except InvalidArgument:
        _LOG.info("%s: %s is no PCI address and stays", name, host)
        return host
    if known is None:
        raise AgentError(f"{name}: Unable to translate host PCI address {host}")
    return known
