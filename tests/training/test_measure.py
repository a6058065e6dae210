"""What is measured on held-out scenes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("cv2")

from mmms_deploy.evaluation import open_dataset
from mmms_deploy.evaluation.errors import EvaluationModalityError
from mmms_deploy.evaluation.summary import summarise_run
from mmms_deploy.training import measure
from mmms_deploy.training.data import whole
from mmms_deploy.training.measure import GuardSummary, HeldOut
from mmms_deploy.training.page import write_page
from mmms_deploy.training.pipeline import write_checkpoint
from tests.support.tiny import DEPTH
from tests.support.trainable import HEAT, narrow_network, write_folder


class Marker:
    """Answers with the truth of the first picture, and with ``more`` of it after a negative click."""

    truth = np.zeros((72, 96), bool)
    more = 0

    def __init__(self, network: object) -> None:
        self.reset()

    def set_image(self, image: np.ndarray, **modalities: np.ndarray) -> None:
        assert set(modalities) == {"thermal"}

    def reset(self) -> None:
        self.clicks: list[bool] = []

    def click(self, x: float, y: float, positive: bool) -> Marker:
        self.clicks.append(positive)
        self.mask = self.truth.copy()
        if not positive:
            assert not self.truth[int(y), int(x)]
            self.mask[:2, : self.more] = True
        return self


@pytest.fixture
def held(tmp_path: Path) -> HeldOut:
    folder = write_folder(tmp_path / "data", 1, thermal=True)
    part = whole(open_dataset("folder", folder), "folder")
    Marker.truth = part[0].surfaces[0].mask
    return HeldOut([part], narrow_network(HEAT))


@pytest.mark.parametrize(("more", "enlarged"), [(0, 0.0), (2, 0.0), (60, 1.0)])
def test_guard_clicks_are_counted_when_the_mask_grows(
    held: HeldOut, monkeypatch: pytest.MonkeyPatch, more: int, enlarged: float
) -> None:
    monkeypatch.setattr(measure, "TorchPredictor", Marker)
    monkeypatch.setattr(Marker, "more", more)
    monkeypatch.setattr(measure, "QUICK_OBJECTS", 1)
    found = held.guards(narrow_network(HEAT))
    area = int(Marker.truth.sum())
    assert (found.cases, found.enlarged) == (1, enlarged)
    assert found.growth == pytest.approx(2 * more / area)


def test_a_network_is_measured_quickly_and_fully(held: HeldOut, tmp_path: Path) -> None:
    network = narrow_network(HEAT)
    quick = held.quick(network)
    assert quick.objects == 2
    assert len(quick.iou) == 5
    assert 1 <= quick.noc85 <= 5
    checkpoint = tmp_path / "checkpoint.safetensors"
    write_checkpoint(checkpoint, network)
    runs = [held.full(network, checkpoint, tmp_path / "evaluation", limit=1) for _ in range(2)]
    assert runs[0].folder == runs[1].folder
    summaries = summarise_run(runs[0].facts, runs[0])
    assert summaries[0].objects == 2
    log = [
        {"step": 10, "loss": 0.5, "first": 0.3, "last": 0.4},
        {"step": 20, "loss": 0.3, "first": 0.4, "last": 0.6},
        {"step": 20, "measured": {"iou": [0.1, 0.2, 0.3, 0.4, 0.5]}},
    ]
    page = write_page(tmp_path, [("steps", "<20>")], log, summaries, GuardSummary(cases=8, enlarged=0.125, growth=0.01))
    text = page.read_text()
    ElementTree.fromstring(text.partition("\n")[2])
    for words in ("loss by step", "IoU of held-out objects by step", "NoC@90", "12.5 % of 8 masks", "&lt;20&gt;"):
        assert words in text
    assert "Training" not in write_page(tmp_path, [], [], (), None).read_text()


def test_a_missing_modality_is_said_before_anything_runs(tmp_path: Path) -> None:
    part = whole(open_dataset("folder", write_folder(tmp_path / "data", 1)), "folder")
    with pytest.raises(EvaluationModalityError, match="needs depth"):
        HeldOut([part], narrow_network(DEPTH))
