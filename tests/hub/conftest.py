from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.hub import Hub, running

pytest.importorskip("huggingface_hub")

from tests.support.hub import point_client_at


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in of the hub, and the real client pointed at it, with empty caches and no token."""
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))  # no verdict stays for other tests
    with running() as server:
        point_client_at(server, tmp_path / "hub-cache", monkeypatch, token=None)
        yield server
