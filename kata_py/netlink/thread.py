"""Threads that go to where the process is not, such as another namespace.

One that once was elsewhere is never lent to anybody else, least of all to the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def in_thread(name: str, function: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own, which then ends, and wait for it. Blocks: not for the event loop.

    Args:
        name: The thread's, for those who look at stacks.
        function: What it calls; what that raises is raised.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
