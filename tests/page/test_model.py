"""Which click stages run in a browser, and what JavaScript is told of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mmms_deploy import Bundle
from mmms_deploy.bundle.contract import ClickChannel, ClickContract, Modulation, PreviousMask, ResizeRule
from mmms_deploy.page import model as described
from mmms_deploy.page.model import browser_model, feature_specs
from tests.support.joint import write_joint
from tests.support.toy import write_toy


def test_the_small_demo_runs_in_a_browser() -> None:
    bundle = Bundle("demo-small")
    model = browser_model(bundle)
    assert model.available
    assert model.why == ""
    assert model.clicks is not None
    assert model.clicks.tensors.click == "click"
    assert (model.clicks.tensors.answer, model.clicks.tensors.previous) == ("prob", "prev")
    assert [(file.name, file.size) for file in model.files] == [
        (name, bundle.manifest.files[name].size) for name in ("click.fp32.onnx",)
    ]


def test_the_description_is_plain_data_with_all_that_the_click_stage_takes(paint: Bundle) -> None:
    plain = browser_model(paint).to_json()
    clicks = plain["clicks"]
    assert isinstance(clicks, dict)
    assert clicks["size"] == [64, 96]
    assert clicks["answer_size"] == [64, 96]
    assert clicks["features"] == ["f1"]
    assert clicks["state"] == [
        {"input": "maps", "output": "maps_next", "start": 0},
        {"input": "prev", "output": "prob", "start": 0},
    ]
    assert {spec["name"] for spec in clicks["inputs"]} == {"f1", "maps", "prev", "click"}
    assert clicks["contract"]["threshold"] == 0.5
    assert clicks["contract"]["previous_resize"] is None
    assert clicks["history_limit"] == 100
    assert browser_model(paint, history_limit=None).to_json()["clicks"]["history_limit"] is None  # type: ignore[index]


def test_labels_are_the_previous_mask_of_a_network_that_keeps_them(tmp_path: Path) -> None:
    clicks = browser_model(write_toy(tmp_path / "labels", labels=True)).clicks
    assert clicks is not None
    assert clicks.tensors.previous == "click_labels"
    assert [link.start for link in clicks.state] == [2]


def test_an_answer_through_the_images_size_runs_in_a_browser(tmp_path: Path) -> None:
    rule = ResizeRule(align_corners=True)
    assert browser_model(write_toy(tmp_path / "through", mask_resize=rule, previous_resize=rule)).available


def test_lists_of_clicks_stay_on_the_server(proposing: Bundle, tmp_path: Path) -> None:
    for bundle in (proposing, write_joint(tmp_path / "joint")):
        model = browser_model(bundle)
        assert not model.available
        assert "takes all clicks as a list" in model.why
        assert model.files == ()
        assert model.to_json()["clicks"] is None


CHANNELS = (ClickChannel.POSITIVE, ClickChannel.NEGATIVE, ClickChannel.PREVIOUS)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (
            ClickContract(
                channels=(*CHANNELS, ClickChannel.MODULATED),
                previous=PreviousMask.PROBABILITY,
                modulation=Modulation(),
            ),
            "changes its previous mask",
        ),
        (ClickContract(first_pass=True), "answers a first click twice"),
    ],
)
def test_what_needs_more_than_the_graph_stays_on_the_server(paint: Bundle, rule: ClickContract, why: str) -> None:
    bundle = Bundle(paint.path)
    bundle.manifest = msgspec.structs.replace(bundle.manifest, clicks=rule)
    model = browser_model(bundle)
    assert not model.available
    assert why in model.why


def test_a_click_stage_that_is_too_large_stays_on_the_server(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(described, "MOST_BYTES", 100)
    model = browser_model(paint)
    assert not model.available
    assert "a browser is given at most" in model.why


def test_features_are_what_no_click_changes(modal: Bundle) -> None:
    assert [spec.name for spec in feature_specs(modal)] == ["fused"]
