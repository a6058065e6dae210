"""The browser answers the same calls as a session does: masks, objects, histories, errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.bundle.contract import Coordinates, ResizeRule
from tests.conftest import EXPORTING
from tests.support.browser_clicks import BrowserClicks, BrowserError, browser_clicks, described, same_calls, stripped
from tests.support.chromium import WEBGPU, open_chromium
from tests.support.pair import write_pair
from tests.support.paths import ROOT
from tests.support.toy import write_toy

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = (90, 130)
RANDOM = np.random.default_rng(5)
DARK = RANDOM.integers(20, 60, (*SIZE, 3), dtype=np.uint8)
PHOTO = ROOT / "docs" / "images" / "photo.jpg"
NAMES = ("1", "cat", "10", "2")
FEW = 8
"""Pixels at the threshold that may differ: features have half precision in the browser."""
STEPS = 250

Made = Callable[[Path], Bundle]


def _maps(folder: Path) -> Bundle:
    return write_toy(folder / "maps")


def _through_image(folder: Path) -> Bundle:
    """The previous mask is what comes of the answer at the image's size, by another rule."""
    return write_toy(
        folder / "through",
        coordinates=Coordinates.ALIGN_CORNERS,
        mask_resize=ResizeRule(align_corners=True),
        previous_resize=ResizeRule(align_corners=True),
    )


def _labels(folder: Path) -> Bundle:
    return write_toy(folder / "labels", labels=True, coordinates=Coordinates.SCALE)


def _points(folder: Path) -> Bundle:
    """A list of points, logits of another size, three answers."""
    for name in EXPORTING:
        pytest.importorskip(name, reason=f"exporting a bundle needs {name}", exc_type=ImportError)
    from mmms_deploy.export.pair.description import read_pair
    from mmms_deploy.export.pair.exporter import PairSource, export_pair

    encoder, decoder, description = write_pair(folder)
    export_pair(PairSource(encoder, decoder, read_pair(description)), folder / "points")
    return Bundle(folder / "points")


@pytest.fixture(scope="module", params=[_maps, _through_image, _labels, _points], ids=lambda made: made.__name__[1:])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bundle of every kind of memory."""
    made: Made = request.param
    return made(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def both(chromium: Browser, bundle: Bundle) -> Iterator[tuple[BrowserClicks, Session]]:
    """A session with an image, and the browser with the same."""
    with Session(bundle, precision="fp32", history_limit=100) as session:
        session.set_image(DARK)
        with browser_clicks(chromium, session) as clicks:
            yield clicks, session


def check_labels(clicks: BrowserClicks, session: Session) -> None:
    """Check that the label maps are the same, but for a few pixels."""
    differing = clicks.labels != session.labels
    assert np.count_nonzero(differing) <= FEW
    for label in session.surfaces.values():
        ours, theirs = clicks.labels == label, session.labels == label
        union = np.count_nonzero(ours | theirs)
        assert union == 0 or np.count_nonzero(ours & theirs) / union >= 0.99


def drawn_call(random: np.random.Generator, annotations: list[dict[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    """Draw a call; some of them are refused."""
    name, other = (str(one) for one in random.choice(NAMES, 2))
    x, y = (round(float(random.uniform(-0.5, side - 0.5)), 2) for side in (SIZE[1], SIZE[0]))
    calls: list[tuple[float, str, tuple[Any, ...]]] = [
        (9, "click", (x, y, bool(random.random() < 0.75))),
        (3, "undo", ()),
        (3, "redo", ()),
        (4, "select", (name,)),
        (0.7, "reset", ()),
        (0.7, "remove", (name,)),
        (0.7, "rename", (name, other)),
        (1.5, "choose", (int(random.integers(-1, 4)),)),
        (0.5, "state", ()),
        (0.5, "restore", (annotations[int(random.integers(len(annotations)))],)),
    ]
    weights = np.array([one[0] for one in calls])
    _, call, args = calls[int(random.choice(len(calls), p=weights / weights.sum()))]
    return call, args


@pytest.mark.parametrize("seed", [0, 1])
def test_a_random_walk_of_calls_leads_to_the_same(both: tuple[BrowserClicks, Session], seed: int) -> None:
    clicks, session = both
    random = np.random.default_rng(seed)
    annotations = [session.to_dict()]
    made: set[str] = set()
    for _ in range(STEPS):
        call, args = drawn_call(random, annotations)
        answer = same_calls(clicks, session, call, *args)
        if answer is not None:
            check_labels(clicks, session)
            made.add(call)
            annotations.append(json.loads(json.dumps(session.to_dict())))
    assert {"click", "undo", "redo", "select"} <= made
    assert clicks("annotation") == session.to_dict()
