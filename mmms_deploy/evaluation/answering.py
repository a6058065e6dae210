"""How a bundle's answers are made in an evaluation: the crop, the mirror image, the threshold and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from mmms_deploy.bundle import EvaluationProtocol, Manifest, Outside, ZoomRule
from mmms_deploy.evaluation.errors import EvaluationSettingsError


class Choose(StrEnum):
    """Which of several answers to a click is taken, where a network gives several."""

    SCORE = "score"
    """The network's own choice, as a session takes it: the one of the highest score."""
    BEST = "best"
    """The one of the largest IoU with the true mask, as an annotator takes it who sees all of them; so are DISNet's
    figures counted. Of equals the network's own choice, or else the first."""


@dataclass(frozen=True)
class Answering:
    """How answers are made; without anything, as a session makes them.

    Attributes:
        zoom: The crop's rule; None for the whole picture.
        flip: Whether an answer is the mean with that to the mirror image.
        threshold: A pixel belongs to the mask, and to the object that the crop is around, when its probability is
            greater; None takes the bundle's.
        choose: Which of several answers is taken.
    """

    zoom: ZoomRule | None = None
    flip: bool = False
    threshold: float | None = None
    choose: Choose = Choose.SCORE

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)

    @property
    def crop(self) -> ZoomRule | None:
        """The crop's rule with the threshold that counts."""
        if self.zoom is None or self.zoom.threshold is not None:
            return self.zoom
        return msgspec.structs.replace(self.zoom, threshold=self.threshold)

    def options(self) -> dict[str, str | None]:
        """Return it as the options that results record."""
        rule = self.zoom
        return {
            "flip": "" if self.flip else None,
            "threshold": None if self.threshold is None else f"{self.threshold:g}",
            "zoom": None if rule is None else _text(rule),
            "choose": None if self.choose is Choose.SCORE else str(self.choose),
        }


def recorded_answering(options: Mapping[str, str | None]) -> Answering:
    """Return how the answers of recorded results were made."""
    zoom, threshold = options.get("zoom"), options.get("threshold")
    return Answering(
        zoom=None if zoom is None else _rule(zoom),
        flip=options.get("flip") is not None,
        threshold=None if threshold is None else float(threshold),
        choose=Choose(options.get("choose") or Choose.SCORE),
    )


def _text(rule: ZoomRule) -> str:
    expansion, smallest, iou = map(_exact, (rule.expansion, rule.smallest, rule.iou))
    text = f"x{expansion} least {smallest} px, IoU {iou}, outside {rule.outside}"
    return text if rule.threshold is None else f"{text}, above {_exact(rule.threshold)}"


def _exact(number: float) -> str:
    return repr(int(number)) if number == int(number) else repr(float(number))


def _rule(text: str) -> ZoomRule:
    parts = text.replace(",", "").split()
    return ZoomRule(
        expansion=float(parts[0][1:]),
        smallest=float(parts[2]),
        iou=float(parts[5]),
        outside=Outside(parts[7]),
        threshold=float(parts[9]) if len(parts) > 8 else None,
    )


_WITHOUT_PROTOCOL = {
    "interformer": "InterFormer's figures are counted with every picture at its own size, and a bundle brings pictures"
    " to its one size",
    "onnx": "published protocols crop the picture or mirror it, and the decoder's list of points cannot be drawn for"
    " another picture",
}
"""Families whose bundles cannot answer as for published figures, and why."""


def published_protocol(manifest: Manifest) -> EvaluationProtocol:
    """Return how the figures of a bundle's family were counted.

    Raises:
        EvaluationSettingsError: The bundle does not say so, or no bundle of its family can answer as there.
    """
    if manifest.published is None:
        family = str(manifest.provenance.description.get("family"))
        reason = _WITHOUT_PROTOCOL.get(family)
        if reason is not None:
            one_size = "; where all pictures have one size, a bundle that is exported at it stretches none"
            size, option = (one_size, " (mmms-export --size)") if family == "interformer" else ("", "")
            raise EvaluationSettingsError(
                f"{manifest.name} has no published protocol: {reason}",
                expected="an evaluation with the bundle's own answers",
                fix=f"leave out published=True{size}",
                command_fix=f"pass --protocol noc or curve{size}{option}",
            )
        raise EvaluationSettingsError(
            f"{manifest.name} does not say how the figures of its paper were counted",
            expected="a bundle of a family whose published protocol is known, exported by this version",
            fix="export the checkpoint again, or pass Answering(zoom=..., flip=..., threshold=...)",
            command_fix="export the checkpoint again, or ask for the parts: --zoom, --flip, --threshold",
        )
    return manifest.published


def answering(
    manifest: Manifest,
    *,
    published: bool = False,
    zoom: bool | None = None,
    flip: bool | None = None,
    threshold: float | None = None,
    choose: Choose = Choose.SCORE,
    clicks: int = 1,
) -> Answering:
    """Return how a bundle's answers are made.

    Args:
        manifest: The bundle's.
        published: Whether as its family's published figures were counted; what else is given goes before.
        zoom: Whether clicks are answered in the object's crop, by the family's rule or else RITM's.
        flip: Whether an answer is the mean with that to the mirror image.
        threshold: Probability above which a pixel belongs to the mask.
        choose: Which of several answers is taken.
        clicks: How many clicks on an object it may be asked for.

    Raises:
        EvaluationSettingsError: The bundle says no published protocol, the threshold is none, its network gives one
            answer, of which none can be chosen, or it takes fewer clicks on an object.
    """
    check_decision(manifest, threshold)
    if choose is Choose.BEST and manifest.clicks.candidates == 1:
        raise EvaluationSettingsError(
            f"the best of several answers was asked of {manifest.name}, which gives one",
            expected="a network that gives several, such as SAM 2",
            fix="leave out choose",
            command_fix="leave out --choose",
        )
    points, listed = manifest.clicks.points, manifest.clicks.listed
    most, what, longer = None, "", ""
    if points is not None:
        most, what, longer = points.most, "points", "more 'most_points' in the description"
    elif listed is not None:
        most, what, longer = listed.sizes[-1], "clicks", "a longer list: 'clicks.listed.sizes' in the description"
    if most is not None and clicks > most:
        raise EvaluationSettingsError(
            f"{clicks} clicks on an object, and {manifest.name} takes a list of {most} {what}",
            expected=f"at most {most}",
            fix=f"pass max_clicks={most}, or export again with {longer}",
            command_fix=f"pass --max-clicks {most}, or export again with {longer}",
        )
    family = manifest.published
    rule = family.zoom if family is not None and family.zoom is not None else ZoomRule()
    if not published:
        return Answering(rule if zoom else None, bool(flip), threshold, choose)
    protocol = published_protocol(manifest)
    wanted = protocol.zoom is not None if zoom is None else zoom
    return Answering(
        zoom=rule if wanted else None,
        flip=protocol.flip if flip is None else flip,
        threshold=protocol.threshold if threshold is None else threshold,
        choose=choose,
    )


def check_decision(manifest: Manifest, threshold: float | None) -> None:
    """Refuse a threshold where the network decides between all objects instead.

    Raises:
        EvaluationSettingsError: There is one.
    """
    if threshold is not None and manifest.clicks.objects > 1:
        raise EvaluationSettingsError(
            f"threshold {threshold:g}, and {manifest.name} answers for all objects at once",
            expected="no threshold: a pixel belongs to the object, or the background, of the largest logit",
            fix="leave out threshold",
            command_fix="leave out --threshold",
        )


def other_size(manifest: Manifest, kind: str, dataset: str) -> str | None:
    """Return what is to be said where the published protocol has another network size on a data set; None where not.

    Args:
        manifest: The bundle's.
        kind: The kind of the data set.
        dataset: Its name.
    """
    protocol = manifest.published
    if protocol is None or protocol.size_on(kind) == manifest.size:
        return None
    height, width = protocol.size_on(kind)
    ours = f"{manifest.size[0]} x {manifest.size[1]}"
    size = f"{height}" if height == width else f"{height}x{width}"
    return (
        f"{dataset} is evaluated at {height} x {width} in the published protocol, and {manifest.name} is {ours}: for"
        f" figures beside the published ones, evaluate it with a bundle that was exported with --size {size}"
    )


def checked_threshold(value: float | None) -> float | None:
    """Return a threshold of probabilities, checked.

    Args:
        value: Above 0 and below 1; None for the bundle's.

    Raises:
        EvaluationSettingsError: It is something else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1):
        raise EvaluationSettingsError(
            f"threshold {value!r}",
            expected="a probability above 0 and below 1",
            fix="pass threshold=0.5, or None for the bundle's",
            command_fix="pass --threshold 0.5, or leave it out for the bundle's",
        )
    return value
