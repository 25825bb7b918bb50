"""A pytest plug-in that tells which lines of one file its run left out: `-p tests.functional.ttrpc.line_coverage`.

The file is named by the environment's LINE_COVERAGE; the lines are printed last, as `left out: 12 13`.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from hypothesis import settings

FILE = os.environ["LINE_COVERAGE"]
seen: set[int] = set()


def lines_of(code: CodeType) -> Iterator[int]:
    """The lines that have instructions, in this code and in what is defined in it."""
    yield from (line for _, _, line in code.co_lines() if line)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from lines_of(constant)


def lines_for_types(tree: ast.Module) -> Iterator[int]:
    """The lines that only a type checker reads: below `if TYPE_CHECKING`, and overloads."""
    for node in ast.walk(tree):
        below_guard = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if below_guard or any(ast.unparse(one) == "overload" for one in getattr(node, "decorator_list", ())):
            for child in node.body:
                yield from range(child.lineno, (child.end_lineno or 0) + 1)


def _line(frame: FrameType, event: str, argument: Any) -> Any:
    if event == "line":
        seen.add(frame.f_lineno)
    return _line


def _call(frame: FrameType, event: str, argument: Any) -> Any:
    if frame.f_code.co_filename == FILE:
        seen.add(frame.f_lineno)
        return _line
    return None


def pytest_configure() -> None:
    settings.register_profile("coverage", max_examples=20, derandomize=True, deadline=None)
    settings.load_profile("coverage")
    sys.settrace(_call)


def pytest_unconfigure() -> None:
    sys.settrace(None)
    source = Path(FILE).read_text(encoding="utf-8")
    wanted = set(lines_of(compile(source, FILE, "exec"))) - set(lines_for_types(ast.parse(source)))
    print("left out:", *sorted(wanted - seen))
