"""Stores and pictures that several tests of stores share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store on a new folder."""
    return FeatureStore(tmp_path / "features")
