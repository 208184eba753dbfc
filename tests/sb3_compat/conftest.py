"""Every test here runs for each algorithm."""

import pytest

from tests.sb3_compat.common import ALGORITHMS, Algorithm


@pytest.fixture(params=ALGORITHMS, ids=lambda algorithm: algorithm.cls.__name__)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Each of ``ALGORITHMS``."""
    return request.param
