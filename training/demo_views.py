"""What the demo's head is trained on: views of frames and drawn scenes, each a function of the seed and its number.

A view is a stack of layers, as in :mod:`training.samples`. Its targets are the annotated objects, the pseudo-masks of
SAM 2's decoder (:mod:`training.proposals`), and the objects that are pasted over them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmms_deploy.imaging.modality import measure
from mmms_deploy.training.views import View
from training.conditions import expose
from training.davis import Frame
from training.drawing import Layer, Pixels, Rng, draw_background
from training.proposals import Proposals
from training.samples import Canvas, SampleMaker, Sight, area_fraction, box_of, crop_window, resize_square
from training.thermal import THERMAL

FORMAT = 2
"""Version of how views are made; a change makes all keys new."""
SCENE_KINDS = {"object": 0.40, "proposal": 0.20, "whole": 0.15, "anywhere": 0.10, "drawn": 0.15}
"""How often a view shows a part around an annotated object, a part around a pseudo-mask, a whole frame, any part of a
frame with objects pasted over it, or a drawn background with objects on it."""
PROPOSAL_WEIGHT = 0.5
"""Weight of the first click on a pseudo-mask: one click often cannot tell a part from the whole."""
PART_WEIGHT = 0.1
"""The weight where a first click means the whole, of pseudo-masks that are parts."""
PART_INSIDE, WHOLE_LARGER = 0.85, 1.3
"""A mask is a part of another one that holds at least this share of it, and is at least so many times as large."""
MOST_TARGETS = 8
LEAST_SEEN = 0.4
"""Least share of an object that a crop must show for it to be a target."""
PLAIN_SHARE = 0.4
"""Share of the views whose light and colours stay as they are."""
LEAST_SHARE, MOST_SHARE = 0.004, 0.9
"""Targets cover at least and at most this share of a view."""


@dataclass(slots=True)
class DemoCanvas(Canvas):
    """An unfinished view.

    Attributes:
        first_weights: Weight of the first click on each of the regions, which are pseudo-masks.
    """

    first_weights: list[float] = field(default_factory=list)


class DemoViews(SampleMaker):
    """A series of views (:class:`mmms_deploy.training.Views`).

    Args:
        frames: DAVIS frames.
        proposals: Pseudo-masks by the frame's index.
        size: Side of the square views, in pixels.
        count: How many views.
        seed: Views depend on the frames, the pseudo-masks, this seed and their number.
        wholes: Whether a first click means the whole: pseudo-masks that are parts of something count little at the
            first click and are not cut out, all others count in full. Without it all are alike.
        thermal: Share of the views that come with a thermal image; ``None`` for RGB alone, in good light. Conditions
            and thermal images are those of :mod:`training.samples`: where something hides the scene, pseudo-masks are
            no targets.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        proposals: Mapping[int, Proposals],
        size: int,
        count: int,
        seed: int,
        *,
        wholes: bool = False,
        thermal: float | None = None,
    ) -> None:
        super().__init__(frames, size, MOST_TARGETS, seed, thermal=thermal)
        self.count = count
        self._proposals = {index: found for index, found in proposals.items() if len(found.masks)}
        self._proposed = sorted(self._proposals)
        self._first_weights = {index: self._weigh(index, wholes) for index in self._proposed}
        settings = [FORMAT, size, seed, wholes, *([] if thermal is None else [thermal])]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for index, frame in enumerate(self.frames):
            digest.update(frame.image.tobytes())
            digest.update(frame.mask.tobytes())
            if index in self._proposals:
                digest.update(self._proposals[index].masks.tobytes())
        self._digest = digest.hexdigest()

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        """Return what the view depends on, as a hash."""
        return hashlib.sha256(f"{self._digest} {index}".encode()).hexdigest()

    def __getitem__(self, index: int) -> View:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng, sight = np.random.default_rng([self.seed, index]), self._sight(index)
        while True:
            view = self._view(rng, sight)
            if view is not None:
                return view

    # --- composing ----------------------------------------------------------------------------------------------------

    def _view(self, rng: Rng, sight: Sight | None) -> View | None:
        canvas = self._scene(rng)
        if sight is not None:
            sight.disguise(canvas)
        pool = [(mask > 0.5, 1.0) for mask in canvas.objects]
        weights = canvas.first_weights if canvas.regions else []
        pool += [(mask > 0.5, weight) for mask, weight in zip(canvas.regions, weights, strict=True)]
        pool = [(mask, weight) for mask, weight in pool if LEAST_SHARE <= mask.mean() <= MOST_SHARE]
        if not pool:
            return None
        if len(pool) > MOST_TARGETS:  # annotated and pasted objects first
            pool = pool[: MOST_TARGETS // 2] + [
                pool[MOST_TARGETS // 2 + i]
                for i in sorted(rng.choice(len(pool) - MOST_TARGETS // 2, MOST_TARGETS // 2, replace=False))
            ]
        rgb = canvas.rgb if rng.random() < PLAIN_SHARE else self._colours(rng, canvas.rgb)
        thermal = None
        if sight is not None:
            rgb = expose(sight.rng, rgb, sight.condition)
            thermal = sight.measure(canvas)
        image = np.clip(rgb, 0, 255).astype(np.uint8)
        targets = np.stack([mask for mask, _ in pool])
        turn = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
        return View(
            image=np.ascontiguousarray(image[:, turn]),
            targets=np.ascontiguousarray(targets[:, :, turn]),
            weights=np.array([weight for _, weight in pool], np.float32),
            modalities={} if thermal is None else {THERMAL.name: measure(thermal[:, turn, None], THERMAL)},
        )

    def _weigh(self, index: int, wholes: bool) -> list[float]:
        """Weights of the first click on a frame's pseudo-masks."""
        masks = self._proposals[index].masks
        if not wholes:
            return [PROPOSAL_WEIGHT] * len(masks)
        others = [*masks, self.frames[index].mask.astype(bool)]
        return [PART_WEIGHT if any(_is_part(mask, other) for other in others) else 1.0 for mask in masks]

    def _pseudo_mask(self, rng: Rng, index: int) -> NDArray[np.bool_]:
        """One of the frame's pseudo-masks; a whole where it has any."""
        weights = self._first_weights[index]
        largest = [number for number, weight in enumerate(weights) if weight == max(weights)]
        return self._proposals[index].masks[largest[int(rng.integers(len(largest)))]]

    def _scene(self, rng: Rng) -> DemoCanvas:
        kind = str(rng.choice(list(SCENE_KINDS), p=list(SCENE_KINDS.values())))
        if kind == "proposal" and not self._proposed:
            kind = "object"
        if kind == "object":
            index = int(rng.choice(self._with_object))
            canvas = self._cropped(index, *self._around(rng, index, self.frames[index].mask.astype(bool)))
            extra = int(rng.integers(1, 3)) if rng.random() < 0.4 else 0
        elif kind == "proposal":
            index = int(rng.choice(self._proposed))
            canvas = self._cropped(index, *self._around(rng, index, self._pseudo_mask(rng, index)))
            extra = int(rng.integers(1, 3)) if rng.random() < 0.3 else 0
        elif kind == "whole":
            index = int(rng.choice(self._proposed if self._proposed and rng.random() < 0.5 else self._with_object))
            canvas = self._cropped(index, slice(None), slice(None))
            extra = int(rng.integers(1, 3)) if rng.random() < 0.3 else 0
        elif kind == "anywhere":
            index = int(rng.integers(len(self.frames)))
            height, width = self.frames[index].mask.shape
            x, y = int(rng.integers(width)), int(rng.integers(height))
            side = float(rng.uniform(0.3, 1.1) * height)
            canvas = self._cropped(index, *crop_window(rng, (height, width), (x, y, x + 1, y + 1), side))
            extra = int(rng.integers(1, 4))
        else:
            canvas = DemoCanvas(draw_background(rng, self._photos, self.size))
            extra = int(rng.integers(2, 6))
        for _ in range(extra):
            self._add_object(rng, canvas)
        return canvas

    def _around(self, rng: Rng, index: int, mask: NDArray[np.bool_]) -> tuple[slice, slice]:
        box = box_of(mask.astype(np.uint8))
        if box is None:
            raise ValueError(f"frame {index} has an empty mask")
        side = float(np.sqrt(mask.sum() / area_fraction(rng)))
        return crop_window(rng, (mask.shape[0], mask.shape[1]), box, side)

    def _cropped(self, index: int, rows: slice, columns: slice) -> DemoCanvas:
        """A part of a frame, with its annotated object and its pseudo-masks."""
        frame = self.frames[index]
        canvas = DemoCanvas(resize_square(frame.image[rows, columns], self.size).astype(np.float32))
        own = frame.mask[rows, columns].astype(bool)
        # What a crop cuts off is no object any more.
        if own.any() and own.sum() >= LEAST_SEEN * frame.mask.sum():
            canvas.objects.append(self._resized(own))
            canvas.own = 1
        if index in self._proposals:
            for proposal, weight in zip(self._proposals[index].masks, self._first_weights[index], strict=True):
                part = proposal[rows, columns]
                if part.sum() >= LEAST_SEEN * proposal.sum():
                    canvas.regions.append(self._resized(part))
                    canvas.first_weights.append(weight)
        return canvas

    def _resized(self, mask: NDArray[np.bool_]) -> Pixels:
        return resize_square(mask.astype(np.uint8) * np.uint8(255), self.size).astype(np.float32) / 255

    def _cut_out(self, rng: Rng, fraction: float, centre: tuple[float, float]) -> Layer:
        """An annotated object, or in one case of three what a pseudo-mask shows, cut out and changed."""
        if self._proposed and rng.random() < 1 / 3:
            index = int(rng.choice(self._proposed))
            mask = self._pseudo_mask(rng, index).astype(np.uint8)
            return self._layer(rng, self.frames[index].image, mask, fraction, centre)
        return super()._cut_out(rng, fraction, centre)


def _is_part(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether a mask shows a part of what another one shows."""
    return bool((mask & other).sum() >= PART_INSIDE * mask.sum() and other.sum() >= WHOLE_LARGER * mask.sum())
