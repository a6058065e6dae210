"""The small demo really segments: its packed bundle, clicked through a Session, on real pictures.

That the bundle is the checkpoint's is tested beside it (``test_packed_demos.py``).
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session
from mmms_deploy.evaluation.annotator import Annotator
from mmms_deploy.export.source import demo_checkpoint
from mmms_deploy.replay.metrics import iou
from tests.support.paths import DATA, ROOT

OBJECTS = DATA / "voc-objects"
CLICKS = 5
VOID, OBJECT = 128, 255


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle("demo-small")


def test_the_checkpoint_is_small_and_described(demo) -> None:
    assert demo_checkpoint("demo-small").stat().st_size < 10e6
    assert demo.manifest.trained
    assert demo.manifest.name == "demo-small"
    card = (ROOT / "mmms_deploy" / "demo" / "MODEL_CARD_SMALL.md").read_text()
    assert "CC BY 4.0" in card
    assert "DAVIS" in card


def test_a_click_selects_what_was_clicked(demo) -> None:
    """One click on the astronaut's face takes head and hair, and nothing of the shuttle."""
    from skimage import data

    with Session(demo, engine="onnxruntime") as session:
        session.set_image(data.astronaut())
        mask = session.click(220, 130).mask
    assert mask[60:170, 200:250].mean() > 0.9
    assert not mask[:, 400:].any()
    assert 0.03 < mask.mean() < 0.12


def test_a_negative_click_takes_away(demo) -> None:
    """The helmet alone, after a click on the helmet that took the table and the collar too."""
    from skimage import data

    clicks = [(True, 350.0, 460.0), (False, 450.0, 310.0)]
    with Session(demo, engine="onnxruntime") as session:
        session.set_image(data.astronaut())
        before, after = (session.click(x, y, positive).mask for positive, x, y in clicks)
    x, y = map(int, clicks[1][1:])
    assert before[y - 5 : y + 6, x - 5 : x + 6].mean() > 0.9, "the first click takes what the second one takes away"
    assert not after[y - 5 : y + 6, x - 5 : x + 6].any()
    assert after.sum() < 0.8 * before.sum()
    assert (after & ~before).sum() < 0.1 * after.sum(), "it takes away, and adds next to nothing"
    assert not after[:320].any(), "neither the table nor the collar"
    rows, columns = np.ogrid[:512, :512]
    helmet = ((columns - 390) / 112) ** 2 + ((rows - 450) / 105) ** 2 < 1
    assert iou(after, helmet) > 0.85 > iou(before, helmet)


@pytest.mark.skipif(not OBJECTS.is_dir(), reason="needs the pictures with masks (MMMS_TEST_DATA)")
def test_iou_rises_with_clicks_on_real_photographs(demo) -> None:
    curves = []
    with Session(demo, engine="onnxruntime") as session:
        for image in sorted((OBJECTS / "images").iterdir()):
            (file,) = (OBJECTS / "masks").glob(f"{image.stem}.*")
            label = np.asarray(Image.open(file).convert("L"))
            truth, void = label == OBJECT, label == VOID
            session.set_image(image)
            annotator, curve = Annotator(truth, void), []
            for _ in range(CLICKS):
                click = annotator.click(session.mask)
                if click is not None:
                    session.click(click.x, click.y, click.positive)
                curve.append(iou(session.mask, truth, void))
            curves.append(curve)
    mean = np.mean(curves, axis=0)
    assert len(curves) == 68
    assert np.all(np.diff(mean) > 0), mean
    assert mean[0] > 0.4, mean
    assert mean[-1] >= 0.75, mean
