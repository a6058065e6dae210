"""The table of exports: a network that is exported in a process of its own, one that cannot be, and the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmms_deploy.bundle import Bundle
from mmms_deploy.bundle.contract import to_builtins
from tests.support.paths import ROOT
from tests.support.releases import TINY
from tests.support.tiny import DEPTH, tiny_config


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import export_table

        yield export_table


@pytest.fixture(scope="module")
def results(script, tmp_path_factory) -> Path:
    """Runs the command on a tiny SAM with depth, and on a network of an impossible size."""
    backbone = TINY["sam_b16"].config("sam_b16")
    good, bad = (to_builtins(tiny_config(DEPTH, backbone=backbone, size=size)) for size in ((64, 96), (60, 96)))
    networks = (
        script.Network("tiny", "Tiny SAM", "RGB + depth", good, paper=0.5),
        script.Network("bad", "Bad SAM", "RGB + depth", bad),
    )
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "NETWORKS", networks)
        patch.setattr(script, "count_all", lambda: [script.Counted("tiny", 1.0, 3.0, 1.0, 0.5)])
        assert script.main(["--out", str(folder / "results"), "--keep", str(folder / "bundles")]) == 1
    return folder / "results"


def test_what_is_measured(script, results) -> None:
    content = json.loads((results / "export.json").read_text())
    assert content["kind"] == "benchmarks/export"
    row = script.row_of(content["rows"][0])
    manifest = Bundle(results.parent / "bundles" / "export-tiny").manifest
    assert row.why == ""
    assert row.parameters == manifest.provenance.parameters / 1e6
    assert row.peak > 0.2
    assert row.seconds > 1
    assert row.gflop("image") > row.gflop("click") > 0
    assert row.gain() == (row.gflop("image") + row.gflop("click")) / row.gflop("click")
    assert min(row.megabytes("image"), row.megabytes("click")) > 0.1
    # Four sequences of tokens of widths 8, 16, 16, 32 at 16x24, 8x12, 4x6, 2x3, in float32.
    assert row.features() == pytest.approx(4 * (8 * 384 + 16 * 96 + 16 * 24 + 32 * 6) / 1e6)
    assert [stage.name for stage in row.stages] == [stage.name for stage in manifest.stages]
    assert {(c.name, c.worst) for c in row.gate} == {(c.name, c.worst) for c in manifest.gate}
    assert len(script.cells(row)) == len(script.HEADINGS)


def test_counting_without_exporting_agrees(script, results) -> None:
    import splits

    row = script.row_of(json.loads((results / "export.json").read_text())["rows"][0])
    config = tiny_config(DEPTH, backbone=TINY["sam_b16"].config("sam_b16"), size=(64, 96))
    counted = splits.count("tiny", to_builtins(config))
    assert counted.image == pytest.approx(row.gflop("image"))
    assert counted.click == pytest.approx(row.gflop("click"))
    assert counted.gain == pytest.approx(row.gain())
    assert counted.boundary == pytest.approx(row.features())
    assert counted.parameters == row.parameters


def test_what_cannot_be_exported_says_why(results) -> None:
    row = json.loads((results / "export.json").read_text())["rows"][1]
    assert "network height 60" in row["why"]
    assert [path.name for path in (results.parent / "bundles").iterdir()] == ["export-tiny"]


def test_the_page(results) -> None:
    page = (results / "export.md").read_text()
    assert "| Tiny SAM | RGB + depth | 0." in page
    assert "| Bad SAM | RGB + depth | not measured: network height 60 |" in page
    assert page.count("| session against torch, closed loop |") == 2
    assert "| tiny | 1.0 | 3.0 | 1.0 | 4.00x | 0.5 |" in page
    tables = [line for line in page.splitlines() if line.startswith("| Tiny SAM") or line.startswith("| Bad SAM")]
    assert len({line.count("|") for line in tables}) == 1


def test_the_networks_of_the_table(script) -> None:
    from mmms_deploy.models import MMMSConfig
    from mmms_deploy.models.backbone import RELEASES
    from mmms_deploy.models.checkpoint import parse_description
    from mmms_deploy.models.families import FAMILIES

    known = [network for network in script.NETWORKS if network.overrides.get("family", "mmms") in FAMILIES]
    configs = [parse_description(network.overrides, network.key) for network in known]
    assert {config.family for config in configs} == set(FAMILIES)
    mmms = [config for config in configs if isinstance(config, MMMSConfig)]
    assert all(config.size == (448, 448) for config in mmms)
    vits = {name for name, release in RELEASES.items() if not release.pyramid}
    assert {config.backbone.name for config in mmms} == vits | {"sam2_hiera_t"}
    assert {len(config.modalities) for config in mmms} == {0, 1, 2, 3}


def test_only_the_section_of_gains_is_replaced(script, results, tmp_path) -> None:
    (tmp_path / "export.md").write_text((results / "export.md").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "count_all", lambda: [script.Counted("other", 1.0, 1.0, 1.0, 0.5)])
        assert script.main(["--no-export", "--out", str(tmp_path)]) == 0
    before, after = ((folder / "export.md").read_text().splitlines() for folder in (results, tmp_path))
    differing = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert [new for _, new in differing] == ["| other | 1.0 | 1.0 | 1.0 | 2.00x | 0.5 |"]


def test_rows_of_an_earlier_run_stay(script, results) -> None:
    new = script.Row("dinov2", "DINOv2", "RGB")
    again = script.Row("tiny", "Tiny SAM, again", "RGB + depth")
    rows = script.joined([new, again], results / "export.json")
    assert [row.backbone for row in rows] == ["DINOv2", "Tiny SAM, again", "Bad SAM"]
    assert script.joined([new], results / "none.json") == [new]
