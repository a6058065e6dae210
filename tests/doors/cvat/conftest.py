from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.standins import cvat_sdk as standin


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ``cvat_sdk`` where it is installed, else its stand-in."""
    if importlib.util.find_spec("cvat_sdk") is None:
        for name, module in standin.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
