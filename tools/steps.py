"""How the demo speaks: steps, what they show, and their end when one does not do what it should."""

from __future__ import annotations


class DemoError(Exception):
    """A step did not do what it should."""


def step(title: str, note: str = "") -> None:
    """Announce a step."""
    print(f"\n==> {title}" + (f" ({note})" if note else ""), flush=True)


def show(text: str) -> None:
    """Show what a step found, indented below it."""
    print("".join(f"      {line}\n" for line in text.splitlines()), end="", flush=True)


def expect(condition: bool, message: str) -> None:
    """Stop the demo when a step did not do what it should.

    Raises:
        DemoError: The condition is false.
    """
    if not condition:
        raise DemoError(message)
