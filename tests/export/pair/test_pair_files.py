"""Files and descriptions that do not fit each other are refused by name; what fits is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from mmms_deploy import Session
from mmms_deploy.bundle import Bundle, Role, sha256_of
from mmms_deploy.errors import DescriptionError, ExportError, SessionError
from mmms_deploy.export.pair.description import PairDescription, parse_pair, read_pair
from mmms_deploy.export.pair.exporter import PairSource, export_pair
from mmms_deploy.export.pair.files import PairFiles
from mmms_deploy.export.pair.known import PAIRS, known_description
from mmms_deploy.export.pair.ort_graph import read_ort_graph
from mmms_deploy.models.description import parse_description
from tests.support.pair import GRID, SIDE, write_decoder, write_encoder

IMAGE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
PLAIN: dict[str, Any] = {
    "family": "onnx",
    "size": [SIDE, SIDE],
    "encoder": {"features": {"embedding": "feature"}},
    "decoder": {"points": "coords", "labels": "labels", "masks": "masks", "scores": "scores"},
}
FED = {"mask_input": "mask_input", "has_mask_input": "has_mask"}


def described(encoder: dict[str, Any] | None = None, **decoder: Any) -> PairDescription:
    parts = {"encoder": {**PLAIN["encoder"], **(encoder or {})}, "decoder": {**PLAIN["decoder"], **decoder}}
    return parse_pair({**PLAIN, **parts}, "the test")


def export(folder: Path, encoder: Path, decoder: Path, description: PairDescription) -> Bundle:
    return export_pair(PairSource(encoder, decoder, description), folder / "bundle").bundle


@pytest.mark.parametrize(
    ("encoder", "decoder", "words"),
    [
        ({"features": {"embedding": "nothing"}}, FED, "the encoder .*: it has no output nothing"),
        ({"input": "rgb"}, FED, "the encoder .*: it has the inputs image"),
        ({"layout": "nhwc"}, FED, "the encoder .*: its input image is tensor"),
        ({"sha256": "0" * 64}, FED, "the encoder .*: it has the SHA-256"),
        ({}, {**FED, "points": "places"}, "the decoder .*: it has no input places"),
        ({}, {}, "the decoder .*: nothing is said of its inputs mask_input, has_mask"),
        ({}, {**FED, "masks": "low"}, "the decoder .*: it has no output low"),
        ({}, {**FED, "scores": None}, "the decoder .*: its answers are .* and their scores None"),
        ({}, {**FED, "first": [3]}, "the decoder .*: 'first' or 'later' names the answer 3"),
        ({}, {**FED, "constants": {"labels": 1.0}}, "the decoder .*: labels is described twice"),
        ({}, {"mask_input": "mask_input", "constants": {"has_mask": [1.0, 2.0, 3.0]}}, "the constant has_mask has 3"),
    ],
)
def test_what_does_not_fit_is_said(
    pair: tuple[Path, Path, Path], encoder: dict[str, Any], decoder: dict[str, Any], words: str
) -> None:
    with pytest.raises(ExportError, match=words):
        PairFiles(described(encoder, **decoder), pair[0], pair[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [0, 8]}, "size must be two sides"),
        ({"threshold": 1.0}, "threshold must be in"),
        ({"decoder": {**PLAIN["decoder"], "has_mask_input": "has_mask"}}, "has_mask_input needs decoder.mask_input"),
        ({"decoder": {**PLAIN["decoder"], "sha256": "ABC"}}, "64 hexadecimal digits"),
        ({"encoder": {"features": {}}}, "at least one input"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_impossible_descriptions_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DescriptionError, match=words):
        parse_pair({**PLAIN, **change}, "the test")


def test_a_description_of_a_pair_is_not_taken_for_one_of_a_network() -> None:
    with pytest.raises(DescriptionError, match="describes an encoder and a decoder in ONNX files"):
        parse_description(PLAIN, "the test")


def test_the_manifest_tells_the_truth(pair: tuple[Path, Path, Path], pair_bundle: Bundle) -> None:
    manifest = pair_bundle.manifest
    origin = manifest.provenance
    assert (origin.checkpoint, origin.checkpoint_sha256) == ("decoder.onnx", sha256_of(pair[1]))
    assert (origin.backbone_checkpoint, origin.backbone_checkpoint_sha256) == ("encoder.onnx", sha256_of(pair[0]))
    assert parse_pair(origin.description, "the manifest") == read_pair(pair[2])
    assert manifest.gate[0].name == "stages against the files"
    assert manifest.gate[0].worst == 0
    roles = {spec.name: spec.role for stage in manifest.stages for g in stage.graphs.values() for spec in g.outputs}
    assert {Role.LOGITS, Role.CANDIDATES, Role.SCORES, Role.TAKEN} <= set(roles.values())
    assert "up to 5 of them" in (pair_bundle.path / "README.md").read_text()


def test_other_forms_of_the_same_pair_answer_the_same(
    pair: tuple[Path, Path, Path], pair_bundle: Bundle, tmp_path: Path
) -> None:
    """Channels last, whole numbers as labels, coordinates as fractions, a flag as a constant: each answers alike."""
    encoder = write_encoder(tmp_path / "encoder.onnx", channels_last=True)
    decoder = write_decoder(tmp_path / "decoder.onnx", labels=TensorProto.INT64)
    bundle = export(tmp_path, encoder, decoder, described({"layout": "nhwc"}, **FED))
    with Session(pair_bundle, precision="fp32") as one, Session(bundle, precision="fp32") as other:
        for session in (one, other):
            session.set_image(IMAGE)
        for click in ((40, 30, True), (70, 10, False)):
            np.testing.assert_allclose(one.click(*click).answer.numbers, other.click(*click).answer.numbers, atol=1e-5)


def test_a_decoder_without_mask_input_takes_no_mask(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder.onnx")
    decoder = write_decoder(tmp_path / "decoder.onnx", mask_input=False, one=True)
    bundle = export(tmp_path, encoder, decoder, described(scores=None))
    with Session(bundle, precision="fp32") as session:
        session.set_image(IMAGE)
        result = session.click(40, 30)
        assert result.candidates == ()
        assert result.mask.any()
        assert session.predict([[40, 30]], [1])[0].shape == (1, 64, 96)
        with pytest.raises(SessionError, match="takes none, or was exported without it"):
            session.set_mask(result.mask)
        assert np.array_equal(session.mask, result.mask)


def test_padding_and_choice_follow_the_description(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """A padded point counts in the decoder's scores, so that it changes which answer is taken."""
    description = described(feedback=False, padding=-1.0, first=[2], later=[0, 1], **FED)
    bundle = export(tmp_path, pair[0], pair[1], description)
    with Session(bundle, precision="fp32") as session:
        session.set_image(IMAGE)
        first, second = session.click(40, 30), session.click(70, 10, False)
    assert [one.taken for one in first.candidates] == [False, False, True]
    assert first.candidates[1].score == pytest.approx(0.5 + 2 * 0.15), "one click and the padded point"
    assert [one.taken for one in second.candidates] == [False, True, False]


def test_a_file_of_onnx_runtime_becomes_the_graph_that_it_is(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "decoder.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(pair[1]), options)
    bundle = export(tmp_path, pair[0], tmp_path / "decoder.ort", described(**FED))
    onnx.checker.check_model(str(bundle.file("click.fp32.onnx")), full_check=True)
    assert bundle.manifest.gate[0].worst == 0
    whole = (tmp_path / "decoder.ort").read_bytes()
    (tmp_path / "cut.ort").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportError, match="no readable file of ONNX Runtime"):
        read_ort_graph(tmp_path / "cut.ort")


def test_sam2_tiny_is_known_by_its_hashes(pair: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    known = PAIRS["sam2-tiny"]
    pinned = {file.name: file.sha256 for file in known.package.files}
    found = known.description
    assert (found.encoder.sha256, found.decoder.sha256) == (pinned[known.encoder], pinned[known.decoder])
    assert found.contract((256, 256), 3).candidates == 3
    assert known_description(pair[0], pair[1]) is None
    names = {pair[0]: known.encoder, pair[1]: known.decoder}
    monkeypatch.setattr("mmms_deploy.export.pair.known.sha256_of", lambda path: pinned[names[path]])
    assert known_description(pair[0], pair[1]) == found


def test_the_answers_have_the_grid_of_the_decoder(pair_bundle: Bundle) -> None:
    assert pair_bundle.manifest.clicks.answer_size(pair_bundle.manifest.size) == (GRID, GRID)
