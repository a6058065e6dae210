from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.npm_registry import Registry, running
from tests.support.npm import point_npm_at


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A stand-in of an npm registry, which is this user's; empty caches, and no program npm."""
    with running() as server:
        point_npm_at(server, tmp_path, monkeypatch)
        yield server
