"""The demo checkpoint with an optional thermal image: fewer clicks with it, and it still segments without it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2")

from mmms_deploy import Bundle, Session
from mmms_deploy.evaluation.annotator import Annotator
from mmms_deploy.evaluation.measures import noc
from mmms_deploy.export.exporter import export_bundle
from mmms_deploy.export.source import Source, demo_checkpoint
from mmms_deploy.replay.metrics import iou
from tests.support.paths import ROOT
from training.conditions import Condition
from training.items import Item, drawn_items

CLICKS = 8
THRESHOLD = 0.8
EACH = 3
"""Scenes under each condition."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(Source(checkpoint=demo_checkpoint("demo-thermal")), tmp_path_factory.mktemp("d") / "d").bundle


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(drawn_items(EACH))


def curve(session: Session, item: Item, thermal: np.ndarray | None) -> list[float]:
    """IoU after each simulated click; the last value stays when no error is left."""
    session.set_image(item.image, **({} if thermal is None else {"thermal": thermal}))
    annotator, values = Annotator(item.truth), []
    for _ in range(CLICKS):
        click = annotator.click(session.mask)
        if click is not None:
            session.click(click.x, click.y, click.positive)
        values.append(iou(session.mask, item.truth))
    return values


def test_the_checkpoint_is_small_and_described(demo: Bundle) -> None:
    assert demo_checkpoint("demo-thermal").stat().st_size < 12e6
    assert demo.manifest.trained
    (thermal,) = demo.manifest.modalities
    assert (thermal.name, thermal.channels, thermal.optional) == ("thermal", 1, True)
    card = (ROOT / "mmms_deploy" / "demo" / "MODEL_CARD_THERMAL.md").read_text()
    assert "CC BY 4.0" in card
    assert "DAVIS" in card


def test_a_thermal_image_saves_clicks_on_held_out_scenes(demo: Bundle, items: list[Item]) -> None:
    hidden = [item for item in items if item.kind != Condition.PLAIN]
    assert len(hidden) == 4 * EACH
    others = hidden[1:] + hidden[:1]
    clicks: dict[str, list[int]] = {"with": [], "without": [], "of another scene": []}
    with Session(demo, engine="onnxruntime") as session:
        for item, other in zip(hidden, others, strict=True):
            seen = {
                "with": item.modalities["thermal"],
                "without": None,
                "of another scene": other.modalities["thermal"],
            }
            for name, thermal in seen.items():
                clicks[name].append(noc(curve(session, item, thermal), THRESHOLD, CLICKS))
    mean = {name: np.mean(values) for name, values in clicks.items()}
    assert mean["with"] < mean["without"] - 1.5, mean
    assert mean["with"] < mean["of another scene"] - 1.5, mean  # it is the heat that helps, not any second picture


def test_without_a_thermal_image_it_segments_as_the_rgb_demo_does(demo: Bundle, items: list[Item]) -> None:
    """In good light, IoU after five clicks on RGB alone."""
    with Session(demo, engine="onnxruntime") as session:
        last = [curve(session, item, None)[4] for item in items if item.kind == Condition.PLAIN]
    assert np.mean(last) > 0.7, last
