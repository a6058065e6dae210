"""The published protocol: what a family's bundles say, options of its parts, and the official software's numbers."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from mmms_deploy import Bundle, Click, Session
from mmms_deploy.bundle import EvaluationProtocol, Outside, ZoomRule
from mmms_deploy.bundle.protocol import MFP_PROTOCOL, RITM_FAMILY, SKIPCLICK_PROTOCOL
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import Door
from mmms_deploy.evaluation.answering import Answering, Choose, answering, other_size, recorded_answering
from mmms_deploy.evaluation.bundles import BundleSource
from mmms_deploy.evaluation.errors import EvaluationSettingsError
from mmms_deploy.imaging.modulation import Point, modulate
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.models.config import MMMSConfig, SimpleClickConfig, SkipClickConfig, ViTConfig
from mmms_deploy.models.description import parse_description
from mmms_deploy.models.mfp_config import MFPConfig
from mmms_deploy.session.canvas import Answered, Canvas
from mmms_deploy.session.interactions import previous_of
from mmms_deploy.session.views import mean_by_logits
from mmms_deploy.session.zoom import click_in, draw_disks, next_box
from tests.support.families import GoldenFile, probe
from tests.support.toy import write_toy

slow = pytest.mark.slow


def test_every_family_says_how_it_was_evaluated() -> None:
    assert SimpleClickConfig().published == RITM_FAMILY
    assert SkipClickConfig().published == SKIPCLICK_PROTOCOL
    assert MMMSConfig().published is None
    assert (RITM_FAMILY.threshold, RITM_FAMILY.flip, RITM_FAMILY.size_on("davis")) == (0.49, True, (672, 672))
    assert RITM_FAMILY.zoom == ZoomRule(expansion=1.4, smallest=200, iou=0.5, outside=Outside.ZEROS)
    assert MFP_PROTOCOL.zoom == ZoomRule(outside=Outside.KEPT)
    assert (SKIPCLICK_PROTOCOL.zoom, SKIPCLICK_PROTOCOL.size_on("hqseg")) == (None, (896, 896))


def test_a_description_may_say_it() -> None:
    described = parse_description(
        {"published": {"flip": True, "zoom": {"outside": "kept"}, "sizes": {"sbd": [64, 64]}}}, "x"
    )
    assert described.published == EvaluationProtocol(
        flip=True, zoom=ZoomRule(outside=Outside.KEPT), sizes={"sbd": (64, 64)}
    )


@pytest.fixture(scope="module")
def ritm(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_toy(tmp_path_factory.mktemp("toy") / "ritm", published=RITM_FAMILY)


def test_the_protocol_and_each_part_alone(ritm: Bundle, paint: Bundle) -> None:
    rule = ZoomRule()
    assert answering(ritm.manifest) == Answering()
    assert answering(ritm.manifest, published=True) == Answering(rule, flip=True, threshold=0.49)
    assert answering(ritm.manifest, published=True, flip=False) == Answering(rule, threshold=0.49)
    assert answering(ritm.manifest, published=True, zoom=False) == Answering(None, flip=True, threshold=0.49)
    assert answering(ritm.manifest, published=True, threshold=0.5) == Answering(rule, flip=True, threshold=0.5)
    assert answering(ritm.manifest, zoom=True) == Answering(rule)
    assert answering(paint.manifest, flip=True, threshold=0.4) == Answering(None, flip=True, threshold=0.4)
    assert answering(paint.manifest, zoom=True) == Answering(rule)
    with pytest.raises(EvaluationSettingsError, match="paint does not say how"):
        answering(paint.manifest, published=True)


@pytest.mark.parametrize(
    ("family", "why", "by_size"),
    [("interformer", "every picture at its own size", True), ("onnx", "the decoder's list of points", False)],
)
def test_a_family_whose_figures_no_bundle_can_repeat_is_told_why(
    family: str, why: str, by_size: bool, paint: Bundle
) -> None:
    provenance = msgspec.structs.replace(paint.manifest.provenance, description={"family": family})
    manifest = msgspec.structs.replace(paint.manifest, provenance=provenance)
    with pytest.raises(EvaluationSettingsError, match=why) as caught:
        answering(manifest, published=True)
    said = caught.value.message(Door.COMMAND_LINE)
    assert "pass --protocol noc or curve" in said
    assert ("--size" in said) is by_size
    assert "--zoom" not in said
    assert "export the checkpoint again" not in str(caught.value)


def test_the_crop_is_around_what_the_threshold_of_masks_says() -> None:
    assert Answering(ZoomRule(), threshold=0.49).crop == ZoomRule(threshold=0.49)
    assert Answering(ZoomRule(threshold=0.3), threshold=0.49).crop == ZoomRule(threshold=0.3)
    assert Answering(ZoomRule()).crop == ZoomRule()
    assert Answering().crop is None


@pytest.mark.parametrize(
    "one",
    [
        Answering(),
        Answering(ZoomRule(), flip=True, threshold=0.49),
        Answering(choose=Choose.BEST),
        Answering(ZoomRule(expansion=1.25, smallest=3, iou=0.1, outside=Outside.KEPT, threshold=0.3)),
    ],
)
def test_results_record_how_answers_were_made(one: Answering) -> None:
    assert recorded_answering(one.options()) == one
    assert recorded_answering({"flip": None, "threshold": None}) == Answering()  # of an older version


def test_another_size_than_the_published_one_is_said(ritm: Bundle, paint: Bundle) -> None:
    assert "davis is evaluated at 672 x 672" in (other_size(ritm.manifest, "davis", "davis") or "")
    assert "--size 672" in (other_size(ritm.manifest, "davis", "davis") or "")
    assert "64 x 96" in (other_size(ritm.manifest, "sbd", "sbd") or "")
    assert other_size(paint.manifest, "davis", "davis") is None


def test_predictors_answer_as_published(ritm: Bundle) -> None:
    picture = np.random.default_rng(0).integers(0, 80, (300, 400, 3), dtype=np.uint8)
    source = BundleSource(ritm, EngineRequest(engine="onnxruntime"), zoom=ZoomRule(), flip=True, threshold=0.49)
    predictor = source.open()
    predictor.set_image(picture)
    with Session(ritm, engine="onnxruntime", zoom=ZoomRule(threshold=0.49), flip=True) as session:
        session.set_image(picture)
        crops = set()
        for x, y, positive in ((100, 100, True), (130, 110, True), (380, 20, True), (105, 90, False)):
            answer = session.click(x, y, positive)
            crops.add(answer.crop)
            mask = predictor.click(x, y, positive)
            sure = np.abs(answer.probability - 0.49) > 1e-6
            np.testing.assert_array_equal(mask[sure], (answer.probability > 0.49)[sure])
    assert len(crops) >= 3
    predictor.close()
    source.close()


OFFICIAL = {
    "simpleclick-xtiny-predictor": SimpleClickConfig(
        vit=ViTConfig(dim=160, depth=8, heads=4), neck_widths=(96, 192, 288, 384), head_width=128
    ),
    "mfp-tiny-predictor": MFPConfig(vit=ViTConfig(dim=96, depth=12, heads=3), neck_widths=(48, 96, 192, 384)),
}


@pytest.mark.parametrize("name", ["simpleclick-xtiny-predictor", pytest.param("mfp-tiny-predictor", marks=slow)])
def test_the_official_predictors_numbers(name: str) -> None:
    """The network in PyTorch with ZoomIn and the mirror image, click by click, by the rules that a session follows."""
    torch = pytest.importorskip("torch")
    from mmms_deploy.models.families import build_network

    golden, config = GoldenFile(name), OFFICIAL[name]
    network = build_network(config).eval()
    weights = {key: torch.from_numpy(value) for key, value in golden.weights().items()}
    counters = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict(counters | {key: weights[key] for key in network.state_dict() if key not in counters})
    picture, rule, corners = golden.image(), config.clicks, config.clicks.mask_resize
    size = (picture.shape[0], picture.shape[1])
    protocol = config.published
    assert protocol is not None
    assert protocol.zoom is not None
    canvas, box, clicks = Canvas(size, corners), None, []

    def run(image: Any, *maps: Any) -> Any:
        with torch.inference_mode():
            logits = network(torch.from_numpy(image), torch.from_numpy(np.concatenate(maps, axis=1)))
        return torch.sigmoid(logits).numpy()

    for number, (row, column, positive) in enumerate(golden.meta["clicks"]):
        clicks.append(Click(column, row, bool(positive)))
        box = next_box(box, canvas.bounds(protocol.threshold), clicks, size, protocol.zoom)
        assert list(box) == golden.meta["roi"][number]
        image = prepare(picture[box.slices], config.image, config.size)
        seen = previous_of(canvas.part(box), config.size, rule)
        answers = []
        for mirrored in (False, True):
            points = [click_in(click, box, config.size, rule.coordinates, mirrored=mirrored) for click in clicks]
            disks = draw_disks(points, config.size, rule.radius)
            turn = np.s_[..., ::-1] if mirrored else np.s_[...]
            shown, previous, changed = image[turn].copy(), seen[turn], []
            if rule.modulation is not None:
                if not previous.any():
                    previous = run(shown, previous, previous, disks)
                near = [Point(x, y, sign > 0.5) for x, y, sign, _ in points]
                changed = [modulate(previous[0, 0], near, rule.modulation)[None, None]]
            answers.append(run(shown, previous, *changed, disks)[0, 0][turn])
        canvas = canvas.cover(Answered(box, mean_by_logits(*answers)), keep=protocol.zoom.outside == Outside.KEPT)
        expected = golden.arrays[f"prob.probe{number}"]
        np.testing.assert_allclose(probe(canvas.probability(), expected.size), expected, rtol=0, atol=5e-5)
        mask = np.unpackbits(golden.arrays[f"mask{number}"], count=picture[..., 0].size).reshape(size)
        assert (canvas.mask(0.5) != mask).sum() <= 2
