"""Training samples: one picture with several target masks, a pure function of (seed, index).

A picture is a stack of layers. Below lies a crop of a DAVIS frame around its object, any crop of a frame, or a drawn
background; above lie cut-out DAVIS objects and drawn objects. Targets are the visible parts of the objects and, on
real frames, sometimes regions that an unsupervised segmentation proposes, so that clicks learn to follow real edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from training.conditions import HIDING, Condition, disguise, draw_condition, expose
from training.davis import Frame
from training.drawing import Layer, Pixels, Rng, colour, draw_background, draw_object, draw_plain_object, shade
from training.thermal import thermal_image

PLAIN_SHARE = 0.8
"""Share of plain scenes among the very first pictures."""

MIN_AREA = 0.01
"""Targets cover at least this share of the picture."""

SIGHT_STREAM = 2
"""Third word of the seed of conditions and thermal images; the scenes themselves do not depend on them."""

HIDDEN_WITH, HIDDEN_WITHOUT = 0.65, 0.3
"""Share of the pictures on which something hides from the camera, with a thermal image and without one."""

TELLING = {True: 0.88, False: 0.65}
"""Share of the objects that a thermal image shows, where something hides from the camera and where not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and its targets.

    Attributes:
        image: (S, S, 3) uint8, RGB.
        targets: (T, S, S) uint8, 1 on the target.
        regions: (T,) bool, true where a target is an unsupervised region and no object.
        thermal: (S, S) uint8, the thermal image; ``None`` when there is none.
    """

    image: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    regions: NDArray[np.bool_]
    thermal: NDArray[np.uint8] | None = None


@dataclass(slots=True)
class Canvas:
    """An unfinished picture.

    Attributes:
        rgb: Colours, (S, S, 3) float32, 0..255.
        objects: The visible part of each object, (S, S) float32 each, 0..1.
        regions: The same for the regions that are no objects.
        ground: The colours before anything was pasted.
        own: How many of the objects, the first ones, are in the ground.
    """

    rgb: Pixels
    objects: list[Pixels] = field(default_factory=list)
    regions: list[Pixels] = field(default_factory=list)
    ground: Pixels = field(init=False)
    own: int = 0

    def __post_init__(self) -> None:
        self.ground = self.rgb

    def paste(self, layer: Layer, soft: float) -> None:
        """Put an object on top; its edge is softened by ``soft`` pixels, and it hides what lies below."""
        alpha = cv2.GaussianBlur(layer.alpha, (0, 0), soft) if soft > 0.3 else layer.alpha
        cover = alpha[..., None]
        self.rgb = self.rgb * (1 - cover) + layer.rgb * cover
        hidden = 1 - layer.alpha
        self.objects = [mask * hidden for mask in self.objects]
        self.regions = [mask * hidden for mask in self.regions]
        self.objects.append(layer.alpha)


@dataclass(frozen=True, slots=True)
class Sight:
    """How the cameras see a scene.

    Attributes:
        rng: Random generator of conditions and thermal images.
        condition: What hides things from the camera.
        thermal: Whether there is a thermal camera, too.
    """

    rng: Rng
    condition: Condition
    thermal: bool

    def disguise(self, canvas: Canvas) -> None:
        """Change the look of the scene itself; where something hides it, regions are no targets."""
        if self.condition in HIDING:
            canvas.regions = []
        if self.condition is Condition.CAMOUFLAGE:
            canvas.rgb = disguise(self.rng, canvas.rgb, canvas.ground, canvas.objects, canvas.own)

    def measure(self, canvas: Canvas) -> NDArray[np.uint8] | None:
        """The thermal image of the scene, (S, S)."""
        if not self.thermal:
            return None
        return thermal_image(self.rng, canvas.rgb, canvas.objects, TELLING[self.condition in HIDING])


def area_fraction(rng: Rng) -> float:
    """Share of the picture that an object should fill: log-uniform, with big objects more often than by chance."""
    return float(np.exp(rng.uniform(np.log(0.08), np.log(0.75)) if rng.random() < 0.5 else rng.uniform(-3.9, -1.4)))


def resize_square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Stretch (H, W) or (H, W, C) uint8 to a square."""
    shrink = max(image.shape[:2]) > size
    out = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return out.astype(np.uint8, copy=False)


def crop_window(rng: Rng, shape: tuple[int, int], box: tuple[int, int, int, int], side: float) -> tuple[slice, slice]:
    """A crop of about ``side`` x ``side`` pixels (jittered aspect) that contains most of ``box`` (x0, y0, x1, y1)."""
    height, width = shape
    aspect = np.exp(rng.uniform(-0.45, 0.75))
    w = int(np.clip(side * np.sqrt(aspect), 64, width))
    h = int(np.clip(side / np.sqrt(aspect), 64, height))
    x0, y0, x1, y1 = box
    slack_x, slack_y = 0.15 * min(w, x1 - x0), 0.15 * min(h, y1 - y0)
    left_low, left_high = sorted((x1 + slack_x - w, x0 - slack_x))
    top_low, top_high = sorted((y1 + slack_y - h, y0 - slack_y))
    left = int(np.clip(rng.uniform(left_low, left_high), 0, width - w))
    top = int(np.clip(rng.uniform(top_low, top_high), 0, height - h))
    return slice(top, top + h), slice(left, left + w)


def box_of(mask: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Return x0, y0, x1, y1 of a mask, the far edges excluded; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class SampleMaker:
    """Makes training samples.

    Args:
        frames: DAVIS frames to mix in; without any, everything is drawn.
        size: Side of the square pictures, pixels.
        targets: Targets in a picture.
        seed: Samples depend on this seed and on their index alone.
        plain_until: Index up to which plain scenes (flat colours, nothing photographed) fade out; 0 for none.
        thermal: Share of the pictures that come with a thermal image; ``None`` for RGB alone, in good light.
        condition: The condition of all pictures that have a thermal image; ``None`` draws one for each picture.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        size: int,
        targets: int,
        seed: int,
        plain_until: int = 0,
        *,
        thermal: float | None = None,
        condition: Condition | None = None,
    ) -> None:
        self.frames = list(frames)
        self.size = size
        self.targets = targets
        self.seed = seed
        self.plain_until = plain_until
        self.thermal = thermal
        self.condition = condition
        self._photos = [frame.image for frame in self.frames]
        self._boxes = [box_of(frame.mask) for frame in self.frames]
        self._with_object = [i for i, box in enumerate(self._boxes) if box is not None]
        self._with_regions = [i for i, frame in enumerate(self.frames) if frame.regions is not None]

    def __call__(self, index: int) -> Sample:
        """The sample of an index."""
        rng = np.random.default_rng([self.seed, index])
        plain = index < self.plain_until and rng.random() < PLAIN_SHARE * (1 - index / self.plain_until)
        sight = self._sight(index)
        while True:
            canvas = self._plain_scene(rng) if plain else self._compose(rng)
            sample = self._choose(rng, canvas, sight)
            if sample is not None:
                return sample

    def _sight(self, index: int) -> Sight | None:
        if self.thermal is None:
            return None
        rng = np.random.default_rng([self.seed, index, SIGHT_STREAM])
        thermal = bool(rng.random() < self.thermal)
        drawn = draw_condition(rng, HIDDEN_WITH if thermal else HIDDEN_WITHOUT)
        return Sight(rng, (self.condition or drawn) if thermal else drawn, thermal)

    # --- composing ----------------------------------------------------------------------------------------------------

    def _compose(self, rng: Rng) -> Canvas:
        kind = rng.random()
        if self._with_object and kind < 0.42:
            canvas = self._frame_canvas(rng, int(rng.choice(self._with_object)), around_object=True)
            extra = int(rng.integers(1, 4)) if rng.random() < 0.55 else 0
        elif self._with_object and kind < 0.68:
            pool = self._with_regions or self._with_object
            canvas = self._frame_canvas(rng, int(rng.choice(pool)), around_object=False)
            extra = int(rng.integers(1, 4))
        else:
            canvas = Canvas(draw_background(rng, self._photos, self.size))
            extra = int(rng.integers(2, 6))
        for _ in range(extra):
            self._add_object(rng, canvas)
        return canvas

    def _plain_scene(self, rng: Rng) -> Canvas:
        canvas = Canvas(np.broadcast_to(colour(rng), (self.size, self.size, 3)).copy())
        for _ in range(int(rng.integers(2, 6))):
            centre = rng.uniform(0.1, 0.9, 2) * self.size
            canvas.paste(draw_plain_object(rng, self.size, area_fraction(rng), (centre[0], centre[1])), 0.0)
        return canvas

    def _frame_canvas(self, rng: Rng, index: int, *, around_object: bool) -> Canvas:
        frame, box = self.frames[index], self._boxes[index]
        height, width = frame.mask.shape
        if around_object and box is not None:
            side = float(np.sqrt(frame.mask.sum() / area_fraction(rng)))
            rows, columns = crop_window(rng, (height, width), box, side)
        else:
            side = rng.uniform(0.3, 1.1) * height
            x, y = int(rng.integers(width)), int(rng.integers(height))
            rows, columns = crop_window(rng, (height, width), (x, y, x + 1, y + 1), side)
        canvas = Canvas(resize_square(frame.image[rows, columns], self.size).astype(np.float32))
        mask = resize_square(frame.mask[rows, columns] * np.uint8(255), self.size).astype(np.float32) / 255
        if mask.max() > 0.5:
            canvas.objects.append(mask)
            canvas.own = 1
        if frame.regions is not None:
            half = frame.regions[
                int(rng.integers(len(frame.regions))),
                rows.start // 2 : max(rows.stop // 2, rows.start // 2 + 1),
                columns.start // 2 : max(columns.stop // 2, columns.start // 2 + 1),
            ]
            canvas.regions.extend(self._pick_regions(rng, half))
        return canvas

    def _pick_regions(self, rng: Rng, labels: NDArray[np.uint16]) -> list[Pixels]:
        """Up to three regions of a crop that are neither tiny nor everything, each one connected."""
        values, counts = np.unique(labels, return_counts=True)
        share = counts / labels.size
        good = values[(values > 0) & (share > 1.5 * MIN_AREA) & (share < 0.6)]
        picked = []
        for value in rng.permutation(good)[:3]:
            area = (labels == value).astype(np.uint8)
            area = cv2.morphologyEx(area, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
            picked.append(resize_square(area * np.uint8(255), self.size).astype(np.float32) / 255)
        return picked

    def _add_object(self, rng: Rng, canvas: Canvas) -> None:
        fraction = area_fraction(rng)
        spread = 0.12 if fraction > 0.25 else 0.28
        centre = tuple(float(v) for v in np.clip(rng.normal(0.5, spread, 2), 0.02, 0.98) * self.size)
        if self._with_object and rng.random() < 0.5:
            layer = self._cut_out(rng, fraction, (centre[0], centre[1]))
        else:
            layer = draw_object(rng, self._photos, self.size, fraction, (centre[0], centre[1]))
        if rng.random() < 0.3:  # a shadow belongs to the ground, not to the object
            shift = np.float32([[1, 0, rng.normal(0, 8)], [0, 1, rng.uniform(2, 14)]])
            dark = cv2.warpAffine(layer.alpha, shift, (self.size, self.size))
            dark = cv2.GaussianBlur(dark, (0, 0), rng.uniform(2, 9)) * rng.uniform(0.2, 0.7)
            canvas.rgb = canvas.rgb * (1 - dark[..., None])
        canvas.paste(layer, float(rng.uniform(0, 1.3)))

    def _cut_out(self, rng: Rng, fraction: float, centre: tuple[float, float]) -> Layer:
        """A DAVIS object cut out, scaled, turned, mirrored and tinted."""
        index = int(rng.choice(self._with_object))
        return self._layer(rng, self.frames[index].image, self.frames[index].mask, fraction, centre)

    def _layer(
        self, rng: Rng, image: NDArray[np.uint8], mask: NDArray[np.uint8], fraction: float, centre: tuple[float, float]
    ) -> Layer:
        """What a mask that is not empty shows, scaled, turned, mirrored and tinted."""
        box = box_of(mask)
        assert box is not None
        x0, y0, x1, y1 = box
        image, mask = image[y0:y1, x0:x1], mask[y0:y1, x0:x1]
        scale = np.sqrt(fraction * self.size**2 / max(float(mask.sum()), 1.0))
        scale = min(scale, 1.8 * self.size / max(mask.shape))
        if scale < 0.6:  # shrink by area first: the warp below reads four pixels only
            small = (max(int(mask.shape[1] * scale * 1.3), 8), max(int(mask.shape[0] * scale * 1.3), 8))
            scale *= mask.shape[1] / small[0]
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            mask = (cv2.resize(mask * np.uint8(255), small, interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)
        angle = rng.normal(0, 0.25)
        sx = scale * np.exp(rng.normal(0, 0.12)) * (-1 if rng.random() < 0.5 else 1)
        sy = scale * np.exp(rng.normal(0, 0.12))
        c, s = np.cos(angle), np.sin(angle)
        linear = np.array([[c * sx, -s * sy], [s * sx, c * sy]])
        middle = np.array([mask.shape[1] / 2, mask.shape[0] / 2])
        matrix = np.concatenate([linear, (np.array(centre) - linear @ middle)[:, None]], 1)
        side = (self.size, self.size)
        rgb = cv2.warpAffine(image, matrix, side, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        alpha = cv2.warpAffine(mask.astype(np.float32), matrix, side).astype(np.float32)
        if rng.random() < 0.6:
            tint = rng.uniform(0.7, 1.3, 3).astype(np.float32) if rng.random() < 0.5 else np.ones(3, np.float32)
            rgb = rgb * tint * shade(rng, self.size) + np.float32(rng.normal(0, 15))
        if rng.random() < 0.12:
            rgb = rgb[..., rng.permutation(3)]
        return Layer(np.clip(rgb, 0, 255).astype(np.float32), alpha)

    # --- targets and colours ------------------------------------------------------------------------------------------

    def _choose(self, rng: Rng, canvas: Canvas, sight: Sight | None) -> Sample | None:
        def usable(masks: Sequence[Pixels]) -> list[NDArray[np.uint8]]:
            binary = [(mask > 0.5).astype(np.uint8) for mask in masks]
            return [mask for mask in binary if MIN_AREA < mask.mean() < 0.9]

        if sight is not None:
            sight.disguise(canvas)
        objects, regions = usable(canvas.objects), usable(canvas.regions)
        if not objects and not regions:
            return None
        pool = [(mask, False) for mask in objects]
        spare = self.targets - len(pool)
        if regions and (spare > 0 or rng.random() < 0.2):
            keep = regions[: max(spare, 1)]
            pool += [(mask, True) for mask in keep]
        order = rng.permutation(len(pool))
        picked = [pool[order[i % len(pool)]] for i in range(self.targets)]
        masks = np.stack([mask for mask, _ in picked])
        rgb = self._colours(rng, canvas.rgb)
        thermal = None
        if sight is not None:
            rgb = expose(sight.rng, rgb, sight.condition)
            thermal = sight.measure(canvas)
        image = np.clip(rgb, 0, 255).astype(np.uint8)
        if rng.random() < 0.5:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
            thermal = None if thermal is None else thermal[:, ::-1]
        return Sample(
            np.ascontiguousarray(image),
            np.ascontiguousarray(masks),
            np.array([region for _, region in picked]),
            None if thermal is None else np.ascontiguousarray(thermal),
        )

    def _colours(self, rng: Rng, rgb: Pixels) -> Pixels:
        """Camera and light: brightness, contrast, saturation, channel gains, gamma, blur, noise, JPEG."""
        rgb = rgb * np.float32(np.exp(rng.normal(0, 0.2))) + np.float32(rng.normal(0, 10))
        if rng.random() < 0.7:
            grey = rgb.mean(-1, keepdims=True)
            rgb = grey + (rgb - grey) * np.float32(rng.uniform(0.0, 1.7) if rng.random() < 0.8 else 0.0)
        if rng.random() < 0.5:
            rgb = rgb * rng.uniform(0.8, 1.2, 3).astype(np.float32)
        if rng.random() < 0.4:
            mean = rgb.mean()
            rgb = mean + (rgb - mean) * np.float32(rng.uniform(0.5, 1.4))
        rgb = np.clip(rgb, 0, 255)
        if rng.random() < 0.3:
            rgb = 255 * (rgb / 255) ** np.float32(np.exp(rng.normal(0, 0.3)))
        if rng.random() < 0.2:
            rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.4, 1.4))
        if rng.random() < 0.3:
            rgb = rgb + rng.normal(0, rng.uniform(1, 9), rgb.shape).astype(np.float32)
        if rng.random() < 0.15:
            quality = int(rng.integers(25, 85))
            data = np.clip(rgb, 0, 255).astype(np.uint8)
            coded = cv2.imencode(".jpg", data, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            rgb = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32)
        return np.asarray(rgb, dtype=np.float32)
