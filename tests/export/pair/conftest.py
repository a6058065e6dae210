"""A bundle of the small pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle
from tests.support.documents import blocks
from tests.support.pair import write_pair
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Encoder, decoder and description."""
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def pair_bundle(pair: tuple[Path, Path, Path]) -> Bundle:
    """The bundle that the Python of docs/foreign.md makes of them."""
    (snippet,) = blocks(ROOT / "docs" / "foreign.md", "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pair[0].parent)
        exec(compile(snippet.text, snippet.where, "exec"), {})
    return Bundle(pair[0].parent / "pair-bundle")
