"""benchmarks/cpu.py: targets, tables and plots, the peer in its best engine, and who keeps the masks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from mmms_deploy.bench.workload import Picture
from mmms_deploy.bundle import Bundle, Precision
from tests.support.bench_reports import MACHINE
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def row(key: str, each_click: float = 0.0, each_image: float = 0.0, **fields: Any) -> Any:
    """A row; with times, of two images and two clicks on each."""
    from variants import Row

    times = {"click": [each_click] * 4, "image": [each_image] * 2} if each_click else {}
    return Row(**({"key": key, "label": key, "inputs": key.partition("/")[0]} | times | fields))


def peer(key: str, click: float, image: float, iou: float | None) -> Any:
    return row(key, click, image, inputs="", iou=iou)


def every_row() -> list[Any]:
    def ours(key: str, click: float, image: float, precision: str, size: int) -> Any:
        return row(key, click, image, ours=True, precision=precision, graph_bytes=size, host=[3.5])

    bf16 = ours("rgb/openvino-bf16", 30.0, 400.0, "bf16", 1000)
    bf16.gflop, bf16.engine = 20.0, [27.0, 28.0, 29.0]
    return [
        row("rgb/eager", 310.0, 2000.0),
        row("rgb/ort-as-exported", why="it was not exported\n  and so on"),
        ours("rgb/ort", 60.0, 700.0, "fp32", 1000),
        ours("rgb/openvino-fp32", 50.0, 600.0, "fp32", 1000),
        bf16,
        ours("rgb/openvino-int8", 21.0, 220.0, "int8", 270),
        ours("rgb/ort-int8", 33.0, 350.0, "int8", 270),
        row("rgbd/ort", 70.0, 800.0, ours=True),
        peer("sam2-graphs/onnxruntime-fp32", 22.0, 1100.0, 1.0),
        peer("sam2-graphs/openvino-bf16", 14.0, 600.0, 0.97),
        peer("sam2-graphs/openvino-fp16", 13.0, 500.0, 0.2),
        peer("sam2/openvino-bf16", 20.0, 610.0, None),
    ]


def goals(key: str, rows: list[Any]) -> dict[str, Any]:
    from results import targets

    ours = next(each for each in rows if each.key == key)
    return {target.what: target for target in targets(ours, rows, {"bf16": 1000.0, "fp32": 1.0})}


class TestWait:
    def test_an_image_and_its_first_ten_clicks(self) -> None:
        from results import wait

        # Of each image the first ten of twelve clicks: 100 + 10, 300 + 20 and 200 + 30.
        clicks = [clicked for each in (1.0, 2.0, 3.0) for clicked in (*[each] * 10, 500.0, 500.0)]
        assert wait(row("rgb/ort", image=[100.0, 300.0, 200.0], click=clicks)) == 230.0

    def test_fewer_clicks_count_by_their_mean(self) -> None:
        from results import wait

        assert wait(row("rgb/ort", image=[100.0], click=[1.0, 2.0, 6.0])) == 130.0

    def test_nothing_measured(self) -> None:
        from results import wait

        assert wait(row("rgb/ort", why="it cannot run")) is None
        assert wait(row("rgb/ort", image=[100.0], click=[])) is None


class TestBestPeer:
    def test_a_fast_engine_with_other_masks_does_not_count(self) -> None:
        from results import best_peer

        assert best_peer(every_row()).key == "sam2-graphs/openvino-bf16"

    def test_the_image_counts_as_much_as_the_clicks(self) -> None:
        from results import best_peer

        quick_click, quick_image = peer("sam2/a", 10.0, 900.0, 1.0), peer("sam2/b", 30.0, 600.0, 1.0)
        assert best_peer([quick_click, quick_image]) is quick_image

    def test_none(self) -> None:
        from results import best_peer

        ours = row("rgb/ort", 1.0, 1.0, iou=1.0)
        assert best_peer([ours, peer("sam2/a", 1.0, 1.0, 0.5), row("sam2/b", inputs="", why="no", iou=1.0)]) is None


class TestTargets:
    def test_of_every_precision(self) -> None:
        from results import share_of_peak

        rows = every_row()
        found = goals("rgb/openvino-bf16", rows)
        assert found["click / PyTorch eager"].value == pytest.approx(30 / 310)
        assert found["click / PyTorch eager"].met
        assert found["click / ONNX Runtime as exported"].met is None
        assert "it was not exported" in str(found["click / ONNX Runtime as exported"])
        assert found["host overhead of a click, ms"].met is False
        assert "MISSED" in str(found["host overhead of a click, ms"])
        share = found["click stage, share of the matrix peak"]
        assert share.value == pytest.approx(20.0 / 0.028 / 1000.0)
        assert share.met
        assert share_of_peak(rows[4], {"fp32": 1.0}) is None

    def test_the_peer_counts_in_its_best_engine(self) -> None:
        found = goals("rgb/openvino-bf16", every_row())
        assert found["click / SAM 2 tiny's, in its best engine"].value == pytest.approx(30 / 14)
        assert found["image part / SAM 2 tiny's, in its best engine"].value == pytest.approx(400 / 600)
        ten = found["image + 10 clicks / SAM 2 tiny's, in its best engine"]
        assert ten.value == pytest.approx((400 + 300) / (600 + 140))
        assert (ten.limit, ten.met) == (0.5, False)

    def test_without_a_peer_they_are_unknown(self) -> None:
        rows = [each for each in every_row() if each.inputs]
        ten = goals("rgb/openvino-int8", rows)["image + 10 clicks / SAM 2 tiny's, in its best engine"]
        assert ten.met is None
        assert "no engine was measured that keeps its masks" in str(ten)

    def test_eight_bits_against_the_same_engine(self) -> None:
        found = goals("rgb/openvino-int8", every_row())
        reached = {
            "click / BF16's, same engine": (0.78, 21 / 30),
            "click / float32's, same engine": (0.45, 21 / 50),
            "image part / BF16's, same engine": (0.62, 220 / 400),
            "size of the graph files / float32's": (0.3, 0.27),
        }
        for what, (limit, value) in reached.items():
            assert (found[what].limit, found[what].met) == (limit, True)
            assert found[what].value == pytest.approx(value)
        assert not set(reached) & set(goals("rgb/openvino-bf16", every_row()))

    def test_eight_bits_in_an_engine_without_bf16(self) -> None:
        found = goals("rgb/ort-int8", every_row())
        assert found["click / float32's, same engine"].value == pytest.approx(33 / 60)
        assert found["click / BF16's, same engine"].met is None
        assert "this engine does not compute in it" in str(found["click / BF16's, same engine"])

    def test_a_row_that_was_left_out_says_why(self) -> None:
        rows = every_row()
        rows[5] = row("rgb/openvino-int8", ours=True, precision="int8", why="the bundle has no int8 graphs")
        assert goals("rgb/openvino-int8", rows)["click / BF16's, same engine"].why == "the bundle has no int8 graphs"


class TestPage:
    def page(self, rows: list[Any]) -> str:
        from results import markdown

        return markdown(rows, MACHINE, {"bf16": {"gflops": 1000.0, "library": "X", "tried": {}}}, "in turns")

    def test_table(self) -> None:
        rows = every_row()
        rows[2].reference = rows[3].reference = "rgb/ort"
        rows[2].iou, rows[3].iou = 1.0, 0.9987
        text = self.page(rows)
        assert "| RGB | rgb/ort-as-exported | not measured: it was not exported |" in text
        assert "| RGB | rgb/openvino-bf16 | 700 | 30.0 | 30.0 | 30.0 | 3.50 | 20.0 | 71 % | 400 |" in text
        lines = [line for line in text.splitlines() if line.startswith(("| RGB", "| instead"))]
        assert len(lines) == len(rows)
        assert len({line.count("|") for line in lines}) == 1
        assert lines[2].endswith("| reference |  |")
        assert lines[3].endswith("| 0.999 |  |")

    def test_the_wait_is_the_first_picture(self) -> None:
        assert re.findall(r"\]\(cpu-(\w+)\.svg\)", self.page(every_row())) == ["wait", "click", "image"]

    def test_it_names_the_best_engine_and_who_does_not_count(self) -> None:
        text = self.page(every_row())
        assert "Here that is: sam2-graphs/openvino-bf16." in text
        assert "sam2-graphs/openvino-fp16 answers other masks (IoU 0.200) and does not count." in text
        assert "No engine was measured that keeps" in self.page([each for each in every_row() if each.inputs])

    def drawn(self, kind: str) -> str:
        from results import plot

        return " ".join(ElementTree.fromstring(plot(every_row(), kind)).itertext())

    @pytest.mark.parametrize("kind", ["click", "image"])
    def test_plots_of_all(self, kind: str) -> None:
        text = self.drawn(kind)
        assert "RGB: rgb/ort-int8" in text
        assert "RGB + depth: rgbd/ort" in text
        assert "sam2-graphs/openvino-fp16" in text
        assert "as-exported" not in text

    def test_the_plot_of_waits_is_sorted_and_leaves_other_masks_out(self) -> None:
        text = self.drawn("wait")
        found = re.findall(r"(?:rgb|sam2)\S*/\S+", text)
        assert found[0] == "rgb/openvino-int8"
        assert found[-1] == "rgb/eager"
        assert found.index("sam2-graphs/openvino-bf16") < found.index("sam2-graphs/onnxruntime-fp32")
        assert "sam2-graphs/openvino-fp16" not in text
        assert "sam2/openvino-bf16" not in text  # was not compared
        assert "rgbd" not in text


class Painter:
    """A variant whose mask is the left half of a picture, or the given columns."""

    def __init__(self, key: str, columns: int = 4, reference: str = "net/a", *, masks: bool = True) -> None:
        self.row = row(key, reference=reference)
        self.columns, self.masks = columns, masks
        self.clicks: list[Any] = []

    def set_image(self, picture: Any) -> float:
        self.clicks.append([])
        return 1.0

    def click(self, point: Any, *, record: bool) -> None:
        assert not record
        self.clicks[-1].append(point)

    def mask(self) -> Any:
        return (np.arange(8) < self.columns)[None].repeat(6, axis=0) if self.masks else None


class TestAgreement:
    PICTURES = (Picture(np.zeros((60, 80, 3), np.uint8), {}, ()),) * 2

    def test_masks_after_the_same_clicks(self) -> None:
        from agreement import CLICKS, measure_agreement

        reference, same, other = Painter("net/a"), Painter("net/b"), Painter("net/c", columns=2)
        alone, outside = Painter("net/d", reference=""), Painter("other/a", reference="other/missing")
        measure_agreement([reference, same, other, alone, outside], self.PICTURES)
        assert [each.row.iou for each in (reference, same, other, alone, outside)] == [1.0, 1.0, 0.5, None, None]
        assert reference.clicks == same.clicks == other.clicks
        assert [len(clicks) for clicks in same.clicks] == [CLICKS, CLICKS]
        assert not alone.clicks
        assert not outside.clicks

    def test_clicks_are_an_annotators(self) -> None:
        from agreement import measure_agreement

        reference = Painter("net/a")
        measure_agreement([reference], self.PICTURES)
        for (first, *later), again in zip(reference.clicks, reversed(reference.clicks), strict=True):
            assert first == (40.0, 30.0, True)
            assert later != again[1:]  # another picture, other places
            assert {positive for _, _, positive in later} == {True, False}
            # The mask is the left half: positive clicks on it, negative ones off it.
            assert all((x < 40) == positive and 0 <= y < 60 for x, y, positive in later)

    def test_an_empty_mask_is_clicked_all_the_same(self) -> None:
        from agreement import measure_agreement

        reference, same = Painter("net/a", columns=0), Painter("net/b", columns=0)
        measure_agreement([reference, same], self.PICTURES)
        assert same.row.iou == 1.0

    def test_who_is_compared_has_masks(self) -> None:
        from agreement import measure_agreement

        with pytest.raises(TypeError, match="net/b names a reference, and gives no mask"):
            measure_agreement([Painter("net/a"), Painter("net/b", masks=False)], self.PICTURES)


class TestVariants:
    def test_every_way_has_a_row(self, tmp_path: Any) -> None:
        import variants

        failures = {"mmms-rgb": "no network", "mmms-rgb-as-exported": "no graph", variants.SAM2: "no pair"}
        opened, rows = variants.open_variants("rgb", tmp_path, None, 1, failures, 3)
        assert not opened
        assert {each.key: each.why for each in rows} == {
            "rgb/eager": "no network",
            "rgb/ort-as-exported": "no graph",
            **{f"rgb/{key}": "no network" for key, *_ in variants.DEPLOYED},
        }
        assert {each.reference for each in rows if each.ours} == {"rgb/ort"}

    def test_eight_bits_that_could_not_be_exported(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import variants

        calls: list[list[str]] = []

        def run(call: list[str], **_: Any) -> Any:
            calls.append(call[3:])
            return SimpleNamespace(
                returncode=int("--precision" in call), stderr="the gate refuses it\nlayer by layer\n"
            )

        monkeypatch.setattr(variants.subprocess, "run", run)
        failures = variants.prepare_bundles("rgbd", tmp_path, fresh=None)
        why = "its export failed: the gate refuses it"
        assert failures == {"mmms-rgbd-reduced": why}
        assert [("--precision" in call, "--no-rewrite" in call) for call in calls] == [
            (True, False),
            (False, False),
            (False, True),
        ]
        assert all("--modality" in call for call in calls)
        monkeypatch.setattr(variants, "open_each", lambda pairs: [])
        _, rows = variants.open_variants("rgbd", tmp_path, None, 1, failures, 3)
        assert {each.precision for each in rows if each.why} == {"int8"}
        assert {each.why for each in rows if each.precision == "int8"} == {why}

    def test_the_peer_in_every_engine(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import peers
        import variants

        monkeypatch.setattr(variants, "open_each", lambda pairs: [])
        _, rows = variants.open_variants("rgb", tmp_path, tmp_path, 1, {}, 3)
        found = [each.key for each in rows if not each.inputs]
        assert found[: len(peers.PEER_ENGINES)] == [f"sam2-graphs/{engine.key}" for engine in peers.PEER_ENGINES]
        assert found[len(peers.PEER_ENGINES) :] == [f"sam2/{engine}-{how}" for _, engine, how in variants.PEER_BUNDLES]
        assert {each.reference for each in rows if not each.inputs} == {
            "sam2-graphs/onnxruntime-fp32",
            "sam2/onnxruntime-fp32",
        }
        assert {each.reference for each in rows} <= {each.key for each in rows} | {""}

    def test_a_bundle_in_an_engine(self, paint: Bundle) -> None:
        import variants

        opened = variants.EngineVariant(row("net/ort"), paint.path, "onnxruntime", 1)
        try:
            picture = Picture(np.full((10, 12, 3), 90, np.uint8), {}, ())
            opened.set_image(picture)
            opened.click((3.0, 4.0, True), record=False)
            assert opened.mask().shape == (10, 12)
            assert opened.mask().dtype == np.bool_
        finally:
            opened.close()
        assert opened.row.graph_bytes == sum(file.stat().st_size for file in paint.path.glob("*.onnx*"))
        assert not opened.row.click

    def test_a_precision_that_the_bundle_lacks(self, paint: Bundle) -> None:
        import variants

        asked = row("net/ort-int8", precision="int8")
        assert not variants.open_each(
            [(asked, lambda each: variants.EngineVariant(each, paint.path, "onnxruntime", 1))]
        )
        assert "int8" in asked.why


# --- the peer's graphs, small -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """An encoder and a decoder with the peer's inputs and outputs.

    The features are the picture's brightness in 256 x 256; of the answers the second has the higher score: it is the
    brightness, plus the sum of the labels, minus 1.5.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    def value(name: str, *shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def constant(name: str, content: Any) -> Any:
        return numpy_helper.from_array(np.asarray(content), name)

    folder = tmp_path_factory.mktemp("pair")
    encoder = helper.make_graph(
        [
            helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Conv", ["small", "grey"], ["image_embed"]),
            helper.make_node("Identity", ["image_embed"], ["high_res_feats_0"]),
            helper.make_node("Identity", ["image_embed"], ["high_res_feats_1"]),
        ],
        "encoder",
        [value("image", 1, 3, 1024, 1024)],
        [value(name, 1, 1, 256, 256) for name in ("high_res_feats_0", "high_res_feats_1", "image_embed")],
        [constant("grey", np.full((1, 3, 1, 1), 1 / 3, np.float32))],
    )
    decoder = helper.make_graph(
        [
            helper.make_node("Conv", ["image_embed", "one"], ["map"]),
            helper.make_node("ReduceSum", ["point_labels"], ["labels"], keepdims=0),
            helper.make_node("ReduceSum", ["point_coords"], ["places"], keepdims=0),
            helper.make_node("Mul", ["places", "has_mask_input"], ["no_places"]),
            helper.make_node("ReduceMax", ["mask_input"], ["fed"], keepdims=0),
            helper.make_node("Sum", ["map", "labels", "no_places", "fed", "shift"], ["answer"]),
            helper.make_node("Neg", ["answer"], ["other"]),
            helper.make_node("Concat", ["other", "answer", "other"], ["masks"], axis=1),
            helper.make_node("Identity", ["scores"], ["iou_predictions"]),
        ],
        "decoder",
        [
            value("image_embed", 1, 1, 256, 256),
            value("high_res_feats_0", 1, 1, 256, 256),
            value("high_res_feats_1", 1, 1, 256, 256),
            value("point_coords", "n", "k", 2),
            value("point_labels", "n", "k"),
            value("mask_input", "n", 1, 256, 256),
            value("has_mask_input", 1),
        ],
        [value("masks", 1, 3, 256, 256), value("iou_predictions", 1, 3)],
        [
            constant("one", np.ones((1, 1, 1, 1), np.float32)),
            constant("shift", np.float32(-1.5)),
            constant("scores", np.array([[0.1, 0.9, 0.2]], np.float32)),
        ],
    )
    paths = folder / "encoder.onnx", folder / "decoder.onnx"
    for graph, path in zip((encoder, decoder), paths, strict=True):
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return paths


class TestPeers:
    def peer(self, pair: Any, monkeypatch: pytest.MonkeyPatch, engine: Any, clicks: int = 2) -> Any:
        import peers

        monkeypatch.setattr(peers, "fetch", lambda cache: pair)
        return peers.Sam2Tiny(ROOT, 1, engine, clicks)

    def test_every_engine_answers_alike(self, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import peers

        # Dark on the left (about -2 after normalising), bright on the right (about 2.4).
        picture = np.zeros((50, 80, 3), np.uint8)
        picture[:, 40:] = 255
        ran = []
        capable = peers.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        for engine in peers.PEER_ENGINES:
            if str(engine.precision).upper() not in capable:
                continue
            sam = self.peer(pair, monkeypatch, engine)
            ran.append(engine.precision)
            assert sam.encode(picture) > 0
            # The sum of the labels is 1, 1, 2, 3, 4: from the last one on the left is part of the answer, too.
            shares = []
            for positive in (True, False, True, True, True):
                assert sam.decode(3.0, 4.0, positive) > 0
                shares.append(round(float(sam.mask().mean()), 2))
            assert shares == [0.5, 0.5, 0.5, 0.5, 1.0], engine
            assert sam.encode(picture) > 0
            sam.decode(3.0, 4.0, True)
            assert sam.mask().mean() == pytest.approx(0.5, abs=0.01), "the points are forgotten"
            if engine.library == "openvino":
                assert str(engine.precision) in sam.evidence
        assert ran[:2] == [Precision.FP32, Precision.FP32]

    def test_decoders_are_compiled_beforehand(self, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import peers

        sam = self.peer(pair, monkeypatch, peers.PEER_ENGINES[1], clicks=3)
        compiled: list[Any] = []
        usual = sam._graphs._compiled
        monkeypatch.setattr(sam._graphs, "_compiled", lambda *given: compiled.append(given[1]) or usual(*given))
        sam.encode(np.zeros((4, 4, 3), np.uint8))
        for _ in range(4):
            sam.decode(1.0, 1.0, True)
        assert [shapes["point_coords"] for shapes in compiled] == [[1, 4, 2]]

    def test_a_precision_that_is_not_computed(self, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import peers

        wrong = peers.PeerEngine("ONNX Runtime BF16", "onnxruntime", Precision.BF16)
        with pytest.raises(peers.PeerError, match="not in bf16"):
            self.peer(pair, monkeypatch, wrong)
        monkeypatch.setattr(peers, "core", lambda: SimpleNamespace(get_property=lambda *names: ["FP32"]))
        with pytest.raises(peers.PeerError, match="does not compute in bf16 on this CPU"):
            self.peer(pair, monkeypatch, peers.PEER_ENGINES[2])

    def test_a_hint_alone_is_not_believed(self, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import peers

        monkeypatch.setattr(peers, "matrix_precisions", lambda nodes, precision: (0, 7))
        with pytest.raises(peers.PeerError, match="0 of 14 matrix operations in fp32"):
            self.peer(pair, monkeypatch, peers.PEER_ENGINES[1])


class TestScript:
    def test_from_end_to_end(
        self, paint: Bundle, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
    ) -> None:
        import agreement
        import cpu
        import peers
        import turns
        import variants

        monkeypatch.setattr(agreement, "CLICKS", 2)
        monkeypatch.setattr(cpu, "photographs", lambda manifest: agreement.photographs(manifest)[:1])
        for module in (peers, cpu):
            monkeypatch.setattr(module, "fetch", lambda cache: pair)
        for module in (variants, cpu):
            monkeypatch.setattr(module, "INPUTS", {"rgb": paint.path.name})
        monkeypatch.setattr(variants, "SAM2", paint.path.name)
        monkeypatch.setattr(cpu, "prepare_bundles", lambda *given, **more: {})
        monkeypatch.setattr(cpu, "_measure_peaks", lambda peaks, threads: None)
        monkeypatch.setattr(cpu, "SIZE", (20, 30))
        monkeypatch.setattr(turns, "SETTLE", 0.0)
        given = ["--inputs", "rgb", "--images", "1", "--clicks", "3", "--threads", "1", "--bundles", paint.path.parent]
        monkeypatch.setattr("sys.argv", ["cpu.py", *map(str, given), "--out", str(tmp_path)])
        assert cpu.main() == 0
        content = json.loads((tmp_path / "cpu.json").read_text())
        rows = {each["key"]: each for each in content["rows"]}
        assert content["best_peer"] in rows
        for key in ("rgb/ort", "rgb/openvino-fp32", "sam2-graphs/onnxruntime-fp32", "sam2/openvino-fp32"):
            assert (len(rows[key]["image"]), len(rows[key]["click"]), rows[key]["why"]) == (1, 3, ""), key
            assert rows[key]["iou"] == pytest.approx(1.0, abs=0.01)
            assert rows[key]["image_and_10_clicks"] > rows[key]["image"][0]
        assert rows["rgb/ort-int8"]["why"]
        assert rows["rgb/ort-as-exported"]["why"]
        assert "image + 10 clicks / SAM 2 tiny's" in (tmp_path / "cpu.md").read_text()
        assert sorted(file.name for file in tmp_path.glob("*.svg")) == [
            f"cpu-{kind}.svg" for kind in ("click", "image", "wait")
        ]
        assert "SAM 2 tiny's best engine: SAM 2 tiny" in capsys.readouterr().out
