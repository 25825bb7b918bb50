from __future__ import annotations

from tests.unit.sandbox.conftest import agent as agent
from tests.unit.sandbox.conftest import hypervisor as hypervisor
from tests.unit.sandbox.conftest import opener as opener
from tests.unit.sandbox.conftest import top as top
