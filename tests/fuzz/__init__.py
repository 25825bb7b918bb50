"""Readers of what others wrote, given what nobody should write."""

from __future__ import annotations

import importlib
from typing import Any

from tests.fuzz.target import Target

TARGETS = (
    "agent_requests", "annotations", "config_json", "management_http", "qmp", "task_requests", "toml", "ttrpc_frames",
)  # fmt: skip


def load(name: str) -> Target[Any]:
    """The target of that name."""
    target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    assert isinstance(target, Target)
    return target
