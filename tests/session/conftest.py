"""Sessions and bundles that several tests of sessions share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import ModalitySpec
from tests.support.annotating import GREY
from tests.support.toy import write_toy


@pytest.fixture(scope="module")
def optional(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Depth and event, both optional: one, both or none may be present, and the fuser can be bypassed."""
    modalities = (
        ModalitySpec(name="depth", scale=0.01, optional=True),
        ModalitySpec(name="event", channels=3, optional=True),
    )
    return write_toy(tmp_path_factory.mktemp("bundles") / "optional", modalities=modalities)


@pytest.fixture
def session(paint: Bundle) -> Iterator[Session]:
    with Session(paint, threads=1) as session:
        session.set_image(GREY)
        yield session
