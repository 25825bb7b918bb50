from __future__ import annotations

from tests.unit.sandbox.conftest import opener as opener
from tests.unit.sandbox.conftest import top as top
