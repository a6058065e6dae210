from __future__ import annotations

import math
import shutil
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from mmms_deploy.bundle import Bundle, GateCheck, Manifest, Precision, Provenance
from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.bundle.notebook import bundle_view
from tests.support.toy import write_toy


def shown(bundle: Bundle, **changes: object) -> str:
    """The view of a bundle as text, with other values in its manifest."""
    html = bundle_view(msgspec.structs.replace(bundle.manifest, **changes), bundle.path)
    return "\n".join(ElementTree.fromstring(html).itertext())


def origin(manifest: Manifest, **changes: object) -> Provenance:
    return msgspec.structs.replace(manifest.provenance, **changes)


def test_a_bundle_shows_what_it_is_and_reads_no_file(copy: Path) -> None:
    bundle = Bundle(copy)
    shutil.rmtree(copy)
    text = "\n".join(ElementTree.fromstring(bundle._repr_html_()).itertext())
    height, width = bundle.manifest.size
    for part in ("Bundle paint", f"{height} x {width}", "once an image", "at every click", str(copy), "fp32"):
        assert part in text


def test_modalities_and_cuts(tmp_path: Path) -> None:
    depth = ModalitySpec(name="depth", invalid=(0, "nan"), optional=True)
    bundle = write_toy(tmp_path / "modal", modalities=(depth, ModalitySpec(name="event", channels=3)))
    text = shown(bundle, provenance=origin(bundle.manifest, cuts=("late",)))
    assert "depth: 1 channel, invalid: 0, nan, optional" in text
    assert "event: 3 channels" in text
    assert "when a modality arrives or changes" in text
    assert "cuts: late" in text
    assert "a provider's features" in shown(write_toy(tmp_path / "provider", black_box=True))


def test_random_weights_are_named_at_once(paint: Bundle) -> None:
    assert "mean nothing" in shown(paint)
    trained = origin(paint.manifest, random_seed=None, checkpoint="dog.safetensors", checkpoint_sha256="ab" * 32)
    text = shown(paint, provenance=trained)
    assert "mean nothing" not in text
    assert "dog.safetensors (SHA-256 abababababab...)" in text


def test_the_gate_in_brief_and_in_full(paint: Bundle) -> None:
    assert "not measured" in shown(paint)
    check = GateCheck(name="a against b", measure="largest difference", worst=1e-7, limit=1e-4, where="-", samples=3)
    text = shown(paint, gate=(check, check))
    assert "2 comparisons, all within their limits" in text
    assert "1e-07" in text
    for worst in (1.0, math.nan):
        beyond = msgspec.structs.replace(check, worst=worst)
        assert "2 comparisons, 1 beyond their limits" in shown(paint, gate=(check, beyond))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\x1b[31m", "\u202egnp.exe", '"&<'])
def test_text_from_a_bundle_does_nothing(paint: Bundle, name: str) -> None:
    changed = origin(
        paint.manifest, random_seed=None, checkpoint=name, cuts=(name,), packages={"torch": name}, created=name
    )
    check = GateCheck(name=name, measure=name, worst=1.0, limit=0.0, where=name, samples=1)
    manifest = msgspec.structs.replace(paint.manifest, name=name, provenance=changed, gate=(check,))
    html = bundle_view(manifest, Path(name))
    tree = ElementTree.fromstring(html)  # well-formed, so nothing was closed or opened by the text
    assert not tree.findall(".//script")
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_every_precision_has_its_size(tmp_path: Path) -> None:
    bundle = write_toy(tmp_path / "two", precisions=(Precision.FP32, Precision.FP16))
    assert "fp16" in shown(bundle)
