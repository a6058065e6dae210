"""Running evaluations: the calls of predictors, the results that are kept, workers, and continuing after a stop."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.engines.request import EngineRequest
from mmms_deploy.errors import Door, MaskError
from mmms_deploy.evaluation import (
    Annotator,
    BundleSource,
    Contestant,
    Entry,
    FunctionPredictor,
    PredictorFacts,
    Protocol,
    Settings,
    Surface,
    boundary_iou,
    evaluate,
    iou,
    summarise_run,
)
from mmms_deploy.evaluation.errors import EvaluationSettingsError, PredictorError, ResultsInUseError
from mmms_deploy.evaluation.results import SCENES_FILE, SETTINGS_FILE
from mmms_deploy.evaluation.run import evaluate_scene
from mmms_deploy.progress import Progress
from tests.support.scenes import Scenes, disks, scene

SHORT = Settings(max_clicks=6, targets=(0.7, 0.85))


def opened(radius: float = 5):
    return lambda: FunctionPredictor(disks(radius))


def without_times(results) -> list:
    """Return results in the order of the data set, without their times."""

    def plain(one):
        return msgspec.structs.replace(one, predict_seconds=(), simulate_seconds=())

    kept = [
        msgspec.structs.replace(
            result,
            image_seconds=0,
            objects=tuple(plain(one) for one in result.objects),
            against=tuple(msgspec.structs.replace(pair, result=plain(pair.result)) for pair in result.against),
        )
        for result in results
    ]
    return sorted(kept, key=lambda result: (result.dataset, result.index))


# --- one scene --------------------------------------------------------------------------------------------------------


def test_an_object_is_clicked_through_as_by_hand() -> None:
    data = scene(0)
    result = evaluate_scene(data, FunctionPredictor(disks(5)), SHORT)
    for surface, found in zip(data.surfaces, result.objects, strict=True):
        annotator, mask = Annotator(surface.mask), np.zeros_like(surface.mask)
        for k in range(6):
            annotator.click(mask)
            mask = disks(5)(data.image, annotator.clicks, mask)
            assert found.ious[k] == iou(mask, surface.mask)
            assert found.boundary_ious[k] == boundary_iou(mask, surface.mask)
        assert found.clicks == tuple((c.x, c.y, c.positive) for c in annotator.clicks)
        assert found.pixels == surface.mask.sum()
        assert len(found.predict_seconds) == len(found.simulate_seconds) == 6


def test_the_noc_protocol_stops_at_the_highest_target() -> None:
    data = scene(0)
    settings = msgspec.structs.replace(SHORT, protocol=Protocol.NOC, targets=(0.3, 0.5))
    full = evaluate_scene(data, FunctionPredictor(disks(5)), SHORT)
    for found, whole in zip(
        evaluate_scene(data, FunctionPredictor(disks(5)), settings).objects, full.objects, strict=True
    ):
        stop = next(k for k, value in enumerate(whole.ious, start=1) if value >= 0.5)
        assert found.ious == whole.ious[:stop]


def test_clicking_ends_when_no_error_is_left() -> None:
    data = scene(0)
    truths = {s.mask.tobytes(): s.mask for s in data.surfaces}

    def perfect(image, clicks, previous):
        return next(mask for mask in truths.values() if mask[clicks[0].y, clicks[0].x])

    result = evaluate_scene(data, FunctionPredictor(perfect), SHORT)
    assert [one.ious for one in result.objects] == [(1.0,), (1.0,)]


def test_a_predictor_without_reset_receives_the_image_again() -> None:
    class Plain:
        def __init__(self) -> None:
            self.inner = FunctionPredictor(disks(5))
            self.images = 0

        def set_image(self, image, **modalities) -> None:
            self.images += 1
            self.inner.set_image(image, **modalities)

        def click(self, x, y, positive):
            return self.inner.click(x, y, positive)

    plain = Plain()
    data = scene(0)
    assert without_times([evaluate_scene(data, plain, SHORT)]) == without_times(
        [evaluate_scene(data, FunctionPredictor(disks(5)), SHORT)]
    )
    assert plain.images == 2


def test_surfaces_under_void_are_left_out_by_name() -> None:
    data = scene(0)
    void = data.surfaces[0].mask.copy()
    result = evaluate_scene(replace(data, void=void), FunctionPredictor(disks(5)), SHORT)
    assert result.skipped == ("object-1",)
    assert [one.name for one in result.objects] == ["object-2"]
    hidden = Surface("hidden", np.zeros_like(void))
    nothing = evaluate_scene(
        replace(data, surfaces=(hidden,)),
        FunctionPredictor(disks(5)),
        Settings(multi_surface=((0.8, 0.7),), multi_instance=(0.85,)),
    )
    assert (nothing.objects, nothing.multi_surface, nothing.multi_instance) == ((), (), ())


def test_a_function_sees_its_clicks_and_its_previous_mask() -> None:
    seen = []

    def answer(image, clicks, previous):
        seen.append((len(clicks), int(previous.sum())))
        return disks(5)(image, clicks, previous)

    evaluate_scene(scene(0, surfaces=1), FunctionPredictor(answer), msgspec.structs.replace(SHORT, max_clicks=2))
    assert seen[0] == (1, 0)
    assert seen[1][0] == 2
    assert seen[1][1] > 0


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(MaskError, match="the predictor's mask is 3x3"):
        evaluate_scene(scene(0), FunctionPredictor(lambda *_: np.zeros((3, 3), bool)), SHORT)
    with pytest.raises(PredictorError, match="set_image"):
        FunctionPredictor(disks(5)).click(1, 1, True)


# --- several scenes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_no_result(paint: Bundle, workers: int) -> None:
    settings = Settings(max_clicks=4, multi_surface=((0.8, 0.7),), multi_instance=(0.85,), instance_clicks=2)
    source = BundleSource(paint, EngineRequest(engine="onnxruntime"), flip=True)
    contestant = Contestant(source.open, PredictorFacts(name="paint"))
    data = Scenes(count=7)
    alone = list(evaluate(data, contestant, settings, against=opened()))
    together = list(evaluate(data, contestant, settings, against=opened(), workers=workers))
    source.close()
    assert len(alone) == 7
    assert without_times(together) == without_times(alone)


def test_a_session_is_a_predictor(paint: Bundle) -> None:
    source = BundleSource(paint, EngineRequest(engine="onnxruntime"))
    direct = evaluate(Scenes(2), lambda: Session(paint, engine="onnxruntime"), SHORT)
    shared = evaluate(Scenes(2), source.open, SHORT)
    assert without_times(direct) == without_times(shared)
    source.close()


def test_predictors_are_closed() -> None:
    closed = []

    class Closing(FunctionPredictor):
        def close(self) -> None:
            closed.append(self)

    evaluate(Scenes(3), lambda: Closing(disks(5)), SHORT, workers=2)
    assert len(closed) == 2

    def failing(*_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        evaluate(Scenes(3), lambda: Closing(failing), SHORT, workers=2)
    assert len(closed) == 4


def test_limit_and_every_choose_scenes() -> None:
    data = Scenes(10)
    evaluate(data, opened(), SHORT, every=3, limit=2)
    assert data.read == [0, 3]
    for wrong in ({"limit": 0}, {"every": 0}, {"workers": 0}):
        with pytest.raises(EvaluationSettingsError):
            evaluate(data, opened(), SHORT, **wrong)
    with pytest.raises(EvaluationSettingsError, match="no scenes"):
        evaluate(Scenes(0), opened(), SHORT)
    with pytest.raises(EvaluationSettingsError, match="a name of its own"):
        evaluate([Scenes(1), Scenes(1)], opened(), SHORT)


def test_a_predictor_is_shown_the_chosen_modalities() -> None:
    seen = []

    def answer(image, clicks, previous, **modalities):
        seen.append(tuple(modalities))
        return disks(5)(image, clicks, previous)

    data = Scenes(1, modalities=("depth", "thermal"))
    evaluate(Entry(data, modalities=("thermal",)), lambda: FunctionPredictor(answer), SHORT)
    assert set(seen) == {("thermal",)}
    evaluate(data, lambda: FunctionPredictor(answer), SHORT)
    assert seen[-1] == ("depth", "thermal")


# --- keeping and going on ---------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data, counted, handed_out = Scenes(5), [], []

    def stop_after_two(step: Progress) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(data, opened(), SHORT, out=tmp_path, on_progress=stop_after_two)
    with (tmp_path / SCENES_FILE).open("ab") as stream:
        stream.write(b'{"dataset": "ellipses", "index": 2, "sce')  # cut off by a crash
    data.read.clear()
    kept = evaluate(data, opened(), SHORT, out=tmp_path, on_progress=counted.append, on_result=handed_out.append)
    assert data.read == [2, 3, 4]
    assert [(step.done, step.total) for step in counted] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert handed_out == list(kept)
    assert without_times(kept) == without_times(evaluate(Scenes(5), opened(), SHORT))
    data.read.clear()
    evaluate(data, opened(), SHORT, out=tmp_path)
    assert data.read == []


def test_a_second_evaluation_is_kept_out_while_the_first_one_runs(tmp_path: Path) -> None:
    found = []

    def second() -> None:
        try:
            evaluate(Scenes(2), opened(), SHORT, out=tmp_path)
        except ResultsInUseError as error:
            found.append(error)

    def meanwhile(step: Progress) -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    first = evaluate(Scenes(2), opened(), SHORT, out=tmp_path, on_progress=meanwhile)
    assert len(found) == 2
    assert [result.index for result in first] == [0, 1]
    assert len(list(evaluate(Scenes(2), opened(), SHORT, out=tmp_path))) == 2


def test_what_two_evaluations_wrote_counts_once(tmp_path: Path) -> None:
    before = list(evaluate(Scenes(3), opened(), SHORT, out=tmp_path))
    file = tmp_path / SCENES_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join((*lines, *reversed(lines), lines[1])))
    data = Scenes(3)
    again = evaluate(data, opened(), SHORT, out=tmp_path)
    assert data.read == []
    assert list(again) == before
    (summary,) = summarise_run(again.facts, again)
    assert (summary.scenes, summary.objects) == (3, sum(len(result.objects) for result in before))
    with file.open("ab") as stream:
        stream.write(b'{"dataset": "ellipses", "index": 9')  # another process is writing
    assert list(again) == before


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": "2"}, {"workers": True}, {"limit": 0}, {"limit": 1.5}, {"every": float("nan")}],
)
def test_numbers_without_sense_are_refused(wrong) -> None:
    with pytest.raises(EvaluationSettingsError, match=next(iter(wrong)).rstrip("s")):
        evaluate(Scenes(2), opened(), SHORT, **wrong)


@pytest.mark.parametrize("out", [0, b"out", "", "a\0b"])
def test_folders_without_sense_are_named(out: object) -> None:
    with pytest.raises(EvaluationSettingsError, match="out: "):
        evaluate(Scenes(1), opened(), SHORT, out=out)  # type: ignore[arg-type]


def test_paths_that_are_no_utf8_are_stored(tmp_path: Path) -> None:
    facts = PredictorFacts(name="\udcff", source="bundles/\udcff", options={"device": "auto"})
    done = evaluate(Scenes(1), Contestant(opened(), facts), SHORT, out=tmp_path)
    stored = json.loads((tmp_path / SETTINGS_FILE).read_bytes())
    assert stored["predictor"]["source"] == "bundles/\\udcff"
    assert done.facts.predictor.options == {"device": "auto"}
    assert len(list(evaluate(Scenes(1), Contestant(opened(), facts), SHORT, out=tmp_path))) == 1


def test_more_scenes_can_be_requested_later(tmp_path: Path) -> None:
    data = Scenes(5)
    assert len(list(evaluate(data, opened(), SHORT, out=tmp_path, limit=2))) == 2
    data.read.clear()
    assert len(list(evaluate(data, opened(), SHORT, out=tmp_path, limit=4))) == 4
    assert data.read == [2, 3]
    assert len(list(evaluate(data, opened(), SHORT, out=tmp_path, limit=1))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": msgspec.structs.replace(SHORT, max_clicks=7)}, "settings max_clicks was 6, is 7"),
        ({"entries": Scenes(6)}, "datasets ellipses scenes was 4, is 6"),
        ({"entries": Scenes(4, name="others")}, "datasets others name was not set, is others"),
        ({"identity": "b" * 64}, "predictor identity was aaaaaaaaaaaa..., is bbbbbbbbbbbb..."),
        ({"engine": "another"}, "predictor engine was engine, is another"),
        ({"engine": f"{'one engine ' * 5}bf16"}, f"predictor engine was engine, is {'one engine ' * 5}bf16"),
        ({"against": opened()}, "against"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_evaluation_is_not_continued(tmp_path: Path, change, message) -> None:
    def run(entries=None, settings=SHORT, identity="a" * 64, engine="engine", against=None, name="x"):
        facts = PredictorFacts(name=name, source=name, identity=identity, engine=engine)
        contestant = Contestant(opened(), facts)
        return evaluate(entries or Scenes(4), contestant, settings, against=against, out=tmp_path, limit=1)

    run()
    before = (tmp_path / SETTINGS_FILE).read_bytes(), (tmp_path / SCENES_FILE).read_bytes()
    with pytest.raises(EvaluationSettingsError, match="another evaluation") as caught:
        run(**change)
    assert message in str(caught.value)
    assert "pass another folder as out" in str(caught.value)
    assert "--out" in caught.value.message(Door.COMMAND_LINE)
    assert ((tmp_path / SETTINGS_FILE).read_bytes(), (tmp_path / SCENES_FILE).read_bytes()) == before
    run(name="the same bundle, moved")


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(EvaluationSettingsError, match="no results of mmms-eval"):
        evaluate(Scenes(1), opened(), SHORT, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', "\x00"])
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / SETTINGS_FILE).write_text(content)
    with pytest.raises(EvaluationSettingsError, match=SETTINGS_FILE):
        evaluate(Scenes(1), opened(), SHORT, out=tmp_path)


def test_a_spoiled_line_is_named(tmp_path: Path) -> None:
    evaluate(Scenes(2), opened(), SHORT, out=tmp_path)
    file = tmp_path / SCENES_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b'{"scene": 1}\n')
    with pytest.raises(EvaluationSettingsError, match=r"line 2 of .*scenes.jsonl"):
        evaluate(Scenes(2), opened(), SHORT, out=tmp_path)


def test_results_are_read_in_the_order_of_the_scenes_however_they_were_finished(tmp_path: Path) -> None:
    sets = [Scenes(3, "second"), Scenes(3, "first")]
    evaluation = evaluate(sets, opened(), SHORT, out=tmp_path)
    before = list(evaluation)
    assert [(r.dataset, r.index) for r in before] == [(n, k) for n in ("second", "first") for k in range(3)]
    file = tmp_path / SCENES_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[k] for k in (4, 0, 5, 2, 1, 3)))
    assert list(evaluation) == before
    assert [(r.dataset, r.index) for r in evaluate(sets, opened(), SHORT, workers=3)] == [
        (r.dataset, r.index) for r in before
    ]


def test_a_summary_reads_its_results_once() -> None:
    evaluation = evaluate(Scenes(3), opened(), SHORT, against=opened(7))
    assert summarise_run(evaluation.facts, iter(list(evaluation))) == summarise_run(evaluation.facts, evaluation)


def test_results_are_readable_by_others(tmp_path: Path) -> None:
    evaluate(Scenes(1), opened(), SHORT, out=tmp_path)
    (line,) = (tmp_path / SCENES_FILE).read_text().splitlines()
    content = json.loads(line)
    assert content["scene"] == "scene/000"
    assert len(content["objects"][0]["ious"]) == 6


# --- settings, summary, names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": (80,)},
        {"targets": ()},
        {"targets": (0.9, 0.8)},
        {"max_clicks": 0},
        {"multi_surface": ((0.7, 0.8),)},
        {"multi_instance": (0.0,)},
        {"instance_clicks": 0},
        {"targets": 0.9},
        {"targets": ("90",)},
        {"targets": (float("nan"),)},
        {"targets": (True,)},
        {"max_clicks": 2.5},
        {"max_clicks": "20"},
        {"max_clicks": True},
        {"multi_surface": (0.8, 0.7)},
        {"multi_surface": ((0.8, 0.7, 0.6),)},
        {"multi_instance": (float("inf"),)},
        {"instance_clicks": None},
    ],
)
def test_settings_without_sense_are_refused(wrong) -> None:
    with pytest.raises(EvaluationSettingsError):
        Settings(**wrong)


def test_the_summary_is_that_of_its_objects() -> None:
    evaluation = evaluate([Scenes(3), Scenes(2, "few", surfaces=1)], opened(), SHORT)
    first, second = summarise_run(evaluation.facts, evaluation)
    curves = [one.ious for result in evaluation for one in result.objects if result.dataset == "ellipses"]
    assert (first.name, first.scenes, first.objects) == ("ellipses", 3, 6)
    assert (second.name, second.scenes, second.objects) == ("few", 2, 2)
    assert first.curve is not None
    assert first.curve.iou[2] == pytest.approx(np.mean([curve[2] for curve in curves]))
    assert first.time.clicks == 36
    assert first.time.click_with_simulation > first.time.click > 0
    target = first.target(0.85)
    assert sum(target.clicks) + target.failed == 6
    assert target.failure_rate == target.failed / 6
    noc = evaluate(Scenes(2), opened(), msgspec.structs.replace(SHORT, protocol=Protocol.NOC))
    assert summarise_run(noc.facts, noc)[0].curve is None, "curves that end at the target are no curves"


def test_names_are_loaded_when_they_are_used() -> None:
    import mmms_deploy.evaluation as room

    for name in room.__all__:
        assert getattr(room, name) is not None
    assert set(room._MODULES) == set(room.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        room.nothing  # noqa: B018
    code = "import sys, mmms_deploy.evaluation; print(sorted({'numpy', 'cv2', 'msgspec'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_evaluation_knows_nothing_of_torch_and_of_the_export() -> None:
    code = (
        "import sys, pkgutil, importlib, mmms_deploy.evaluation as room\n"
        "for module in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module(f'{room.__name__}.{module.name}')\n"
        "import mmms_deploy.commands.eval\n"
        "heavy = {'torch', 'timm', 'onnx', 'cv2', 'pyarrow', 'mmms_deploy.export', 'mmms_deploy.models'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
