"""The model card of a bundle: what the hub reads of it, what people read of it, and that it may be edited."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmms_deploy.bundle import Bundle, BundleWriter, GateCheck, Manifest, Provenance
from mmms_deploy.bundle.card import card_of
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.errors import OutputExistsError
from mmms_deploy.hub import HubReference
from tests.support.toy import write_toy


def head(card: str) -> dict[str, Any]:
    """Return the YAML of a card, as the hub reads it."""
    yaml = pytest.importorskip("yaml")
    start, text, _ = card.split("---\n", 2)
    assert start == ""
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def changed(manifest: Manifest, provenance: dict[str, Any] | None = None, **fields: Any) -> Manifest:
    origin = msgspec.structs.replace(manifest.provenance, **(provenance or {}))
    return msgspec.structs.replace(manifest, provenance=origin, **fields)


CHECK = GateCheck(
    name="stages against whole",
    measure="largest |difference| of prob",
    worst=2.5e-7,
    limit=1e-4,
    where="click 3",
    samples=12,
)


def test_every_bundle_has_one(paint: Bundle) -> None:
    card = (paint.path / "README.md").read_bytes()
    assert card.decode() == card_of(paint.manifest)
    assert hashlib.sha256(card).hexdigest() == paint.manifest.card
    assert "README.md" not in paint.manifest.files


def test_what_the_hub_reads(paint: Bundle) -> None:
    sources = {
        "license": "apache-2.0",
        "checkpoint_source": f"hf:them/weights@{'0' * 40}/model.safetensors",
        "backbone_checkpoint_source": f"hf:them/vit@{'1' * 40}/vit.pth",
    }
    manifest = changed(paint.manifest, sources, gate=(CHECK,), modalities=(ModalitySpec(name="depth"),))
    found = head(card_of(manifest))
    assert found["license"] == "apache-2.0"
    assert found["library_name"] == "mmms-deploy"
    assert found["pipeline_tag"] == "mask-generation"
    assert found["tags"] == ["onnx", "interactive-segmentation", "click-based-segmentation", "depth"]
    assert found["base_model"] == ["them/weights", "them/vit"]
    (result,) = found["model-index"][0]["results"]
    assert found["model-index"][0]["name"] == "paint"
    assert result["task"]["type"] == "mask-generation"
    (metric,) = result["metrics"]
    assert metric["value"] == 2.5e-7
    assert metric["name"] == "stages against whole: largest |difference| of prob, worst of 12"


def test_the_library_of_the_hub_understands_it(paint: Bundle) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(card_of(changed(paint.manifest, {"license": "mit"}, gate=(CHECK,))))
    assert card.data.license == "mit"
    assert [result.metric_value for result in card.data.eval_results] == [2.5e-7]


def test_what_people_read(paint: Bundle) -> None:
    provenance = {
        "checkpoint": "weights.pth",
        "checkpoint_sha256": "c" * 64,
        "random_seed": None,
        "parameters": 4_920_000,
        "description": {"family": "mmms", "backbone": {"name": "dinov2_b14_reg", "overrides": {"depth": 8}}},
    }
    card = card_of(changed(paint.manifest, provenance, gate=(CHECK,)), HubReference("me/clicks"))
    for text in (
        "backbone `dinov2_b14_reg` with `depth=8`",
        "4.92 million",
        "64 x 96",
        "mmms-segment hf:me/clicks photo.jpg",
        'with Session("hf:me/clicks") as session:',
        "| stages against whole | largest \\|difference\\| of prob | 2.5e-07 | 0.0001 | 12 |",
        "`weights.pth`",
        f"`{'c' * 64}`",
        "The licence of the weights is not stated",
    ):
        assert text in card
    assert "random" not in card


def test_a_local_bundle_is_named_by_its_folder(paint: Bundle) -> None:
    card = card_of(changed(paint.manifest, name='odd "name"'))
    assert 'with Session("path/to/odd-name-") as session:' in card
    assert "mmms-segment path/to/odd-name- photo.jpg" in card


def test_random_weights_say_so(paint: Bundle) -> None:
    assert "its masks mean nothing" in card_of(paint.manifest)


def test_required_modalities_are_in_the_lines_to_copy(modal: Bundle) -> None:
    card = card_of(modal.manifest)
    assert 'session.set_image("photo.jpg", depth=depth, event=event)' in card
    assert "--modality depth=depth.png --modality event=event.png" in card


def test_names_from_outside_are_text(paint: Bundle) -> None:
    bad = "x\n---\nlicense: mit\n# *a* [b](c) <script> |\x1b[2J`"
    provenance = {"checkpoint": bad, "random_seed": None, "created": bad, "packages": {bad: bad}, "rewrites": (bad,)}
    checks = (msgspec.structs.replace(CHECK, name=bad, measure=bad), msgspec.structs.replace(CHECK, worst=float("nan")))
    card = card_of(changed(paint.manifest, provenance, name=bad, gate=checks))
    assert head(card)["license"] == "unknown"
    assert head(card)["model-index"][0]["name"] == bad
    assert "\x1b" not in card
    assert "<script>" not in card.replace("\\<script\\>", "").replace("`", "").split("---\n", 2)[2].split("## Where")[0]
    assert card.count("\n# ") == 1


def test_an_old_manifest_without_these_fields_is_read(tmp_path: Path) -> None:
    """Bundles from before the card."""
    added = {"card", "license", "checkpoint_source", "backbone_checkpoint_source"}
    fields = {field.name: field for kind in (Manifest, Provenance) for field in msgspec.structs.fields(kind)}
    assert all(fields[name].default is None for name in added)


# --- edited -----------------------------------------------------------------------------------------------------------


def test_an_edited_card_does_not_break_the_bundle(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "toy")
    (bundle.path / "README.md").write_text("mine")
    assert Bundle(bundle.path).manifest == bundle.manifest
    (bundle.path / "README.md").unlink()
    assert Bundle(bundle.path).manifest == bundle.manifest


def test_a_bundle_with_its_own_card_is_replaced(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "toy")
    with BundleWriter(tmp_path / "toy", overwrite=True) as writer:
        writer.path("golden.npz").write_bytes((bundle.path / "golden.npz").read_bytes())
        for graph in bundle.path.glob("*.onnx"):
            writer.path(graph.name).write_bytes(graph.read_bytes())
        written = writer.commit(msgspec.structs.replace(bundle.manifest, name="new"))
    assert "# new\n" in (written.path / "README.md").read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy"]


def test_an_edited_card_is_not_lost(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "toy")
    (bundle.path / "README.md").write_text("mine")
    with (
        pytest.raises(OutputExistsError, match=r"README\.md was edited") as caught,
        BundleWriter(tmp_path / "toy", overwrite=True),
    ):
        pass
    assert "move it elsewhere" in str(caught.value)
    assert (bundle.path / "README.md").read_text() == "mine"
    (bundle.path / "README.md").unlink()
    with BundleWriter(tmp_path / "toy", overwrite=True):
        pass


def test_a_foreign_card_beside_an_old_bundle_is_foreign(tmp_path: Path, copy: Path) -> None:
    manifest = msgspec.json.decode((copy / "bundle.json").read_bytes())
    del manifest["card"]
    (copy / "bundle.json").write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(OutputExistsError, match=r"not the bundle's: README\.md"), BundleWriter(copy, overwrite=True):
        pass
