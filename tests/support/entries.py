"""Every public call with arguments of wrong and odd kinds: it answers, or refuses by a named error, and breaks nothing.

``python tools/fuzz_session.py`` (make fuzz-session) runs it for long; ``tests/project/test_entries.py`` for a moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mmms_deploy
from mmms_deploy import (
    Bundle,
    Click,
    CocoWriter,
    CudaOptions,
    Features,
    FeatureStore,
    Journal,
    MaskCleaning,
    Model,
    Polygon,
    Session,
    Workers,
    annotations,
    draw_overlay,
    open_engine,
    read_annotation,
    read_work,
)
from mmms_deploy.annotations import CocoObject
from mmms_deploy.errors import MMMSDeployError
from tests.support.odd_values import RaisedByArgument, odd
from tests.support.toy import write_toy

SIDE = 32
Arguments = dict[str, Callable[[], Any]]
"""A good value for every argument, by name; a name of digits is a place."""


@dataclass
class Tried:
    """What came of many calls.

    Attributes:
        calls: How many calls, by entry.
        answered: How many were answered.
        refused: How many were refused by a named error.
        passed: How many an argument ended with an error of its own.
        broken: What went wrong, as one line each.
    """

    calls: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    refused: int = 0
    passed: int = 0
    broken: Counter[str] = field(default_factory=Counter)


@dataclass
class Stage:
    """What the calls are made on: a session with clicks, a model, features, results."""

    bundle: Bundle
    model: Model
    session: Session
    kind: str
    modality: bool

    def begin(self) -> None:
        """Set an image, and click."""
        maps = {"depth": np.ones((SIDE, SIDE), np.float32)} if self.modality else {}
        self.session.set_image(image(), **maps)
        self.session.click(5, 6)
        self.session.select("2")
        self.session.click(20, 20)
        self.session.click(22, 20, positive=False)
        self.session.undo()

    def state(self) -> tuple[Any, ...]:
        """Return all that a refused call leaves as it is."""
        session = self.session
        return (
            json.dumps(session.to_dict(), sort_keys=True),
            session.labels.tobytes(),
            session.mask.tobytes(),
            session.result.network_probability.tobytes(),
            session.can_undo,
            session.can_redo,
            session.image_size,
            session.modalities,
        )


@cache
def image() -> Any:
    return np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def _mask() -> Any:
    return np.eye(SIDE, dtype=bool)


def _labels() -> Any:
    return np.eye(SIDE, dtype=np.uint8)


def _path(suffix: str) -> Callable[[], str]:
    return lambda: f"good{suffix}"


def _dataset() -> Any:
    return {"images": [], "annotations": [], "categories": []}


OPENING: Arguments = {
    "device": lambda: "cpu",
    "engine": lambda: "onnxruntime",
    "precision": lambda: "fp32",
    "threads": lambda: 1,
    "strict": lambda: False,
    "cuda_options": CudaOptions,
    "on_progress": lambda: None,
}
SESSION: Arguments = {
    "history_limit": lambda: 3,
    "keep_image": lambda: True,
    "zoom": lambda: False,
    "flip": lambda: False,
    "cleaning": lambda: MaskCleaning(fill_holes=4, drop_specks=4),
    "resume": lambda: False,
}
CALLS: dict[str, Arguments] = {
    "set_image": {"0": image, "channel_order": lambda: "rgb"},
    "set_modalities": {"depth": lambda: np.ones((SIDE, SIDE))},
    "set_features": {"0": dict, "1": lambda: (SIDE, SIDE)},
    "click": {"0": lambda: 3, "1": lambda: 4, "2": lambda: True},
    "choose": {"0": lambda: 0},
    "set_mask": {"0": _mask},
    "set_clicks": {"0": lambda: [[3, 4, 1], [5, 6, 0]]},
    "add_clicks": {"0": lambda: [[3, 4, 1], [5, 6, 0]]},
    "click_objects": {"0": lambda: {"1": (3, 4), "dog": (5, 6, 0)}},
    "set_box": {"0": lambda: 1, "1": lambda: 2, "2": lambda: 9, "3": lambda: 8},
    "save": {"0": _path(".work"), "overwrite": lambda: True},
    "load": {
        "0": _path(".work"),
        "1": lambda: None,
        "features": lambda: None,
        "other_image": lambda: False,
        "channel_order": lambda: "rgb",
    },
    "predict": {
        "0": lambda: [[3, 4]],
        "1": lambda: [1],
        "box": lambda: None,
        "mask_input": lambda: None,
        "multimask_output": lambda: True,
        "return_logits": lambda: False,
        "normalize_coords": lambda: True,
    },
    "select": {"0": lambda: "1"},
    "remove": {"0": lambda: "2"},
    "rename": {"0": lambda: "1", "1": lambda: "cat"},
    "restore": {},
    "to_coco": {
        "0": lambda: "a.jpg",
        "polygons": lambda: True,
        "tolerance": lambda: 0.5,
        "categories": dict,
        "empty": lambda: True,
    },
    "save_labels": {"0": _path(".png"), "overwrite": lambda: True},
    "load_labels": {"0": _labels, "1": lambda: {"one": 1}, "void": lambda: None},
    "use": {},
    "download_features": {"0": lambda: ["f1"]},
}
RESULT: dict[str, Arguments] = {
    "above": {"0": lambda: 0.5},
    "rle": {"0": lambda: True},
    "polygons": {"0": lambda: 0.0},
    "overlay": {"0": image, "channel_order": lambda: "rgb"},
    "candidate_sheet": {"0": image, "channel_order": lambda: "rgb"},
    "to_dict": {"0": lambda: "rle"},
    "save": {"0": _path(".png"), "overwrite": lambda: True},
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], Arguments]] = {
    "open_engine": (open_engine, {"0": lambda: _opened("plain").bundle, **OPENING}),
    "Bundle": (Bundle, {"0": lambda: "no-such-bundle"}),
    "draw_overlay": (
        draw_overlay,
        {"0": image, "1": _mask, "2": lambda: [Click(3, 4)], "channel_order": lambda: "rgb"},
    ),
    "read_annotation": (read_annotation, {"0": _path(".json")}),
    "Click": (Click, {"0": int, "1": int, "2": lambda: True}),
    "CudaOptions": (
        CudaOptions,
        {
            "cuda_graph": lambda: True,
            "strict": lambda: False,
            "resident_images": lambda: None,
            "memory_limit": lambda: None,
            "history_block": lambda: 1,
            "ordinal": int,
        },
    ),
    "MaskCleaning": (
        MaskCleaning,
        {
            "fill_holes": lambda: 3,
            "drop_specks": lambda: 3,
            "keep_largest": lambda: 1,
            "simplify": lambda: 1.5,
        },
    ),
    "MaskCleaning.clean": (
        lambda *a: MaskCleaning(fill_holes=3, drop_specks=3, simplify=1.5).clean(*a),
        {"0": _mask, "1": lambda: [Click(3, 4)]},
    ),
    "CocoWriter": (
        lambda *a, **k: CocoWriter(*a, **k).dataset(),
        {"categories": lambda: ["a"], "polygons": lambda: True},
    ),
    "CocoWriter.add_image": (
        lambda *a: CocoWriter().add_image(*a),
        {"0": lambda: "a.jpg", "1": lambda: (SIDE, SIDE), "2": lambda: [CocoObject(_mask(), "cat")]},
    ),
    "CocoWriter.add_image, object": (
        lambda mask, category, clicks, surface: CocoWriter().add_image(
            "a.jpg", (SIDE, SIDE), [CocoObject(mask, category, clicks, surface=surface)]
        ),
        {"0": _mask, "1": lambda: "cat", "2": lambda: [(1, 2, True)], "3": lambda: "1"},
    ),
    "CocoWriter.add": (lambda given: CocoWriter().add(given), {"0": _dataset}),
    "CocoWriter.write": (lambda *a, **k: CocoWriter().write(*a, **k), {"0": _path(".json"), "overwrite": lambda: True}),
    "coco_dataset": (annotations.coco_dataset, {"0": _dataset, "1": _dataset, "categories": lambda: ["a"]}),
    "mask_of_segmentation": (annotations.mask_of_segmentation, {"0": list, "1": lambda: (SIDE, SIDE)}),
    "mask_of_rle": (annotations.mask_of_rle, {"0": lambda: annotations.rle_of(_mask())}),
    "mask_of_polygons": (annotations.mask_of_polygons, {"0": list, "1": lambda: (SIDE, SIDE)}),
    "polygons_of": (annotations.polygons_of, {"0": _mask, "1": lambda: 0.0}),
    "rle_of": (annotations.rle_of, {"0": _mask, "1": lambda: True}),
    "bbox_of": (annotations.bbox_of, {"0": _mask}),
    "xyxy_of": (annotations.xyxy_of, {"0": _mask}),
    "read_labels": (annotations.read_labels, {"0": _path(".png")}),
    "write_labels": (
        annotations.write_labels,
        {"0": _path(".png"), "1": _labels, "2": lambda: {"a": 1}, "overwrite": lambda: True},
    ),
    "write_mask": (
        annotations.write_mask,
        {"0": _path(".png"), "1": _mask, "2": lambda: [Click(3, 4)], "overwrite": lambda: True},
    ),
    "Polygon": (
        lambda outer, holes: annotations.mask_of_polygons([Polygon(outer, holes)], (SIDE, SIDE)),
        {"0": lambda: np.array([[1, 1], [5, 1], [5, 5.0]]), "1": tuple},
    ),
    "FeatureStore": (
        FeatureStore,
        {
            "0": lambda: None,
            "device_bytes": int,
            "host_bytes": lambda: 10**6,
            "disk_bytes": lambda: None,
            "half": lambda: "auto",
        },
    ),
    "read_work": (read_work, {"0": _path(".work")}),
    "Journal": (
        lambda *a, **k: Journal(*a, **k).close(),
        {"0": _path(".journal"), "masks": lambda: True, "sync": lambda: False, "limit": lambda: 10**6},
    ),
    "Workers": (lambda *a: Workers(*a).close(), {"0": lambda: 1}),
    "Features.load": (Features.load, {"0": _path(".features")}),
    "Features.from_bytes": (Features.from_bytes, {"0": lambda: b"x"}),
    "Features.save": (
        lambda *a, **k: _features().save(*a, **k),
        {"0": _path(".features"), "picture": lambda: True, "overwrite": lambda: True},
    ),
    "Features.to_bytes": (lambda **k: _features().to_bytes(**k), {"picture": lambda: True}),
    "Features.with_arrays, use": (
        lambda arrays: _opened("plain").session.use(_features().with_arrays(arrays)),
        {"0": lambda: dict(_features().arrays)},
    ),
    "Session": (lambda *a, **k: Session(*a, **k).close(), {"0": lambda: _opened("plain").bundle, **OPENING, **SESSION}),
    "Model": (lambda *a, **k: Model(*a, **k).close(), {"0": lambda: _opened("plain").bundle, **OPENING}),
    "Model.encode": (
        lambda *a, **k: _opened("plain").model.encode(*a, **k).content,
        {"0": image, "channel_order": lambda: "rgb"},
    ),
    "Model.encode_backbone": (
        lambda *a: _opened("plain").model.encode_backbone(*a).content,
        {"0": dict, "1": lambda: (3, 3)},
    ),
    "Model.session": (lambda **k: _opened("plain").model.session(**k).close(), SESSION),
}
KINDS = ("plain", "zoomed", "depth", "joint", "proposing")
_OPEN: dict[str, Stage] = {}


def _features() -> Features:
    return _opened("plain").model.encode(image()).on_host()


def _opened(kind: str) -> Stage:
    if kind not in _OPEN:
        _OPEN[kind] = _open(kind)
        _OPEN[kind].begin()
    return _OPEN[kind]


def _open(kind: str) -> Stage:
    from mmms_deploy.bundle.contract import ModalitySpec
    from tests.support.joint import write_joint
    from tests.support.proposing import write_proposing

    folder = Path(tempfile.mkdtemp()) / "toy"
    if kind == "joint":
        bundle = write_joint(folder, sizes=(4, 16))
    elif kind == "proposing":
        bundle = write_proposing(folder, sizes=(4, 16))
    else:
        modalities = (ModalitySpec(name="depth", optional=True),) if kind == "depth" else ()
        bundle = write_toy(folder, size=(SIDE, SIDE), modalities=modalities)
    model = Model(bundle, engine="onnxruntime", threads=1)
    return Stage(bundle, model, model.session(zoom=kind == "zoomed"), kind, kind == "depth")


def fuzz(seed: int, count: int, kinds: tuple[str, ...] = KINDS) -> Tried:
    """Make so many calls with drawn arguments, half of them on sessions of each kind in turn.

    Args:
        seed: The same seed gives the same calls.
        count: How many.
        kinds: Kinds of sessions.
    """
    draw, tried = random.Random(seed), Tried()
    with tempfile.TemporaryDirectory() as folder, _inside(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in kinds:
            _opened(kind)
        for number in range(count):
            stage = _OPEN[kinds[number % len(kinds)]]
            if number % 25 == 0:
                stage.begin()
            way = draw.random()
            if way < 0.6:
                name = draw.choice(sorted(CALLS))
                _try(draw, tried, f"Session.{name}", getattr(stage.session, name), CALLS[name], stage)
            elif way < 0.75:
                name = draw.choice(sorted(RESULT))
                _try(draw, tried, f"ClickResult.{name}", getattr(stage.session.result, name), RESULT[name], stage)
            else:
                name = draw.choice(sorted(FUNCTIONS))
                function, arguments = FUNCTIONS[name]
                _try(draw, tried, name, function, arguments, stage)
    return tried


def _try(
    draw: random.Random, tried: Tried, name: str, call: Callable[..., Any], arguments: Arguments, stage: Stage
) -> None:
    places, named = [], {}
    whole = draw.random()
    for key, good in (arguments or {"0": lambda: None}).items():
        value = odd(draw) if draw.random() < max(whole, 0.2) or not arguments else good()
        if key.isdigit():
            places.append(value)
        elif draw.random() < 0.7:
            named[key] = value
    before = stage.state()
    tried.calls[name] += 1
    shown = f"{name}({', '.join([*map(_brief, places), *(f'{key}={_brief(one)}' for key, one in named.items())])})"
    try:
        call(*places, **named)
        tried.answered += 1
    except RaisedByArgument:
        tried.passed += 1
    except MMMSDeployError as error:
        tried.refused += 1
        try:
            str(error).encode()
        except Exception as unsaid:
            tried.broken[f"{shown} of {stage.kind}: its error has no text: {unsaid!r:.100}"] += 1
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {_text(error):.100}"
        tried.broken[f"{shown} of {stage.kind}: {said} ({Path(last.filename).name}:{last.lineno})"] += 1
    else:
        # What was answered is a state that goes on: it can be saved, drawn and clicked on.
        try:
            json.dumps(stage.session.to_dict())
            assert stage.session.labels.shape == stage.session.image_size
            assert np.isfinite(stage.session.result.probability).all()
        except Exception as error:
            tried.broken[
                f"{shown} of {stage.kind} left a broken session: {type(error).__name__}: {_text(error):.100}"
            ] += 1
            stage.begin()
        if stage.session.image_size != (SIDE, SIDE) or len(stage.session.surfaces) > 4:
            stage.begin()
        return
    if stage.state() != before:
        tried.broken[f"{shown} of {stage.kind} changed the session and failed"] += 1
        stage.begin()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "an error without a text"


def _brief(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{type(value).__name__} {value.dtype} {value.shape}"
    try:
        return f"{type(value).__name__} {value!r:.60}"
    except Exception:
        return type(value).__name__


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    (Path(folder) / "folder").mkdir()
    try:
        yield
    finally:
        os.chdir(before)


def public_names() -> set[str]:
    """Return what ``from mmms_deploy import *`` and its annotations give, without types that only carry data."""
    return {*mmms_deploy.__all__, *annotations.__all__}
