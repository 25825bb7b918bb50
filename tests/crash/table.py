"""What came of the deaths, as people read it."""

from __future__ import annotations

from pathlib import Path

DOCS = Path("docs/crash-points.md")
