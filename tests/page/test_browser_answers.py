"""The browser answers the same calls as a session does: masks, objects, histories, errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mmms_deploy import Bundle, Session
from mmms_deploy.annotations import mask_of_rle
from mmms_deploy.bundle.contract import Coordinates, ResizeRule
from mmms_deploy.page.features import encode_features
from mmms_deploy.page.model import browser_model
from mmms_deploy.page.runtime import ONNXRUNTIME_WEB
from tests.support.browser_clicks import (
    FILES,
    OPEN,
    BrowserClicks,
    BrowserError,
    browser_clicks,
    described,
    same_calls,
    stripped,
)
from tests.support.chromium import WEBGPU, chromium_path
from tests.support.exporting import skip_without_export
from tests.support.pair import write_pair
from tests.support.paths import ROOT
from tests.support.toy import write_toy

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZE = (90, 130)
RANDOM = np.random.default_rng(5)
DARK = RANDOM.integers(20, 60, (*SIZE, 3), dtype=np.uint8)
BRIGHT = np.full((60, 130, 3), 235, dtype=np.uint8)
PHOTO = ROOT / "docs" / "images" / "photo.jpg"
NAMES = ("1", "cat", "10", "2")
FEW = 8
"""Pixels at the threshold that may differ: features have half precision in the browser."""
STEPS = 300

Made = Callable[[Path], Bundle]


def _maps(folder: Path) -> Bundle:
    return write_toy(folder / "maps")


def _through_image(folder: Path) -> Bundle:
    """The previous mask is what comes of the answer at the image's size, by another rule."""
    return write_toy(
        folder / "through",
        coordinates=Coordinates.ALIGN_CORNERS,
        mask_resize=ResizeRule(align_corners=True),
        previous_resize=ResizeRule(align_corners=True),
    )


def _labels(folder: Path) -> Bundle:
    return write_toy(folder / "labels", labels=True, coordinates=Coordinates.SCALE)


def _points(folder: Path) -> Bundle:
    """A list of points, logits of another size, three answers."""
    skip_without_export()
    from mmms_deploy.export.pair.description import read_pair
    from mmms_deploy.export.pair.exporter import PairSource, export_pair

    encoder, decoder, description = write_pair(folder)
    export_pair(PairSource(encoder, decoder, read_pair(description)), folder / "points")
    return Bundle(folder / "points")


@pytest.fixture(scope="module", params=[_maps, _through_image, _labels, _points], ids=lambda made: made.__name__[1:])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small bundle of every kind of memory."""
    made: Made = request.param
    return made(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def opened(chromium: Browser, bundle: Bundle) -> Iterator[tuple[BrowserClicks, Session]]:
    """A session with an image, and the browser with the same."""
    with Session(bundle, precision="fp32", history_limit=100) as session:
        session.set_image(DARK)
        with browser_clicks(chromium, session) as clicks:
            yield clicks, session


@pytest.fixture
def both(opened: tuple[BrowserClicks, Session]) -> tuple[BrowserClicks, Session]:
    """The same, without a click on either side."""
    clicks, session = opened
    session.set_image(DARK)
    clicks("restore", session.to_dict())
    return clicks, session


def check_labels(clicks: BrowserClicks, session: Session) -> None:
    """Check that the label maps are the same, but for a few pixels."""
    differing = clicks.labels != session.labels
    assert np.count_nonzero(differing) <= FEW
    for label in session.surfaces.values():
        ours, theirs = clicks.labels == label, session.labels == label
        union = np.count_nonzero(ours | theirs)
        assert union == 0 or np.count_nonzero(ours & theirs) / union >= 0.99


def check_annotation(clicks: BrowserClicks, session: Session) -> None:
    """Check that annotations are the same, but for a few pixels of the masks that selecting put in."""
    ours, theirs = clicks("annotation"), json.loads(json.dumps(session.to_dict()))
    for one, other in zip(_masks_out_of(ours), _masks_out_of(theirs), strict=True):
        assert np.count_nonzero(mask_of_rle(one) != mask_of_rle(other)) <= FEW
    assert ours == theirs


def _masks_out_of(annotation: dict[str, Any]) -> list[Any]:
    """Take the run lengths out of an annotation, and return them."""
    interactions = [one for surface in annotation["surfaces"] for one in surface["interactions"]]
    return [one.pop("mask") for one in interactions if isinstance(one, dict) and "mask" in one]


def drawn_call(random: np.random.Generator, annotations: list[dict[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    """Draw a call; some of them are refused."""
    name, other = (str(one) for one in random.choice(NAMES, 2))
    x, y = (round(float(random.uniform(-0.5, side - 0.5)), 2) for side in (SIZE[1], SIZE[0]))
    calls: list[tuple[float, str, tuple[Any, ...]]] = [
        (9, "click", (x, y, bool(random.random() < 0.75))),
        (3, "undo", ()),
        (3, "redo", ()),
        (4, "select", (name,)),
        (0.7, "reset", ()),
        (0.7, "remove", (name,)),
        (0.7, "rename", (name, other)),
        (1.5, "choose", (int(random.integers(-1, 4)),)),
        (0.5, "state", ()),
        (0.5, "restore", (annotations[int(random.integers(len(annotations)))],)),
    ]
    weights = np.array([one[0] for one in calls])
    _, call, args = calls[int(random.choice(len(calls), p=weights / weights.sum()))]
    return call, args


def test_a_random_walk_of_calls_leads_to_the_same(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    random = np.random.default_rng(0)
    annotations = [session.to_dict()]
    made: set[str] = set()
    for step in range(STEPS):
        call, args = drawn_call(random, annotations)
        answer = same_calls(clicks, session, call, *args)
        if answer is not None:
            check_labels(clicks, session)
            made.add(call)
            annotations.append(json.loads(json.dumps(session.to_dict())))
        if step % 5 == 0:
            check_annotation(clicks, session)
    assert {"click", "undo", "redo", "select"} <= made
    check_annotation(clicks, session)


def test_the_first_of_equals_takes_the_place_of_a_removed_object(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    calls: list[tuple[Any, ...]] = [("select", "b"), ("select", "c"), ("remove", "c"), ("remove", "1"), ("remove", "b")]
    for call in calls:
        same_calls(clicks, session, *call)
    assert session.surfaces == {"1": 4}


def test_masks_that_were_put_in_come_back_with_what_the_network_sees_of_them(
    both: tuple[BrowserClicks, Session],
) -> None:
    clicks, session = both
    session.click(40, 40)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    session.set_mask((rows + columns < 90) & (rows > 10))
    session.click(100, 60)
    session.select("soft")
    session.set_mask(np.clip(columns / SIZE[1], 0, 1).astype(np.float32))
    session.undo()
    session.redo()
    saved = json.loads(json.dumps(session.to_dict()))
    assert ["previous" in one for one in saved["surfaces"][1]["interactions"]] == [True]
    clicks("restore", saved)
    check_labels(clicks, session)
    assert clicks("annotation") == saved
    for call in (("click", 20, 20, True), ("undo",), ("undo",), ("select", "1"), ("click", 10, 80, False)):
        same_calls(clicks, session, *call)
        check_labels(clicks, session)


def test_the_probability_is_that_of_the_network(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    assert not clicks("probability")["data"].any()
    for x, y, positive in ((40, 40, True), (60, 45, True), (100, 20, False)):
        same_calls(clicks, session, "click", x, y, positive)
        expected = session.result.network_probability
        said = clicks("probability")
        assert said["size"] == list(expected.shape)
        assert np.abs(said["data"].reshape(expected.shape) - 255 * expected).max() <= 1.0


def test_all_answers_are_there_where_the_network_gives_several(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    answer = same_calls(clicks, session, "click", 40, 40, True)
    assert answer is not None
    candidates = session.result.candidates
    said = clicks("candidates")
    assert said["count"] == len(candidates) == len(answer["candidates"])
    for ours, theirs, shown in zip(answer["candidates"], candidates, _planes(said), strict=True):
        assert ours["score"] == pytest.approx(theirs.score, abs=1e-4)
        assert np.abs(shown - 255 * theirs.answer.probability).max() <= 1.0


def _planes(said: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    height, width = said["size"]
    return list(said["data"].reshape(said["count"], height, width).astype(np.float64))


def test_labels_are_taken_up_as_load_labels_takes_them(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    labels = np.zeros(SIZE, dtype=np.uint16)
    labels[10:50, 20:60], labels[30:80, 70:110], labels[0, 0] = 7, 3, 300
    names = {"cat": 7, "7": 3}
    session.load_labels(labels, names)
    answer = clicks.page.evaluate(
        """async ([labels, names]) => {
          const { surfaces } = await window.answers.setLabels(Uint16Array.from(labels), names);
          return surfaces;
        }""",
        [labels.ravel().tolist(), names],
    )
    assert [(one["name"], one["label"]) for one in answer] == list(session.surfaces.items())
    answer = clicks("state")
    assert stripped(answer) == described(session)
    np.testing.assert_array_equal(clicks.labels, labels)
    for call in (("click", 90, 70, True), ("select", "cat"), ("click", 40, 30, False), ("undo",), ("undo",)):
        same_calls(clicks, session, *call)
        check_labels(clicks, session)


def test_calls_that_overlap_are_answered_in_their_order(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    for x in range(10, 60, 10):
        session.click(x, 40)
    session.undo()
    counts = clicks.page.evaluate(
        """async () => {
          const calls = [10, 20, 30, 40, 50].map((x) => window.answers.click(x, 40));
          const answered = await Promise.all([...calls, window.answers.undo()]);
          return answered.map(({ surfaces }) => surfaces[0].clicks.length);
        }"""
    )
    assert counts == [1, 2, 3, 4, 5, 4]
    assert stripped(clicks("state")) == described(session)


def test_what_is_wrong_is_refused_by_name_and_changes_nothing(both: tuple[BrowserClicks, Session]) -> None:
    clicks, session = both
    same_calls(clicks, session, "click", 40, 40, True)
    before = clicks("annotation")
    wrong: list[tuple[str, str, Any]] = [
        ("ClickError", "click", [500, 4, True]),
        ("ClickError", "click", ["4", 4, True]),
        ("ClickError", "click", [4, 4, 2]),
        ("SurfaceError", "select", [""]),
        ("SurfaceError", "remove", ["nothing"]),
        ("HistoryError", "redo", []),
        ("SessionError", "restore", [None]),
        ("SessionError", "restore", [{**before, "version": 2}]),
        ("SessionError", "restore", [{**before, "image_size": [3, 4]}]),
        ("SessionError", "restore", [{**before, "surface": "nothing"}]),
        ("SessionError", "restore", [{**before, "surfaces": [{**before["surfaces"][0], "undone": 2}]}]),
        ("SessionError", "restore", [{**before, "surfaces": [{**before["surfaces"][0], "interactions": [[1, 2]]}]}]),
        ("SessionError", "restore", [_with_mask(before, "0")]),
        ("SessionError", "restore", [_with_mask(before, "not run lengths")]),
        ("MaskInputError", "setLabels", [[1, 2, 3], {}]),
    ]
    for kind, call, args in wrong:
        with pytest.raises(BrowserError) as refused:
            clicks(call, *args)
        assert refused.value.kind == kind, f"{call}{args}: {refused.value}"
    assert clicks("annotation") == before


def _with_mask(annotation: dict[str, Any], counts: str) -> dict[str, Any]:
    mask = {"mask": {"size": list(SIZE), "counts": counts}}
    return {**annotation, "surfaces": [{**annotation["surfaces"][0], "interactions": [mask]}]}


# --- the real network -------------------------------------------------------------------------------------------------


def test_the_small_demo_answers_in_the_browser_as_on_the_server(chromium: Browser) -> None:
    with Session("demo-small", precision="fp32") as session:
        session.set_image(PHOTO)
        height, width = session.image_size
        with browser_clicks(chromium, session) as clicks:
            assert clicks.engine["library"] == "onnxruntime-web"
            assert (clicks.engine["device"], clicks.engine["precision"]) == ("wasm", "fp32")
            calls: list[tuple[Any, ...]] = [
                ("click", width * 0.5, height * 0.5, True),
                ("click", width * 0.6, height * 0.6, True),
                ("click", width * 0.1, height * 0.1, False),
                ("undo",),
                ("redo",),
                ("select", "second"),
                ("click", width * 0.55, height * 0.55, True),
                ("click", width * 0.3, height * 0.7, True),
                ("select", "1"),  # the second one took pixels from it
                ("click", width * 0.4, height * 0.5, True),
                ("remove", "second"),
            ]
            for call in calls:
                answer = same_calls(clicks, session, *call)
                assert answer is not None
                check_demo_labels(clicks, session)
                if call[0] == "click":
                    assert answer["timings"]["total"] >= answer["timings"]["engine"] > 0
            assert np.count_nonzero(clicks.labels) > 1000


def check_demo_labels(clicks: BrowserClicks, session: Session) -> None:
    """Check masks as the export's gate does: IoU of at least 0.99, and a few pixels at the threshold."""
    assert np.count_nonzero(clicks.labels != session.labels) <= 1e-3 * session.labels.size
    for label in session.surfaces.values():
        ours, theirs = clicks.labels == label, session.labels == label
        union = np.count_nonzero(ours | theirs)
        assert union == 0 or np.count_nonzero(ours & theirs) >= 0.99 * union


# --- what runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(paint: Bundle) -> Iterator[Session]:
    """A session with an image."""
    with Session(paint) as opened:
        opened.set_image(DARK)
        yield opened


def test_threads_need_the_headers_and_the_engine_says_so(chromium: Browser, session: Session) -> None:
    with browser_clicks(chromium, session, threads=2) as clicks:
        assert clicks.engine["version"] == ONNXRUNTIME_WEB.version
        assert clicks.engine["threads"] == 2
        assert clicks.engine["reason"].endswith("WebAssembly runs with 2 threads")
        same_calls(clicks, session, "click", 40, 40, True)
    with browser_clicks(chromium, session, headers={}, threads=2) as clicks:
        assert clicks.engine["threads"] == 1
        assert "not cross-origin isolated" in clicks.engine["reason"]
        session.reset()
        same_calls(clicks, session, "click", 40, 40, True)
        check_labels(clicks, session)


@pytest.fixture(scope="module")
def with_webgpu(chromium: Browser) -> Iterator[Browser]:
    """Chromium with a GPU that is made of software."""
    options = ["--no-sandbox", *WEBGPU]
    browser = chromium.browser_type.launch(executable_path=chromium_path(), args=options)
    yield browser
    browser.close()


def test_a_gpu_that_is_made_of_software_is_passed_over(with_webgpu: Browser, session: Session) -> None:
    with browser_clicks(with_webgpu, session) as clicks:
        assert clicks.engine["device"] == "wasm"
        assert clicks.engine["reason"].startswith("WebGPU has an adapter of software alone")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"/runtime/ort.webgpu.min.mjs": b"export const broken = ;"}, id="module"),
        pytest.param({"/runtime/ort-wasm-simd-threaded.asyncify.wasm": b"broken"}, id="wasm"),
    ],
)
def test_where_webgpu_fails_webassembly_takes_over_and_says_why(
    with_webgpu: Browser, session: Session, broken: dict[str, bytes]
) -> None:
    with browser_clicks(with_webgpu, session, contents=broken, device="webgpu") as clicks:
        assert clicks.engine["device"] == "wasm"
        assert clicks.engine["reason"].startswith("WebGPU fails (")
        same_calls(clicks, session, "click", 40, 40, True)
        check_labels(clicks, session)


def test_webgpu_answers_as_the_session_does(with_webgpu: Browser, session: Session) -> None:
    with browser_clicks(with_webgpu, session, device="webgpu") as clicks:
        assert clicks.engine["device"] == "webgpu"
        for call in (("click", 40, 40, True), ("click", 60, 40, False), ("undo",), ("redo",), ("click", 80, 60, True)):
            same_calls(clicks, session, *call)
            check_labels(clicks, session)


def test_a_gpu_that_is_lost_takes_no_click_with_it(with_webgpu: Browser, session: Session) -> None:
    before, after = (
        "async run(row, state) {",
        "if (this.device === 'webgpu' && (this.runs = (this.runs ?? 0) + 1) > 4) {",
    )
    source = (FILES / "browser" / "stage.js").read_text()
    lost = source.replace(before, f"{before} {after} throw new StageFailure('webgpu', new Error('device lost')); }}")
    assert lost != source
    contents = {"/browser/stage.js": lost.encode()}
    with browser_clicks(with_webgpu, session, contents=contents, device="webgpu") as clicks:
        clicks.page.evaluate("() => { window.answers.onengine = ({ device }) => { window.taken = device; }; }")
        for call in (
            ("click", 40, 40, True),
            ("select", "2"),
            ("click", 60, 40, True),
            ("click", 90, 40, True),
            ("undo",),
        ):
            same_calls(clicks, session, *call)
        assert clicks.page.evaluate("window.answers.engine.device") == "webgpu"
        for call in (
            ("click", 80, 60, True),
            ("undo",),
            ("select", "1"),
            ("click", 50, 40, True),
            ("undo",),
            ("redo",),
        ):
            same_calls(clicks, session, *call)
            check_labels(clicks, session)
        engine = clicks.page.evaluate("window.answers.engine")
        assert (engine["device"], clicks.page.evaluate("window.taken")) == ("wasm", "wasm")
        assert "WebGPU fails (device lost)" in engine["reason"]
        assert clicks("annotation") == session.to_dict()


def test_a_worker_that_cannot_be_loaded_is_a_lost_one(chromium: Browser, session: Session) -> None:
    with (
        pytest.raises(Exception, match="the worker that answers clicks is gone"),
        browser_clicks(chromium, session, contents={"/browser/worker.js": b"import './nothing.js';"}),
    ):
        pass


def test_a_model_that_is_not_there_is_named(chromium: Browser, session: Session) -> None:
    with (
        pytest.raises(Exception, match=r"click\.fp32\.onnx"),
        browser_clicks(chromium, session, contents={"/model/click.fp32.onnx": None}),
    ):
        pass


def test_the_next_image_takes_the_worker_of_the_one_before(chromium: Browser, session: Session) -> None:
    with browser_clicks(chromium, session) as clicks:
        page, model = clicks.page, browser_model(session.bundle).to_json()
        page.evaluate(
            """() => {
              window.made = 0;
              window.Worker = class extends Worker {
                constructor(...args) {
                  super(...args);
                  window.made += 1;
                }
              };
            }"""
        )
        same_calls(clicks, session, "click", 40, 40, True)
        for other, options, made in ((BRIGHT, {}, 0), (DARK, {}, 0), (DARK, {"threads": 1}, 1)):
            session.set_image(other)
            clicks.pages.contents["/features.bin"] = encode_features(session)
            page.evaluate("() => window.answers.close()")
            page.evaluate(OPEN, [model, list(session.image_size), options])
            clicks.labels = np.zeros(session.image_size, dtype=np.uint16)
            assert stripped(clicks("state")) == described(session)
            for call in (("click", 40, 40, True), ("click", 30, 20, False), ("undo",)):
                same_calls(clicks, session, *call)
                check_labels(clicks, session)
            assert page.evaluate("window.made") == made


def test_after_closing_every_call_is_refused(chromium: Browser, session: Session) -> None:
    with browser_clicks(chromium, session) as clicks:
        kinds = clicks.page.evaluate(
            """async () => {
              const kind = (call) => call.then(() => "", (error) => error.kind);
              const waiting = kind(window.answers.click(40, 40));
              window.answers.close();
              return [await waiting, await kind(window.answers.state())];
            }"""
        )
        assert kinds == ["LostError", "LostError"]
