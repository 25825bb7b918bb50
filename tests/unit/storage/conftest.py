from __future__ import annotations

import pytest

from tests.drivers.journal import ListJournal


@pytest.fixture
def journal() -> ListJournal:
    return ListJournal()
