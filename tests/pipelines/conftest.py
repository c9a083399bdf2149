"""One small town, rendered once, for the miniatures of all data sets."""

from __future__ import annotations

import pytest
from small_town import SmallTown, photograph_town


@pytest.fixture(scope="session")
def small_town() -> SmallTown:
    """Photograph the town from fifteen places by day, and from three by night."""
    return photograph_town()
