from __future__ import annotations

import pytest

from mmms_deploy.bench import peak


@pytest.fixture(autouse=True, scope="session")
def _short_products():
    """Measure the machine's peak shortly: the tests do not need it to be exact."""
    usual, peak._SECONDS = peak._SECONDS, 0.02
    yield
    peak._SECONDS = usual
