"""Storage in the guest's memory: tmpfs, and hugetlbfs with pages taken for it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kata_agent.errors import AgentError, InvalidArgument
from kata_agent.storage.mounting import mount, number, option

if TYPE_CHECKING:
    from kata_protos.agent_pb2 import Storage

HUGE_PAGES = Path("/sys/kernel/mm/hugepages")

_SETGID = 0o2000
_SIZE = re.compile(r"([0-9]+)([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def mount_memory(storage: Storage) -> None:
    """Mount it with all its options, such as a tmpfs's `size` and `mode`; `fsgid=N` gives it to a group.

    Raises:
        InvalidArgument: An option has not its form.
        AgentError: The guest has not so many huge pages.
        OSError: The kernel refuses.
    """
    group = number(storage, "fsgid")
    if storage.fstype == "hugetlbfs":
        page_size = _bytes(storage, "pagesize")
        taken = take_pages(page_size, _bytes(storage, "size"))
        try:
            mount(storage, without=("fsgid",))
        except BaseException:
            _give_back(page_size, taken)
            raise
    else:
        mount(storage, without=("fsgid",))
    if group is not None:
        os.chown(storage.mount_point, -1, group)
        place = Path(storage.mount_point)
        place.chmod(place.stat().st_mode & 0o7777 | _SETGID)


def take_pages(page_size: int, size: int, root: Path = HUGE_PAGES) -> int:
    """Have the kernel set pages aside, besides those it has already.

    Args:
        page_size: Bytes of a page.
        size: Bytes in all; what is less than a page counts as one.
        root: Where sysfs shows them.

    Returns:
        How many were taken.

    Raises:
        InvalidArgument: There are no pages of that size.
        AgentError: There is not so much memory in one piece; none are taken then.
    """
    pool = _pool(page_size, root)
    if not page_size or not pool.exists():
        raise InvalidArgument(f"this guest has no huge pages of {page_size >> 10} KiB")
    before = int(pool.read_text())
    wanted = before + -(-size // page_size)
    pool.write_text(str(wanted))
    got = int(pool.read_text())
    if got < wanted:
        pool.write_text(str(before))
        missing = f"{got - before} of {wanted - before} huge pages of {page_size >> 10} KiB"
        raise AgentError(f"the guest's memory has only {missing}: give it more memory")
    return wanted - before


def _give_back(page_size: int, pages: int) -> None:
    pool = _pool(page_size, HUGE_PAGES)
    pool.write_text(str(int(pool.read_text()) - pages))


def _pool(page_size: int, root: Path) -> Path:
    return root / f"hugepages-{page_size >> 10}kB" / "nr_hugepages"


def _bytes(storage: Storage, name: str) -> int:
    value = option(storage, name)
    match = _SIZE.fullmatch(value or "")
    if match is None:
        raise InvalidArgument(f"storage {storage.mount_point}: {name}={value} is no size: hugetlbfs needs one")
    return int(match[1]) << _UNITS[match[2].upper()]
