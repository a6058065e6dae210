"""Graphs in 8 bits end to end: what a bundle holds and says, what engines and sessions make of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from PIL import Image

from mmms_deploy import Bundle, Session, open_engine
from mmms_deploy.bundle import MANIFEST_NAME, BundleWriter, Precision, Rate, Role
from mmms_deploy.bundle.manifest_file import digest_of
from mmms_deploy.commands.export import main as export_command
from mmms_deploy.commands.verify import main as verify_command
from mmms_deploy.engines.openvino import compile as openvino_compile
from mmms_deploy.engines.openvino.engine import OpenVinoCpu
from mmms_deploy.engines.openvino.inspect import compiled_nodes, narrow_nodes
from mmms_deploy.engines.openvino.library import bf16_capable
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import choose
from mmms_deploy.errors import (
    Door,
    EngineUnavailableError,
    ExportError,
    GateError,
    MMMSDeployError,
    MMMSDeployWarning,
)
from mmms_deploy.export.cut import Cut, StageModel
from mmms_deploy.export.exporter import Source, export_bundle
from mmms_deploy.export.graphs import write_stages
from mmms_deploy.export.int8 import export as int8_export
from mmms_deploy.export.int8.export import INT8_STEPS
from mmms_deploy.export.int8.precision import LEAST_IOU, Int8Options
from mmms_deploy.progress import Progress
from mmms_deploy.replay.click_bundle import write_click_bundle
from mmms_deploy.replay.verification import LIMITS, verify
from tests.support.invoke import invoke
from tests.support.quantised import (
    CLICK_LAYERS,
    COSTLY,
    RADIUS,
    SIZE,
    features,
    picture,
    small_network,
    write_quantised,
)

ENGINES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to calibrate on."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(picture(1)).save(folder / "corner.png")
    return folder


@pytest.fixture(scope="module")
def steps() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def bundle(folder: Path, steps: list[Progress], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "small"
    written = write_quantised(out, Int8Options(0.98, folder), batch=2, on_progress=steps.append)
    return Bundle(written.path)


# --- what is in a bundle ----------------------------------------------------------------------------------------------


def test_the_manifest_says_how_it_was_made(bundle: Bundle) -> None:
    assert bundle.manifest.precisions == (Precision.FP32, Precision.INT8)
    made = bundle.manifest.provenance.quantisation
    assert made
    assert made.tool.startswith("NNCF 3")
    assert bundle.manifest.stage("image").graphs.keys() == {Precision.FP32, Precision.INT8}
    assert (made.pictures, made.iou, made.layers) == (("first", "second", "corner.png"), 0.98, 5)
    assert made.float_layers == {"click": (COSTLY,)}, "the one that masks need"
    work = {"dots": 96 * 4 * 192, "mix": 96 * 4 * 4, "second": 96 * 4 * 4, "answer": 96 * 4}
    assert made.share == {"image": 1.0, "click": round(1 - work["mix"] / sum(work.values()), 4)}
    assert made.others is (Precision.BF16 if bf16_capable() else Precision.FP32)


def test_a_manifest_without_it_is_as_before(tmp_path: Path, bundle: Bundle) -> None:
    old = write_quantised(tmp_path / "old", None)
    raw = msgspec.json.decode((old.path / MANIFEST_NAME).read_bytes())
    assert "quantisation" not in raw["provenance"]
    assert raw["digest"] == digest_of(raw) == Bundle(old.path).manifest.digest
    assert not Bundle(old.path).manifest.provenance.quantisation
    said = msgspec.json.decode((bundle.path / MANIFEST_NAME).read_bytes())
    assert said["provenance"]["quantisation"]["float_layers"] == {"click": [COSTLY]}


def test_graphs_keep_their_borders_and_what_is_exact(bundle: Bundle) -> None:
    """Inputs and outputs are float32, and no coordinate goes through 8 bits."""
    for stage in bundle.manifest.stages:
        graph, wide = stage.graphs[Precision.INT8], stage.graphs[Precision.FP32]
        assert (graph.inputs, graph.outputs) == (wide.inputs, wide.outputs)
        model = onnx.load(bundle.file(graph.file))
        onnx.checker.check_model(model)
        made = {name: node for node in model.graph.node for name in node.output}

        def before(name: str, made: dict[str, onnx.NodeProto] = made) -> set[str]:
            if name not in made:
                return set()
            node = made[name]
            return {node.op_type}.union(*(before(read) for read in node.input))

        compared = [node for node in model.graph.node if node.op_type == "LessOrEqual"]
        assert len(compared) == {"image": 0, "click": 1, "click_batch_2": 2}[stage.name]
        for node in compared:
            assert not before(node.output[0]) & {"QuantizeLinear", "DequantizeLinear"}


def test_the_layer_that_stays_in_float32_is_read_as_it_is(bundle: Bundle) -> None:
    """In the stage for several objects too."""
    for name, objects in (("click", 1), ("click_batch_2", 2)):
        graph = bundle.manifest.stage(name).graphs[Precision.INT8]
        nodes = onnx.load(bundle.file(graph.file)).graph.node
        convolutions = [node for node in nodes if node.op_type == "Conv"]
        assert len(convolutions) == objects * len(CLICK_LAYERS)
        assert sum(COSTLY in node.input for node in convolutions) == objects
        assert sum(node.op_type == "QuantizeLinear" for node in nodes) >= objects * (len(CLICK_LAYERS) - 1)
    assert graph.data == "click.int8.onnx.data", "the weights lie once"


def test_the_gate_has_compared_every_engine(bundle: Bundle) -> None:
    checks = bundle.manifest.gate
    assert [check.name for check in checks] == [
        f"session in int8 ({engine}) against torch, closed loop" for engine in ENGINES for _ in range(2)
    ]
    assert [check.measure.split(" 1 - IoU")[0] for check in checks] == ["mean", "largest"] * 2
    assert [check.limit for check in checks] == pytest.approx([0.02, 1 - LIMITS[Precision.INT8]] * 2)
    assert all(0 <= check.worst <= check.limit and check.samples == 8 for check in checks)


def test_steps_are_announced(bundle: Bundle, steps: list[Progress]) -> None:
    outer = [step for step in steps if step.depth == 0]
    assert len(outer) == INT8_STEPS
    assert len({step.task for step in outer}) == INT8_STEPS
    inner = [step for step in steps if step.depth and "layer" in step.task]
    assert [(step.done, step.total) for step in inner] == [(number, 5) for number in range(5)]
    assert [step.finished for step in inner] == [False] * 4 + [True]
    for name in ENGINES:
        replayed = [step for step in steps if step.task == f"int8: replaying the clicks through a session on {name}"]
        assert [(step.done, step.total) for step in replayed if step.finished][-1] == (8, 8)
        assert len(replayed) >= 8


# --- what answers with it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_a_session_in_8_bits(bundle: Bundle, name: str) -> None:
    with (
        Session(bundle, engine=name, precision="fp32", threads=1) as wide,
        Session(bundle, engine=name, precision="int8", strict=True, threads=1, batch=True) as session,
    ):
        assert session.engine.precision is Precision.INT8
        for one in (wide, session):
            one.set_image(picture(0))
        for x, y, positive in ((22, 12, True), (42, 27, True), (22, 12, False)):
            wanted, got = wide.click(x, y, positive), session.click(x, y, positive)
            np.testing.assert_array_equal(got.mask, wanted.mask)
            assert 0 < np.abs(got.network_probability - wanted.network_probability).max() < 0.05
        clicks = {"a": (22, 12, True), "b": (42, 27, True)}
        together, alone = session.click_objects(clicks), wide.click_objects(clicks)
        assert session.runs["click_batch_2"] == 1
        for label in clicks:
            np.testing.assert_array_equal(together[label].mask, alone[label].mask)


@pytest.mark.parametrize("name", ENGINES)
def test_disks_are_those_of_float32(bundle: Bundle, name: str) -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    engine = open_engine(bundle, engine=name, precision="int8", threads=1, strict=True)
    runner = engine.open()
    specs = {spec.name: spec for spec in engine.graphs["click"].inputs}
    values = {name: runner.zeros(spec) for name, spec in specs.items()}
    for x, y in ((0, 0), (95.49, 63.49), (-0.5, 31.5), (40.3, 20.7), (93, 60.0004), (7.0001, 50.4999)):
        click = runner.upload(specs["click"], np.array([[x, y, 1, 1]]))
        (maps,) = runner.download(runner.run("click", {**values, "click": click})["maps_next"])
        disk = (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2 <= RADIUS**2
        np.testing.assert_array_equal(maps[0], disk)
        assert not maps[1].any()
    runner.close()
    engine.close()


def test_openvino_says_what_it_computes_in(bundle: Bundle) -> None:
    engine = OpenVinoCpu(bundle, Precision.INT8, threads=1)
    others = "bf16" if bf16_capable() else "fp32"
    assert engine.info.evidence == f"4 of 6 matrix operations in int8, the others in {others}"
    engine.close()


def test_what_is_not_quantised_runs_in_what_masks_allow(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """BF16 where the bundle's masks kept their limits with it, and the CPU has it; float32 else."""
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", "off")
    made = bundle.manifest.provenance.quantisation
    assert made

    def saying(others: Precision) -> Bundle:
        other = Bundle(bundle.path)
        provenance = msgspec.structs.replace(
            bundle.manifest.provenance, quantisation=msgspec.structs.replace(made, others=others)
        )
        other.manifest = msgspec.structs.replace(bundle.manifest, provenance=provenance)
        return other

    exact, narrow = saying(Precision.FP32), saying(Precision.BF16)
    monkeypatch.setattr(openvino_compile, "bf16_capable", lambda: True)
    assert openvino_compile.unquantised(narrow, Precision.INT8) is Precision.BF16
    assert openvino_compile.unquantised(exact, Precision.INT8) is Precision.FP32
    assert openvino_compile.unquantised(exact, Precision.BF16) is Precision.BF16
    monkeypatch.setattr(openvino_compile, "bf16_capable", lambda: False)
    assert openvino_compile.unquantised(narrow, Precision.INT8) is Precision.FP32
    engine = OpenVinoCpu(narrow, Precision.INT8, threads=1)
    assert engine.info.evidence.endswith("the others in fp32")
    assert narrow_nodes(compiled_nodes(engine.compiled("click").model)) == 0
    engine.close()


@pytest.mark.parametrize(("wide", "done"), [(("click",), 1), (("click", "image"), 0)], ids=["click", "all"])
def test_openvino_refuses_graphs_that_are_mostly_float32(bundle: Bundle, wide: tuple[str, ...], done: int) -> None:
    """Graphs in 8 bits by name alone would be slow without a word."""
    other = Bundle(bundle.path)
    stages = [
        msgspec.structs.replace(stage, graphs={**stage.graphs, Precision.INT8: stage.graphs[Precision.FP32]})
        if stage.name in wide
        else stage
        for stage in bundle.manifest.stages
    ]
    other.manifest = msgspec.structs.replace(bundle.manifest, stages=tuple(stages))
    with pytest.raises(
        EngineUnavailableError, match=f"runs {done} of 6 matrix operations in int8, which was requested"
    ):
        OpenVinoCpu(other, Precision.INT8, threads=1)


def test_auto_takes_it_once_it_passed_here(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMS_DEPLOY_CACHE", str(tmp_path / "cache"))
    assert all(candidate.exact for candidate in choose(bundle, EngineRequest()).order), "nothing was measured yet"
    result = invoke(verify_command, bundle.path, "--all-engines", "--threads", "1")
    assert result.exit_code == 0, result.output
    for engine in ENGINES:
        assert any(engine in line and "int8" in line for line in result.stdout.splitlines()), result.stdout
    taken = choose(bundle, EngineRequest()).order
    assert {candidate.precision for candidate in taken} >= {Precision.FP32, Precision.INT8}
    assert all(candidate.exact for candidate in choose(bundle, EngineRequest(strict=True)).order)


def test_a_bundle_without_it(tmp_path: Path) -> None:
    old = write_quantised(tmp_path / "old", None)
    with pytest.raises(EngineUnavailableError, match="int8"):
        open_engine(old, device="cpu", precision="int8", strict=True)
    with pytest.warns(MMMSDeployWarning, match="int8"):
        open_engine(old, device="cpu", precision="int8").close()


def test_the_golden_replay(bundle: Bundle) -> None:
    report = verify(bundle, EngineRequest(engine="onnxruntime", precision=Precision.INT8, strict=True))
    assert (report.limit, report.telling) == (LIMITS[Precision.INT8], True)


def test_a_provider_s_features(tmp_path: Path) -> None:
    """It is calibrated on golden clicks alone: pictures say nothing of another program's features."""
    bundle = write_quantised(tmp_path / "black", Int8Options(0.98, tmp_path / "absent"), black_box=True)
    made = bundle.manifest.provenance.quantisation
    assert made
    assert (made.pictures, made.float_layers) == (("first", "second"), {"click": (COSTLY,)})
    with Session(bundle, engine="onnxruntime", precision="int8", strict=True) as session:
        session.set_features({"f1": features(0)}, picture(0).shape[:2])
        assert session.click(22, 12).mask[12, 22]


def test_the_click_stage_in_8_bits_alone(bundle: Bundle, tmp_path: Path) -> None:
    """All its weights are so small that they lie in the graph; the file for large ones is there and empty."""
    clicks = write_click_bundle(bundle, tmp_path / "clicks", precisions=["int8"])
    assert clicks.manifest.precisions == (Precision.INT8,)
    assert clicks.manifest.stage("click").graphs[Precision.INT8].data == "click.int8.onnx.data"
    assert verify(clicks, EngineRequest(precision=Precision.INT8, strict=True)).telling


# --- what is refused --------------------------------------------------------------------------------------------------


def test_masks_that_differ_leave_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the layer not left in float32, the gate would see it."""
    monkeypatch.setattr(int8_export.Search, "smallest", lambda search, from_count=0: 0)
    monkeypatch.setattr(int8_export, "_TRIES", 1)
    with pytest.raises(
        GateError, match=r"session in int8 \(openvino\) against torch.*stage click, image first"
    ) as caught:
        write_quantised(tmp_path / "out", Int8Options(0.9, folder))
    assert "--int8-iou" in caught.value.message(Door.COMMAND_LINE)
    assert not list(tmp_path.iterdir())


def test_a_graph_made_again_is_measured_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without some layers, other ranges are read: further layers are left out until masks fit."""
    passes, asked = int8_export.Search.passes, []

    def passing(search: int8_export.Search, likeness: object) -> bool:
        asked.append(likeness)
        return passes(search, likeness) and len(asked) != 4  # the graphs that were made again

    monkeypatch.setattr(int8_export.Search, "passes", passing)
    made = write_quantised(tmp_path / "out", Int8Options(0.9, folder)).manifest.provenance.quantisation
    assert made
    assert sum(map(len, made.float_layers.values())) == 2


def test_the_last_try_leaves_as_many_layers_as_may_be(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that needs a few more than were measured is not refused while there are some to leave."""
    asked: list[int] = []

    def smallest(search: int8_export.Search, from_count: int = 0) -> int:
        asked.append(from_count)
        return max(from_count, 1)

    def never(*args: object) -> int8_export.Added:
        raise GateError("a session's masks differ")

    monkeypatch.setattr(int8_export.Search, "smallest", smallest)
    monkeypatch.setattr(int8_export.Search, "passes", lambda search, likeness: True)
    monkeypatch.setattr(int8_export.Search, "most", 4)
    monkeypatch.setattr(int8_export.Search, "total", 48)
    monkeypatch.setattr(int8_export, "_written", never)
    with pytest.raises(GateError, match="a session's masks differ"):
        write_quantised(tmp_path / "out", Int8Options(0.9, folder))
    assert asked == [0, 4], "three more than 1 each time, and four at most"


def test_graphs_that_never_fit_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured layer by layer does not hold for the graphs that are made with these layers in float32."""
    monkeypatch.setattr(int8_export.Search, "smallest", lambda search, from_count=0: 1)
    monkeypatch.setattr(int8_export.Search, "passes", lambda search, likeness: False)
    monkeypatch.setattr(int8_export, "_TRIES", 1)
    with pytest.raises(GateError, match=f"with 1 of 5 layers in float32, alone, layer {COSTLY} of stage click"):
        write_quantised(tmp_path / "out", Int8Options(0.9, folder))
    assert not list(tmp_path.iterdir())


def test_stages_that_are_written_again_leave_no_weights_behind(tmp_path: Path) -> None:
    model = small_network()
    alone = StageModel(Rate.CLICK, model, ("image", "x"), ("answer", "disk_out"), ())
    together = StageModel(Rate.CLICK, model, ("image", "x"), ("answer", "disk_out"), (), batch=2)
    with BundleWriter(tmp_path / "out") as writer:
        sizes = []
        for _ in range(2):
            graphs = write_stages(writer, AllFeatures(), [alone, together], Precision.INT8)
            assert {graph.data for graph in graphs} == {"click.int8.onnx.data"}
            sizes.append(writer.path("click.int8.onnx.data").stat().st_size)
        assert sizes[0] == sizes[1] > 0


class AllFeatures:
    def role(self, name: str) -> Role:
        return Role.FEATURE


def test_pictures_that_are_missing_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="holds no pictures"):
        write_quantised(tmp_path / "out", Int8Options(0.9, tmp_path / "absent"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["empty", "broken"])
def test_pictures_are_looked_at_before_anything_is_exported(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "broken":
        (folder / "broken.png").write_bytes(b"nonsense")
    steps: list[Progress] = []
    with pytest.raises(MMMSDeployError, match=f"{kind}|holds no pictures"):
        export_bundle(
            Source(random_seed=0),
            tmp_path / "out",
            precisions=[Precision.INT8],
            int8=Int8Options(calibration=folder),
            on_progress=steps.append,
        )
    assert not steps
    assert list(tmp_path.iterdir()) == [folder]


def test_options_for_graphs_that_are_not_requested(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"int8=.* without graphs in 8 bits"):
        export_bundle(Source(random_seed=0), tmp_path / "out", int8=Int8Options())
    given = ("--random-weights", "0", "--out", tmp_path / "out")
    for options in (
        ("--int8-iou", "0.99"),
        ("--calibration", tmp_path),
        ("--int8-iou", "1", "--calibration", tmp_path),
    ):
        done = invoke(export_command, *given, *options, "--precision", "fp32,bf16")
        assert done.exit_code == 2, done.output
        assert "go with --precision fp32,int8" in done.stderr
        assert all(name in done.stderr for name in options if str(name).startswith("--"))


def test_pictures_for_a_provider_s_features(tmp_path: Path) -> None:
    """The golden clicks calibrate it: pictures would be read for nothing."""
    with pytest.raises(ExportError, match="a network that takes a provider's features") as caught:
        export_bundle(
            Source(random_seed=0),
            tmp_path / "out",
            cuts=[Cut.BLACK_BOX],
            precisions=[Precision.INT8],
            int8=Int8Options(calibration=tmp_path),
        )
    assert "leave --calibration out" in caught.value.message(Door.COMMAND_LINE)


@pytest.mark.parametrize("iou", [0.89, 1.01, float("nan"), True, "0.99", None])
def test_a_limit_out_of_range(iou: object) -> None:
    with pytest.raises(ExportError, match=r"a mean IoU of .* for quantised graphs") as caught:
        Int8Options(iou)  # type: ignore[arg-type]
    assert f"--int8-iou {LEAST_IOU:g}" in caught.value.message(Door.COMMAND_LINE)
