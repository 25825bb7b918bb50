"""What a pod VM is made of in Azure, as far as finding and deleting it goes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Kind(enum.Enum):
    """The kinds of resources that are made, in the order in which they can be deleted."""

    MACHINE = "virtual-machine"
    INTERFACE = "network-interface"
    DISK = "disk"
    PUBLIC_IP = "public-ip-address"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource.

    Attributes:
        kind: What it is.
        name: Its name in the resource group.
        id: ARM's id.
        tags: What is attached to it.
        user: The id of what uses it: a disk's or an interface's machine; empty is free.
        parts: Of a machine, the ids of its interfaces and disks.
        state: `Creating`, `Succeeded`, `Failed`, `Deleting` …
    """

    kind: Kind
    name: str
    id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    parts: tuple[str, ...] = ()
    state: str = ""
