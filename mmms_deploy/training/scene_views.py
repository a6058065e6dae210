"""Views of a data set's scenes: the whole picture, parts of it at the scale of its objects, and objects pasted in.

A view depends on its scene, the scenes that it takes objects from, and the seed: not on the place of the scene in the
data. So pictures can be added to a folder, and most of what is kept stays right.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mmms_deploy.bundle.contract import ModalitySpec
from mmms_deploy.evaluation.scene import Scene
from mmms_deploy.imaging.modality import measure
from mmms_deploy.training.data import Part
from mmms_deploy.training.views import View

FORMAT = 1
"""Version of how views are made; a change makes all keys new."""
LEAST_SHARE, MOST_SHARE = 0.002, 0.95
"""Targets cover at least and at most this share of a view."""
MOST_TARGETS = 12
_LEAST_SIDE = 64
_KEPT_SCENES = 12

Rng = np.random.Generator
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1; the far edges are excluded."""


@dataclass(slots=True)
class _Canvas:
    """An unfinished view: float32 colours, bool targets, float32 modalities, and the void map."""

    rgb: NDArray[np.float32]
    targets: list[NDArray[np.bool_]]
    modalities: dict[str, NDArray[np.float32]]
    void: NDArray[np.bool_] | None


class SceneViews:
    """Views of scenes.

    Args:
        parts: The scenes.
        objects: How many targets each scene has, by part and scene; scenes without any are left out.
        specs: The modalities that the network takes.
        each: Views of a scene: the first is the whole picture, every third one has objects of other scenes pasted in,
            the others show a part at the scale of an object.
        seed: Seed of the parts, mirror images, colours and pastes.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        objects: Sequence[Sequence[int]],
        specs: Sequence[ModalitySpec],
        each: int,
        seed: int,
    ) -> None:
        self._parts = tuple(parts)
        self._specs = tuple(specs)
        self._seed = seed
        self.each = each
        self._scenes = [(p, i) for p, part in enumerate(self._parts) for i in range(len(part)) if objects[p][i] > 0]
        self._donors = [[i for q, i in self._scenes if q == p] for p in range(len(self._parts))]
        self._identities: dict[tuple[int, int], str] = {}
        self._read: OrderedDict[tuple[int, int], Scene] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scenes) * self.each

    def key(self, index: int) -> str:
        """Return what the view depends on, as a hash."""
        (part, scene), number = self._place(index)
        facts = [FORMAT, self._seed, number, self._identity(part, scene)]
        facts += [self._identity(part, donor) for donor in self._pasted(part, scene, number)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def __getitem__(self, index: int) -> View:
        (part, place), number = self._place(index)
        scene, rng = self._scene(part, place), self._rng(part, place, number)
        donors = self._pasted(part, place, number)
        if number == 0:
            canvas = self._cut(scene, (0, 0, scene.image.shape[1], scene.image.shape[0]))
        else:
            canvas = self._cut(scene, self._window(scene, number, rng))
            for donor in donors:
                self._paste(canvas, self._scene(part, donor), rng)
            canvas.rgb = _recoloured(canvas.rgb, rng)
        return _finished(canvas, rng, mirrored=number > 0 and rng.random() < 0.5)

    # --- which --------------------------------------------------------------------------------------------------------

    def _place(self, index: int) -> tuple[tuple[int, int], int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._scenes[index // self.each], index % self.each

    def _identity(self, part: int, scene: int) -> str:
        if (part, scene) not in self._identities:
            self._identities[part, scene] = self._parts[part].identity(scene)
        return self._identities[part, scene]

    def _rng(self, part: int, scene: int, number: int) -> Rng:
        return np.random.default_rng([self._seed, int(self._identity(part, scene)[:15], 16), number])

    def _pasted(self, part: int, scene: int, number: int) -> list[int]:
        """Return the scenes whose objects are pasted into a view."""
        donors = self._donors[part]
        if number == 0 or number % 3 or len(donors) < 2:
            return []
        rng = np.random.default_rng([self._seed, int(self._identity(part, scene)[:15], 16), number, 1])
        return [int(rng.choice(donors)) for _ in range(int(rng.integers(1, 4)))]

    def _scene(self, part: int, scene: int) -> Scene:
        if (part, scene) not in self._read:
            self._read[part, scene] = self._parts[part][scene]
            if len(self._read) > _KEPT_SCENES:
                self._read.popitem(last=False)
        self._read.move_to_end((part, scene))
        return self._read[part, scene]

    # --- making -------------------------------------------------------------------------------------------------------

    def _measured(self, scene: Scene) -> dict[str, NDArray[np.float32]]:
        return {
            spec.name: measure(_with_channels(scene.modalities[spec.name]), spec)
            for spec in self._specs
            if spec.name in scene.modalities
        }

    def _cut(self, scene: Scene, box: Box) -> _Canvas:
        x0, y0, x1, y1 = box
        return _Canvas(
            rgb=scene.image[y0:y1, x0:x1].astype(np.float32),
            targets=[surface.mask[y0:y1, x0:x1].copy() for surface in scene.surfaces],
            modalities={name: values[y0:y1, x0:x1].copy() for name, values in self._measured(scene).items()},
            void=None if scene.void is None else scene.void[y0:y1, x0:x1].copy(),
        )

    def _window(self, scene: Scene, number: int, rng: Rng) -> Box:
        """Choose a part of a picture around one of its objects; the views of a scene take its objects in turn."""
        there = [surface.mask for surface in scene.surfaces if surface.mask.any()]
        order = np.random.default_rng([self._seed, len(there)]).permutation(len(there))
        mask = there[order[(number - 1) % len(there)]]
        height, width = mask.shape
        x0, y0, x1, y1 = box_of(mask)
        share = float(np.exp(rng.uniform(np.log(0.03), np.log(0.55))))
        side = max(float(np.sqrt(mask.sum() / share)), 0.7 * max(x1 - x0, y1 - y0), _LEAST_SIDE)
        aspect = float(np.exp(rng.normal(0, 0.25)))
        w, h = int(min(side * np.sqrt(aspect), width)), int(min(side / np.sqrt(aspect), height))
        left = _around(rng, x0, x1, w, width)
        top = _around(rng, y0, y1, h, height)
        return left, top, left + w, top + h

    def _paste(self, canvas: _Canvas, donor: Scene, rng: Rng) -> None:
        """Cut an object out of another scene and put it somewhere, with what its modalities saw."""
        there = [surface.mask for surface in donor.surfaces if surface.mask.any()]
        mask = there[int(rng.integers(len(there)))]
        x0, y0, x1, y1 = box_of(mask)
        height, width = canvas.rgb.shape[:2]
        share = float(np.exp(rng.uniform(np.log(0.02), np.log(0.3))))
        scale = float(np.clip(np.sqrt(share * height * width / mask.sum()), 0.05, 4.0))
        w, h = max(int((x1 - x0) * scale), 4), max(int((y1 - y0) * scale), 4)
        part = cv2.resize(mask[y0:y1, x0:x1].astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
        part = cv2.GaussianBlur(part, (3, 3), 0)
        left, top = int(rng.uniform(-0.3 * w, width - 0.7 * w)), int(rng.uniform(-0.3 * h, height - 0.7 * h))
        inside = (slice(max(top, 0), min(top + h, height)), slice(max(left, 0), min(left + w, width)))
        own = (
            slice(inside[0].start - top, inside[0].stop - top),
            slice(inside[1].start - left, inside[1].stop - left),
        )
        if inside[0].stop <= inside[0].start or inside[1].stop <= inside[1].start:
            return
        flip = rng.random() < 0.5

        def placed(values: NDArray[np.float32]) -> NDArray[np.float32]:
            small = cv2.resize(values, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            small = small[:, :, None] if small.ndim == 2 else small
            return np.asarray(small[:, ::-1] if flip else small, np.float32)[own]

        cover = (part[:, ::-1] if flip else part)[own][..., None]
        colours = placed(donor.image[y0:y1, x0:x1].astype(np.float32)) * np.float32(np.exp(rng.normal(0, 0.15)))
        canvas.rgb[inside] = canvas.rgb[inside] * (1 - cover) + colours * cover
        for name, values in self._measured(donor).items():
            if name in canvas.modalities:
                below = canvas.modalities[name][inside]
                canvas.modalities[name][inside] = below * (1 - cover) + placed(values[y0:y1, x0:x1]) * cover
        hidden = cover[..., 0] > 0.5
        for target in canvas.targets:
            target[inside] &= ~hidden
        if canvas.void is not None:
            canvas.void[inside] &= ~hidden
        pasted = np.zeros((height, width), bool)
        pasted[inside] = hidden
        canvas.targets.append(pasted)


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Return the box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _with_channels(stored: NDArray[np.generic]) -> NDArray[np.generic]:
    return stored[:, :, None] if stored.ndim == 2 else stored


def _around(rng: Rng, low: int, high: int, length: int, whole: int) -> int:
    """Choose where a stretch of a length begins, so that it holds [low, high) or most of it."""
    slack = 0.2 * min(length, high - low)
    first, last = sorted((high + slack - length, low - slack))
    return int(np.clip(rng.uniform(first, last), 0, whole - length))


def _recoloured(rgb: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
    """Change light and colours a little on two views in three."""
    if rng.random() < 1 / 3:
        return rgb
    rgb = rgb * np.float32(np.exp(rng.normal(0, 0.15))) + np.float32(rng.normal(0, 8))
    grey = rgb.mean(-1, keepdims=True)
    rgb = grey + (rgb - grey) * np.float32(rng.uniform(0.5, 1.5))
    return np.asarray(rgb * rng.uniform(0.9, 1.1, 3).astype(np.float32), np.float32)


def _finished(canvas: _Canvas, rng: Rng, *, mirrored: bool) -> View:
    area = canvas.rgb.shape[0] * canvas.rgb.shape[1]
    if canvas.void is not None:
        canvas.targets = [target & ~canvas.void for target in canvas.targets]
    usable = [target for target in canvas.targets if LEAST_SHARE * area <= target.sum() <= MOST_SHARE * area]
    if not usable:  # a picture of small things, or of one thing that fills it
        usable = sorted((target for target in canvas.targets if target.any()), key=lambda t: int(t.sum()))[-1:]
    if len(usable) > MOST_TARGETS:
        usable = [usable[i] for i in sorted(rng.choice(len(usable), MOST_TARGETS, replace=False))]
    turn = slice(None, None, -1) if mirrored else slice(None)
    targets = np.stack(usable) if usable else np.zeros((0, *canvas.rgb.shape[:2]), bool)
    image = np.clip(np.rint(canvas.rgb), 0, 255).astype(np.uint8)
    return View(
        image=np.ascontiguousarray(image[:, turn]),
        targets=np.ascontiguousarray(targets[:, :, turn]),
        weights=np.ones(len(targets), np.float32),
        modalities={name: np.ascontiguousarray(values[:, turn]) for name, values in canvas.modalities.items()},
        void=None if canvas.void is None else np.ascontiguousarray(canvas.void[:, turn]),
    )
