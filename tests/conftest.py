from __future__ import annotations

from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.contract import ModalitySpec
from tests.toy import write_toy


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, two stages; the probability is the disk of the newest click."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "echo", echo=True)


@pytest.fixture(scope="session")
def paint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """RGB, two stages; depends on the image and on all clicks so far."""
    return write_toy(tmp_path_factory.mktemp("bundles") / "paint")


@pytest.fixture(scope="session")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Depth (1 channel) and event (3 channels), three stages."""
    return write_toy(
        tmp_path_factory.mktemp("bundles") / "modal",
        modalities=(ModalitySpec(name="depth", scale=0.01), ModalitySpec(name="event", channels=3)),
    )


@pytest.fixture
def copy(tmp_path: Path, paint: Bundle) -> Path:
    """A copy of ``paint`` to be spoiled."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in paint.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
