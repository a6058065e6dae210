"""``mmms-bench --device cuda`` on the CUDA stand-in, whose clock is scripted."""

from __future__ import annotations

import json
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from mmms_deploy.bench import measure, objects, run
from mmms_deploy.bench.compare import compare
from mmms_deploy.bench.eager import EagerMMMS, Form, forms
from mmms_deploy.bench.errors import IncomparableError, NotMeasuredError
from mmms_deploy.bench.measure import (
    compact_metrics,
    cuda_graph_metrics,
    eager_metrics,
    layout_metrics,
    session_metrics,
)
from mmms_deploy.bench.objects import OBJECTS, object_metrics
from mmms_deploy.bench.page import render_page
from mmms_deploy.bench.papers import VRAM
from mmms_deploy.bench.report import Report, encode, read_report
from mmms_deploy.bench.run import Settings, run_bench
from mmms_deploy.bench.state_copies import state_copy_metrics
from mmms_deploy.bench.timed_session import TimedSession
from mmms_deploy.bench.workload import make_pictures
from mmms_deploy.bundle import Bundle, Precision
from mmms_deploy.commands.bench import main
from mmms_deploy.engines.cuda.engine import CudaEngine
from mmms_deploy.engines.cuda.images.preparation import DEVICE_BYTES
from mmms_deploy.engines.cuda.options import CudaOptions
from mmms_deploy.engines.machine import GpuFacts
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.engines.select import open_engine
from mmms_deploy.errors import CudaError, EngineUnavailableError, MMMSDeployWarning
from mmms_deploy.progress import Progress
from mmms_deploy.session import Session
from tests.standins.cuda import Error, Kind
from tests.support.batched import write_batched
from tests.support.bench_reports import MACHINE, report
from tests.support.clocked_gpu import LIBRARIES, ClockedCuda, install
from tests.support.tiny import described

SMALL = Settings(EngineRequest(device="cuda"), clicks=4, images=2, image_size=(40, 60), matrix=32)
PLANE = 4 * 64 * 96
MIB = 2**20
FACTS = GpuFacts(name="Stand-in GPU", capability="9.0", memory_gib=1024.0, driver="580.1", cuda="13.0")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ClockedCuda:
    return install(monkeypatch)


@pytest.fixture(scope="module", params=[False, True], ids=["own-stream", "shared-stream"])
def measured(request: pytest.FixtureRequest, paint: Bundle):
    with pytest.MonkeyPatch.context() as patch:
        standin = install(patch, shared=request.param)
        seen: list[Progress] = []
        done = run_bench(paint.path, SMALL, seen.append)
    return done, standin, request.param, seen


def samples(of: Report, key: str) -> tuple[float, ...]:
    metric = of.metric(key)
    assert metric is not None, key
    return metric.samples


def test_stages_are_timed_on_the_gpu(measured) -> None:
    result, _, _, _ = measured
    assert samples(result, "image.stage.image") == (20.0, 20.0)
    assert samples(result, "click.engine") == (2.0,) * 8
    assert "GPU's own time" in result.metric("click.engine").title
    parts = [samples(result, f"click.{name}") for name in ("engine", "transfer", "mask", "rest")]
    assert np.allclose(np.sum(parts, axis=0), samples(result, "click.total"))
    assert np.allclose(np.sum(parts[1:], axis=0), samples(result, "click.host"))


def test_moved_bytes(measured) -> None:
    result, _, _, _ = measured
    assert samples(result, "moved.click_up") == (16.0,) * 8
    assert samples(result, "moved.click_down") == (PLANE + 40 * 8,) * 8, "the answer, and two words a row of the mask"
    assert samples(result, "moved.image_up") == (3 * 40 * 60,) * 2, "its bytes"
    assert {metric.unit for metric in result.group("moved")} == {"B"}


def test_memory_of_every_part(measured) -> None:
    result, _, shared, _ = measured
    value = result.value
    assert value("vram.before") == 100
    assert value("vram.weights") == 2 * 1000 / MIB
    assert value("vram.features") > 0
    assert value("vram.state") > 0
    assert value("vram.history") > 0
    assert value("vram.inputs") == (3 * PLANE + DEVICE_BYTES) / MIB
    if shared:
        assert "keeps its scratch memory itself" in result.metric("vram.activations").why
    else:
        assert value("vram.activations") == 4096 / MIB
    assert value("vram.masks") > 0
    parts = ("weights", "activations", "inputs", "features", "state", "history", "masks", "rest")
    assert sum(value(f"vram.{part}") or 0 for part in parts) == pytest.approx(value("vram.taken"))
    # The stand-in's weights are on no account of CUDA.
    assert value("vram.rest") == pytest.approx((LIBRARIES - 2000) / MIB)
    assert value("vram.session") == pytest.approx(value("vram.taken") - LIBRARIES / MIB)


def test_with_and_without_a_cuda_graph(measured) -> None:
    result, _, shared, _ = measured
    if shared:
        assert "not one CUDA graph on this engine" in result.metric("graph.click_ratio").why
        assert "not one CUDA graph on this engine" in result.metric("graph.device_ratio").why
        return
    assert samples(result, "graph.device") == (2.0,) * 4
    assert samples(result, "graph.device_off") == (5.0,) * 4
    assert samples(result, "graph.device_ratio") == (0.4,) * 4
    expected = np.divide(samples(result, "graph.click"), samples(result, "graph.click_off"))
    assert np.allclose(samples(result, "graph.click_ratio"), expected)


def test_the_machine_and_what_is_not_measured(measured) -> None:
    result, _, _, seen = measured
    gpu = result.machine.gpu
    assert (gpu.name, gpu.capability, gpu.memory_gib, gpu.cuda) == ("Stand-in GPU", "9.0", 1024.0, "13.0")
    reasons = {metric.key: metric.why for metric in result.metrics if metric.why}
    for key in ("eager.click_ratio", "eager.image_ratio", "eager.compiled.click_ratio", "eager.compiled.image_ratio"):
        assert "PyTorch" in reasons[key] or "describe" in reasons[key]
    assert "only CPUs are measured" in reasons["work.peak.fp32"]
    assert len({metric.key for metric in result.metrics}) == len(result.metrics)
    assert all(0 <= step.done <= step.total for step in seen)


def test_nothing_stays_on_the_gpu(measured) -> None:
    _, standin, _, _ = measured
    assert not standin.leaked
    assert not standin.events
    assert standin.reserved == 100 << 20


def test_shown_everywhere_and_read_back(tmp_path: Path, paint: Bundle, gpu: ClockedCuda) -> None:
    new, page = tmp_path / "new.json", tmp_path / "new.html"
    options = ["--device", "cuda", "--clicks", "2", "--images", "1", "--image-size", "20x30", "--sweep", "threads"]
    files = ["--json", str(new), "--html", str(page)]
    result = CliRunner(env={"COLUMNS": "160"}).invoke(main, [str(paint.path), *options, *files])
    assert result.exit_code == 0, result.output
    loaded = read_report(new)
    assert encode(loaded) == new.read_bytes()
    assert json.loads(new.read_bytes())["machine"]["gpu"]["capability"] == "9.0"
    text = " ".join(ElementTree.fromstring(page.read_text().partition("\n")[2]).itertext())
    for shown in (" ".join(result.stdout.split()), " ".join(text.split())):
        for expected in (
            "Stand-in GPU, compute capability 9.0, 1024.0 GiB",
            "click stage, GPU's own time",
            "GPU, one CUDA graph / one by one",
            "a click, to the GPU",
            "activations",
            "in no account: libraries, contexts",
            "(table VI)",
            "RGB + depth + lidar + event",
            "not measured: Stand-in computes on no CPU threads here",
            "V100",
        ):
            assert expected in shown, expected


def test_the_bytes_are_those_that_were_moved(paint: Bundle, gpu: ClockedCuda) -> None:
    """The account against what the stand-in really copied, undo included."""
    engine = open_engine(paint, device="cuda")
    (picture,) = make_pictures(paint.manifest, 1, 5, (40, 60))
    with TimedSession(engine, on_gpu=True) as session:
        gpu.reset()
        up = session.set_image(picture).up
        down = 0
        for point in picture.clicks:
            sample = session.click(point)
            up, down = up + sample.up, down + sample.down
        assert (up, down) == (gpu.copied[Kind.cudaMemcpyHostToDevice], gpu.copied[Kind.cudaMemcpyDeviceToHost])
    engine.close()
    assert not gpu.events


def test_a_session_that_is_not_timed_takes_no_times(paint: Bundle, gpu: ClockedCuda) -> None:
    engine = open_engine(paint, device="cuda")
    (picture,) = make_pictures(paint.manifest, 1, 1, (40, 60))
    for make in (lambda: Session(paint, engine=engine), lambda: TimedSession(engine)):
        gpu.reset()
        with make() as one:
            one.set_image(picture) if isinstance(one, TimedSession) else one.set_image(picture.rgb)
        assert "cudaEventElapsedTime" not in gpu.count()
    engine.close()


def test_a_stage_that_fails_while_it_is_timed(paint: Bundle, gpu: ClockedCuda) -> None:
    engine = open_engine(paint, device="cuda")
    (picture,) = make_pictures(paint.manifest, 1, 2, (40, 60))
    with TimedSession(engine, on_gpu=True) as session:
        session.set_image(picture)
        gpu.fail_always["cudaGraphLaunch"] = Error.cudaErrorInvalidValue
        with pytest.raises(CudaError):
            session.click(picture.clicks[0])
        gpu.fail_always.clear()
        assert session.click(picture.clicks[1]).engine == 2.0
    engine.close()
    assert not gpu.events
    assert not gpu.leaked


def test_a_click_that_is_no_cuda_graph_has_no_ratio(paint: Bundle, gpu: ClockedCuda) -> None:
    gpu.fail_always["cudaGraphInstantiate"] = Error.cudaErrorUnknown
    with pytest.warns(MMMSDeployWarning, match="not as one CUDA graph"):
        result = run_bench(paint.path, SMALL)
    assert "a warning said why" in result.metric("graph.click_ratio").why
    assert samples(result, "click.engine") == (2.0,) * 8


def test_the_copies_of_the_state(measured, paint: Bundle, gpu: ClockedCuda) -> None:
    """Two maps and the previous mask; a network that takes all clicks as a list has no state."""
    bundle = Bundle(paint.path)
    result, _, _, _ = measured
    assert samples(result, "graph.state_copies") == (0.0,) * 20, "copies take no time on the stand-in's clock"
    gpu.clock = lambda: gpu.copied[Kind.cudaMemcpyDeviceToDevice] / 1000
    with closing(open_engine(bundle, device="cuda")) as engine:
        assert isinstance(engine, CudaEngine)
        held = gpu.device_bytes()
        (metric,) = state_copy_metrics(engine)
        assert np.allclose(metric.samples, (3 * PLANE / 1000,) * 20)
        assert "(2 copies, 0.07 MB)" in metric.title
        assert gpu.device_bytes() == held
        gpu.fail_always["cudaGraphInstantiate"] = Error.cudaErrorUnknown
        (metric,) = state_copy_metrics(engine)
        assert "cudaGraphInstantiate" in metric.why
        assert gpu.device_bytes() == held
        assert not gpu.events
        bundle.manifest = msgspec.structs.replace(bundle.manifest, state=())
        assert state_copy_metrics(engine) == []
    assert not gpu.leaked


def test_both_layouts_of_onnx_runtime_in_turns(paint: Bundle, gpu: ClockedCuda) -> None:
    """Whichever the engine has, the ratio is the same way round."""
    (picture,) = make_pictures(paint.manifest, 1, 2, (40, 60))
    with closing(open_engine(paint, device="cuda")) as engine:
        assert isinstance(engine, CudaEngine)
        assert layout_metrics(engine, picture) == []
    for prefer in (False, True):
        options = CudaOptions(prefer_nhwc=prefer)
        with closing(open_engine(paint, device="cuda", cuda_options=options)) as engine:
            assert isinstance(engine, CudaEngine)
            engine._info = replace(engine.info, name="onnxruntime-cuda")
            seen: list[bool] = []
            usual = measure._in_turns

            def turns(sessions, *given, seen=seen, usual=usual):
                seen += [session._session._engine._engine.options.prefer_nhwc for session in sessions]
                return usual(sessions, *given)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(measure, "_in_turns", turns)
                found = {metric.key: metric for metric in layout_metrics(engine, picture)}
            assert seen == [True, False]
        assert len(found["layout.click_ratio"].samples) == 2
        assert found["layout.device_ratio"].samples == (1.0, 1.0)
    assert not gpu.leaked


def test_random_weights_are_measured_with_a_disc_too(measured, paint: Bundle, gpu: ClockedCuda) -> None:
    result, _, _, _ = measured
    assert not paint.manifest.trained
    assert len(samples(result, "click.compact.total")) == len(samples(result, "click.compact.mask")) == 4
    (picture,) = make_pictures(paint.manifest, 1, 1, (40, 60))
    with closing(open_engine(paint, device="cuda")) as engine, TimedSession(engine, compact=True) as session:
        session.set_image(picture)
        session.click(picture.clicks[0])
        number = session.result.network_probability
    height, width = paint.manifest.size
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 4
    np.testing.assert_array_equal(number > 0.5, inside)


def test_trained_weights_and_cpus_need_no_disc(paint: Bundle, gpu: ClockedCuda) -> None:
    (picture,) = make_pictures(paint.manifest, 1, 1, (40, 60))
    trained = Bundle(paint.path)
    trained.manifest = msgspec.structs.replace(
        trained.manifest, provenance=msgspec.structs.replace(trained.manifest.provenance, random_seed=None)
    )
    assert trained.manifest.trained
    with closing(open_engine(trained, device="cuda")) as engine:
        assert compact_metrics(engine, picture) == []


def test_several_objects_at_once_beside_pytorch(paint: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(objects, "_ROUNDS", 2)
    monkeypatch.setattr(objects, "SETTLE", 0.0)
    several = write_batched(paint, tmp_path / "several", (4,))
    (picture,) = make_pictures(several.manifest, 1, 1, (40, 60))
    settings = replace(SMALL, request=EngineRequest(device="cpu"), clicks=2, images=1)
    for described_network in (False, True):
        if described_network:
            monkeypatch.setattr(several, "manifest", described(several))
        with closing(open_engine(several, device="cpu", engine="onnxruntime", threads=1)) as engine:
            _, metrics = run._eager(several, engine, [picture, picture], settings, lambda step: None)
        found = {metric.key: metric for metric in metrics if metric.group == "objects"}
        assert list(found) == [f"objects.{n}{kind}" for n in OBJECTS for kind in ("", "_torch", "_ratio")]
        for count in OBJECTS:
            ours, ratio = found[f"objects.{count}"], found[f"objects.{count}_ratio"]
            assert len(ours.samples) == 2
            if described_network:
                theirs = np.array(found[f"objects.{count}_torch"].samples)
                assert np.allclose(ratio.samples, theirs / np.array(ours.samples))
            else:
                assert "describe" in ratio.why
    with closing(open_engine(paint, device="cpu", engine="onnxruntime", threads=1)) as engine:
        assert object_metrics(engine, picture, None) == [], "there is no stage for several objects"


def test_no_room_for_the_other_engine(paint: Bundle, gpu: ClockedCuda) -> None:
    engine = open_engine(paint, device="cuda")
    (picture,) = make_pictures(paint.manifest, 1, 2, (40, 60))
    engine._options = CudaOptions(memory_limit=engine.memory().held + 1)
    reasons = {metric.why for metric in cuda_graph_metrics(engine, picture)}
    assert len(reasons) == 1
    assert "this engine holds" in reasons.pop()
    engine.close()
    assert not gpu.leaked


def test_no_room_for_several_sessions(paint: Bundle, gpu: ClockedCuda) -> None:
    """Only the numbers of sessions that fit are measured."""
    engine = open_engine(paint, device="cuda")
    pictures = make_pictures(paint.manifest, 1, 2, (40, 60))
    engine._options = CudaOptions(resident_images=3)
    one, two, four = session_metrics(engine, pictures, 2)
    assert len(one.samples) == len(two.samples) > 0
    assert "3 sessions are open on this engine" in four.why
    engine.close()
    assert not gpu.leaked


def test_without_a_gpu_it_is_the_error_of_a_session(paint: Bundle, gpu: ClockedCuda) -> None:
    gpu.unusable = Error.cudaErrorNoDevice
    with pytest.raises(EngineUnavailableError) as of_session:
        Session(paint, device="cuda")
    with pytest.raises(EngineUnavailableError) as of_bench:
        run_bench(paint.path, SMALL)
    assert str(of_bench.value) == str(of_session.value)
    result = CliRunner().invoke(main, [str(paint.path), "--device", "cuda"])
    assert result.exit_code == 1
    assert of_session.value.given in " ".join(result.stderr.split())


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def test_forms_of_pytorch_beside_an_engine(paint: Bundle, gpu: ClockedCuda) -> None:
    with Session(paint, device="cuda") as session:
        info = session.engine
    assert [form.key for form in forms(info)] == [
        "eager",
        "eager.eager_fp16",
        "eager.eager_fp16_weights",
        "eager.compiled",
        "eager.compiled_graphs",
    ]
    half = replace(info, precision=Precision.FP16)
    assert [str(form) for form in forms(half)] == [
        "eager",
        "eager fp16",
        "eager fp16 weights",
        "compiled fp16 weights",
        "compiled graphs fp16 weights",
    ]
    assert len(forms(half, compiled=False)) == 3
    assert len(forms(replace(info, precision=Precision.BF16))) == 7
    assert forms(replace(info, device="cpu")) == [Form()]


def test_pytorch_without_a_gpu(paint: Bundle) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this one has one")
    with pytest.raises(NotMeasuredError, match="cannot use the GPU"):
        EagerMMMS(described(paint), 1, "cuda")


def overwriting(form: EagerMMMS) -> list[int]:
    """Let every run of a part spoil the outputs of all runs before, as CUDA graphs do; return how often each ran."""
    runs, given = [0, 0], []

    def spoiling(number: int, part):
        def run(*inputs):
            runs[number] += 1
            while given:
                given.pop().fill_(float("nan"))
            outputs = part(*inputs)
            given.extend(one for one in outputs if one.is_floating_point())
            return outputs

        return run

    form._image_part, form._answer_part = spoiling(0, form._image_part), spoiling(1, form._answer_part)
    return runs


def test_other_forms_answer_as_the_eager_one(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from tests.support.bfloat16 import without_onednn

    compiled: list[str | None] = []

    def compile_standin(function, mode=None):
        compiled.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", compile_standin)
    manifest = described(paint)
    (picture,) = make_pictures(manifest, 1, 3, (50, 70))
    plain = EagerMMMS(manifest, 1)
    half = plain.variant(Form(Precision.FP16, weights=True))
    others = [plain.variant(Form(compiled=True)), plain.variant(Form(Precision.BF16)), half]
    graphs = plain.variant(Form(compiled=True, graphs=True))
    graphed = overwriting(graphs)
    for one in (plain, *others, graphs):
        with without_onednn() if one.form.precision is Precision.BF16 else nullcontext():
            one.set_image(picture)
            for point in picture.clicks:
                one.click(*point)
    assert compiled == [None] * 3 + ["reduce-overhead"] * 3
    assert graphed == [1, 3]
    np.testing.assert_array_equal(graphs.probability, plain.probability)
    np.testing.assert_array_equal(others[0].probability, plain.probability)
    assert 0 < np.abs(others[1].probability - plain.probability).max() < 0.05
    assert 0 < np.abs(half.probability - plain.probability).max() < 0.05
    plain.close()


def test_a_compiled_form_is_measured_once_its_cuda_graphs_are_recorded(paint: Bundle) -> None:
    """PyTorch compiles in the first call and records in the second; both take many times as long as the later ones."""
    picture = make_pictures(paint.manifest, 1, 4, (40, 60))[0]

    class Counted:
        """Counts its calls."""

        version = "2"

        def __init__(self, form: Form) -> None:
            self.form, self.images, self.clicks = form, 0, 0

        def set_image(self, picture: object) -> None:
            self.images += 1

        def click(self, *point: object) -> None:
            self.clicks += 1

    found = {}
    for form in (Form(), Form(Precision.FP16), Form(compiled=True), Form(compiled=True, graphs=True)):
        torch, steps = Counted(form), []
        with closing(open_engine(paint, device="cpu", engine="onnxruntime", threads=1)) as engine:
            metrics = eager_metrics(torch, engine, [picture], 4, steps.append)  # type: ignore[arg-type]
        clicks, images = (len(metric.samples) for metric in metrics if metric.key.endswith("_ratio"))
        found[str(form)] = torch.images - images, torch.clicks - clicks
        assert (steps[-1].done, steps[-1].total) == (torch.images + torch.clicks,) * 2
    assert found == {"eager": (1, 1), "eager fp16": (1, 1), "compiled": (3, 3), "compiled graphs": (3, 3)}


def test_a_form_that_pytorch_cannot_do_says_why(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def refuse(*given: object) -> None:
        raise RuntimeError("Triton is missing\nand more")

    monkeypatch.setattr(torch, "compile", lambda function, mode=None: refuse)
    monkeypatch.setattr(run, "forms", lambda info, compiled=True: [Form(), Form(compiled=True)][: 1 + compiled])
    settings = replace(SMALL, request=EngineRequest(device="cpu"), clicks=2, images=1)
    pictures = make_pictures(paint.manifest, 2, 2, (40, 60))
    monkeypatch.setattr(paint, "manifest", described(paint))
    with closing(open_engine(paint, device="cpu", engine="onnxruntime", threads=1)) as engine:
        usable, metrics = run._eager(paint, engine, pictures, settings, lambda step: None)
    by_key = {metric.key: metric for metric in metrics}
    assert usable
    assert len(by_key["eager.click_ratio"].samples) == 2
    assert by_key["eager.compiled.click_ratio"].why == "PyTorch failed: RuntimeError: Triton is missing"


def test_a_gpu_that_pytorch_cannot_use_loses_nothing_else(paint: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch fails like this when it has no kernels for the GPU."""
    torch = pytest.importorskip("torch")

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    manifest = described(paint)
    monkeypatch.setattr(paint, "manifest", manifest)
    pictures = make_pictures(manifest, 2, 2, (40, 60))
    settings = replace(SMALL, request=EngineRequest(device="cpu"), clicks=2, images=1)
    for target, name, why in (
        (torch, "inference_mode", "PyTorch failed: RuntimeError: no kernel image is available"),
        (torch.nn.Module, "to", f"PyTorch {torch.__version__} cannot use cpu: no kernel image is available"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, refuse)
            with closing(open_engine(paint, device="cpu", engine="onnxruntime", threads=1)) as engine:
                _, metrics = run._eager(paint, engine, pictures, settings, lambda step: None)
        assert {metric.why for metric in metrics} == {why}


# --- comparing --------------------------------------------------------------------------------------------------------


def on(**changes: object) -> Report:
    return report(machine=msgspec.structs.replace(MACHINE, gpu=msgspec.structs.replace(FACTS, **changes)))


def test_other_gpus_are_not_compared() -> None:
    assert compare(on(), on()).differences == ()
    for changes in ({"name": "Other GPU"}, {"capability": "8.0"}, {"memory_gib": 40.0}):
        with pytest.raises(IncomparableError, match="GPU"):
            compare(on(**changes), on()).raise_for_differences()
    with pytest.raises(IncomparableError, match="GPU: none then, Stand-in GPU"):
        compare(on(), report()).raise_for_differences()
    newer = compare(on(driver="590.2"), on())
    assert newer.differences == ()
    assert "GPU driver: 580.1 for CUDA 13.0 then, 590.2 for CUDA 13.0 now" in newer.changes


def test_reports_of_a_cpu_are_as_they_were() -> None:
    text = encode(report()).decode()
    assert '"gpu"' not in text
    page = render_page(report())
    for absent in ("table VI", "GPU's own time", "compute capability"):
        assert absent not in page


def test_the_papers_memory() -> None:
    assert [(figure.inputs, figure.mebibytes) for figure in VRAM][1] == ("RGB + depth", 1582)
    assert [figure.mebibytes for figure in VRAM] == [1474, 1582, 1686, 1772]


def test_only_the_first_gpu_is_measured(paint: Bundle, gpu: ClockedCuda) -> None:
    gpu.devices = 2
    with pytest.raises(EngineUnavailableError, match="'cuda:1'") as caught:
        run_bench(paint.path, replace(SMALL, request=EngineRequest(device="cuda:1")))
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value.fix)
