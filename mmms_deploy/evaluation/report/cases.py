"""The worst cases of an evaluation as small pictures for its report."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image as Pillow

from mmms_deploy.evaluation.predictor import Predictor, close
from mmms_deploy.evaluation.replay import Case, draw_frame, draw_truth, replay, surface_of, window_of
from mmms_deploy.evaluation.run import Contestant, Entry, shown
from mmms_deploy.session.result import Click

_SIDE = 274
"""Longest side of a picture in the report, in pixels of the page; they are stored at one and a half times this size."""


@dataclass(frozen=True)
class CasePictures:
    """A case as the report shows it.

    Attributes:
        case: The case.
        pictures: A caption, and the picture as a ``data:`` address.
        size: (width, height) at which they are shown, in pixels.
        command: The command that shows every click of it.
        note: That the IoU of the repeated clicks differs; empty when it does not.
    """

    case: Case
    pictures: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    command: str
    note: str = ""


def draw_cases(
    chosen: Mapping[str, Sequence[Case]], entries: Sequence[Entry], contestant: Contestant, out: str
) -> tuple[CasePictures, ...]:
    """Draw cases: the object, the first answer, and the last one with all clicks.

    Args:
        chosen: Cases by data set.
        entries: The data sets that were evaluated.
        contestant: What was evaluated.
        out: The folder of the results, for the command.
    """
    if not any(chosen.values()):
        return ()
    predictor = contestant.open()
    try:
        return tuple(
            _draw(case, entry, predictor, out) for entry in entries for case in chosen.get(entry.dataset.name, ())
        )
    finally:
        close(predictor)


def _draw(case: Case, entry: Entry, predictor: Predictor, out: str) -> CasePictures:
    scene = shown(entry.dataset[case.scene.index], entry.modalities)
    surface = surface_of(scene, case.result.name)
    frames = list(replay(predictor, scene, case.result))
    window = window_of(surface, [Click(x, y, positive) for x, y, positive in case.result.clicks])
    drawn = [("the object", draw_truth(scene, surface))]
    for number, frame in sorted({1: frames[0], len(frames): frames[-1]}.items()):
        clicks = "1 click" if number == 1 else f"{number} clicks"
        drawn.append((f"{clicks}: IoU {100 * frame.iou:.1f} %", draw_frame(scene, frame)))
    differs = max(abs(a.iou - b) for a, b in zip(frames, case.result.ious, strict=True))
    pictures = [(caption, picture.crop(window)) for caption, picture in drawn]
    width, height = pictures[0][1].size
    scale = _SIDE / max(width, height)
    return CasePictures(
        case=case,
        pictures=tuple((caption, _address(picture, scale)) for caption, picture in pictures),
        size=(round(width * scale), round(height * scale)),
        command=f"mmms-eval --replay {shlex.quote(out)} {shlex.quote(case.name)}",
        note=f"repeated for this picture, its IoU differs by up to {differs:.2g}" if differs > 1e-9 else "",
    )


def _address(picture: Pillow.Image, scale: float) -> str:
    width, height = (max(1, round(1.5 * scale * side)) for side in picture.size)
    stream = io.BytesIO()
    picture.resize((width, height), Pillow.Resampling.LANCZOS).save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
