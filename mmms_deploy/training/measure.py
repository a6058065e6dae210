"""Measures a network on held-out scenes: simulated clicks, and whether guard clicks enlarge the mask."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmms_deploy.bundle.contract import Struct
from mmms_deploy.evaluation.annotator import Annotator
from mmms_deploy.evaluation.checkpoint_predictor import TorchPredictor
from mmms_deploy.evaluation.measures import iou_after, noc
from mmms_deploy.evaluation.modalities import choose_modalities
from mmms_deploy.evaluation.results import PredictorFacts
from mmms_deploy.evaluation.run import Contestant, Entry, Evaluation, evaluate
from mmms_deploy.evaluation.scene import Dataset, Scene
from mmms_deploy.evaluation.settings import Settings
from mmms_deploy.models.network import InteractiveNetwork
from mmms_deploy.progress import OnProgress, Progress
from mmms_deploy.training.clicks import squared_depth

QUICK_CLICKS = 5
QUICK_SCENES = 8
QUICK_OBJECTS = 3
"""What is measured during training: clicks on an object, scenes, objects of a scene."""
GROWTH_LIMIT = 0.02
"""A guard click enlarges a mask when it grows by more than this share of itself."""
GUARD_SIDE = 512
"""Longest side, in pixels, of the map on which the place of a guard click is chosen."""


class Quick(Struct, frozen=True, kw_only=True):
    """Mean IoU after a few clicks, on some held-out objects.

    Attributes:
        objects: How many objects.
        iou: Mean IoU after 1, 2, ... clicks.
        noc85: Mean number of clicks to an IoU of 85 %; the limit where it is not reached.
    """

    objects: int
    iou: tuple[float, ...]
    noc85: float


class GuardSummary(Struct, frozen=True, kw_only=True):
    """What negative clicks on background do to masks.

    Attributes:
        cases: Objects that got such a click after others.
        enlarged: Share of them whose mask grew by more than 2 %.
        growth: Mean growth, as a share of the mask; shrinking counts as 0.
    """

    cases: int
    enlarged: float
    growth: float


@dataclass(frozen=True, eq=False)
class _Few:
    """Some scenes of a data set, with their largest objects only."""

    dataset: Dataset
    scenes: int
    objects: int

    @property
    def name(self) -> str:
        return self.dataset.name

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.dataset.modalities

    def __len__(self) -> int:
        return min(self.scenes, len(self.dataset))

    def __getitem__(self, index: int) -> Scene:
        scene = self.dataset[index * len(self.dataset) // len(self)]
        largest = sorted(scene.surfaces, key=lambda surface: -int(surface.mask.sum()))[: self.objects]
        return replace(scene, surfaces=tuple(largest))


class HeldOut:
    """The scenes that a run is measured on.

    Args:
        parts: The data sets; those without scenes are left out.
        network: A network; its modalities decide what is shown.

    Raises:
        EvaluationModalityError: The network needs a modality that a data set does not have.
    """

    def __init__(self, parts: Sequence[Dataset], network: InteractiveNetwork) -> None:
        specs = network.config.modalities
        self._parts = [part for part in parts if len(part)]
        self._shown = [choose_modalities(specs, "the network", part).used for part in self._parts]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def quick(self, network: InteractiveNetwork) -> Quick:
        """Measure a few objects with a few clicks."""
        share = max(QUICK_SCENES // max(len(self._parts), 1), 1)
        few = [_Few(part, share, QUICK_OBJECTS) for part in self._parts]
        entries = [Entry(part, shown) for part, shown in zip(few, self._shown, strict=True)]
        run = evaluate(entries, lambda: TorchPredictor(network), Settings(max_clicks=QUICK_CLICKS))
        curves = [one.ious for result in run for one in result.objects if one.ious]
        count = max(len(curves), 1)
        return Quick(
            objects=len(curves),
            iou=tuple(sum(iou_after(curve, k) for curve in curves) / count for k in range(1, QUICK_CLICKS + 1)),
            noc85=sum(noc(curve, 0.85, QUICK_CLICKS) for curve in curves) / count,
        )

    def full(
        self,
        network: InteractiveNetwork,
        checkpoint: Path,
        out: Path,
        *,
        limit: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """Measure all objects with up to 20 clicks each; the results of finished scenes are kept.

        Args:
            network: The network.
            checkpoint: Its file; another one has other results.
            out: The folder of the results.
            limit: Scenes of each data set, spread evenly; None for all.
            on_progress: Receives every scene as a step.
        """
        identity = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        facts = PredictorFacts(name=checkpoint.stem, source=f"torch:{checkpoint}", identity=identity, engine="PyTorch")
        entries = []
        for part, shown in zip(self._parts, self._shown, strict=True):
            entries.append(Entry(part if limit is None else _Few(part, limit, 10**6), shown))
        return evaluate(
            entries,
            Contestant(lambda: TorchPredictor(network), facts),
            out=out / identity[:12],
            on_progress=on_progress,
        )

    def guards(
        self, network: InteractiveNetwork, *, scenes: int = 20, clicks: int = 3, on_progress: OnProgress | None = None
    ) -> GuardSummary:
        """Measure what a negative click on background does after some clicks of the annotator.

        The click falls on background of the truth and of the mask, well away from both.

        Args:
            network: The network.
            scenes: Scenes of each data set, spread evenly.
            clicks: The annotator's clicks before it.
            on_progress: Receives every scene as a step.
        """
        predictor, rng = TorchPredictor(network), np.random.default_rng(0)
        grown: list[float] = []
        few = [_Few(part, scenes, QUICK_OBJECTS) for part in self._parts]
        done, total = 0, sum(map(len, few))
        for part, shown in zip(few, self._shown, strict=True):
            for index in range(len(part)):
                scene = part[index]
                predictor.set_image(scene.image, **{name: scene.modalities[name] for name in shown})
                for surface in scene.surfaces:
                    predictor.reset()
                    annotator, mask = Annotator(surface.mask, scene.void), surface.mask & False
                    for _ in range(clicks):
                        click = annotator.click(mask)
                        if click is None:
                            break
                        mask = np.asarray(predictor.click(click.x, click.y, click.positive).mask)
                    place = _background(surface.mask | mask | (scene.void if scene.void is not None else False), rng)
                    if place is None or not mask.any():
                        continue
                    after = np.asarray(predictor.click(*place, False).mask)
                    grown.append(max(float(after.sum()) / float(mask.sum()) - 1, 0.0))
                done += 1
                if on_progress is not None:
                    on_progress(Progress("guard clicks", done, total, finished=done == total))
        return GuardSummary(
            cases=len(grown),
            enlarged=float(np.mean([g > GROWTH_LIMIT for g in grown])) if grown else 0.0,
            growth=float(np.mean(grown)) if grown else 0.0,
        )


def _background(covered: np.ndarray, rng: np.random.Generator) -> tuple[float, float] | None:
    """Choose a pixel outside of a mask and at least 1/40 of the longest side away from it; None where there is none."""
    step = max(1, max(covered.shape) // GUARD_SIDE)
    field = squared_depth(~covered[::step, ::step])
    places = np.flatnonzero(field >= (max(field.shape) / 40) ** 2)
    if not len(places):
        return None
    y, x = divmod(int(rng.choice(places)), field.shape[1])
    return float(x * step), float(y * step)
