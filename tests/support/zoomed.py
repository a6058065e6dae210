"""The ``paint`` network of :mod:`tests.support.toy` in crops and mirrored, by whole maps in NumPy.

Every map has the picture's size, and the disks of all clicks are drawn anew at every click, so that nothing is shared
with a session but the rules of resizing and of the boxes, which have tests of their own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmms_deploy import Click
from mmms_deploy.bundle import Manifest, Outside, ZoomRule
from mmms_deploy.evaluation.bundles import mean_by_logits
from mmms_deploy.imaging.coordinates import to_network
from mmms_deploy.imaging.preprocess import prepare
from mmms_deploy.imaging.resize import resize, resize_image
from mmms_deploy.session.zoom import Box, bounds, next_box, whole

Map = npt.NDArray[np.float32]


class ZoomedReference:
    """Answers clicks as a session with ``zoom`` and ``flip`` has to.

    Args:
        manifest: The toy bundle's.
        picture: (H0, W0, 3) uint8.
        zoom: The crop's rule; None for the whole picture.
        flip: Whether to take the mean with the mirror image.
    """

    def __init__(self, manifest: Manifest, picture: npt.NDArray[np.uint8], zoom: ZoomRule | None, flip: bool) -> None:
        self.manifest, self.picture, self.zoom, self.flip = manifest, picture, zoom, flip
        self.size = (picture.shape[0], picture.shape[1])
        self.clicks: list[Click] = []
        self.box: Box | None = None
        self.probability = np.zeros(self.size, np.float32)

    def click(self, click: Click) -> Map:
        """Take a click and return the probability (H0, W0)."""
        rule = self.manifest.clicks
        self.clicks.append(click)
        if self.zoom is None:
            self.box = whole(self.size)
        else:
            mask = bounds(self.probability > rule.threshold)
            self.box = next_box(self.box, mask, self.clicks, self.size, self.zoom)
        part = self.box.slices
        image = prepare(self.picture[part], self.manifest.image, self.manifest.size)[0]
        down = rule.previous_resize
        assert down is not None
        seen = resize_image(self.probability[part][..., None], self.manifest.size, down)[0]
        answer = self._network(image, seen, mirrored=False)
        if self.flip:
            answer = mean_by_logits(answer, self._network(image[..., ::-1], seen[:, ::-1], mirrored=True)[:, ::-1])
        kept = self.zoom is not None and self.zoom.outside is Outside.KEPT
        after = self.probability.copy() if kept else np.zeros(self.size, np.float32)
        after[part] = np.clip(resize(answer, self.box.size, rule.mask_resize), 0, 1)
        self.probability = after
        return after

    def _network(self, image: Map, seen: Map, *, mirrored: bool) -> Map:
        assert self.box is not None
        height, width = self.manifest.size
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        drawn = np.zeros((2, height, width), np.float32)
        for click in self.clicks:
            x, y = to_network(
                click.x - self.box.left,
                click.y - self.box.top,
                image=self.box.size,
                network=self.manifest.size,
                rule=self.manifest.clicks.coordinates,
            )
            x = width - 1 - x if mirrored else x
            square = (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2
            if not (x < 0 and y < 0):
                drawn[0 if click.positive else 1][square <= self.manifest.clicks.radius**2] = 1
        answer = np.clip(drawn[0] - drawn[1] + 0.25 * seen + 0.5 * image.mean(dtype=np.float64), 0, 1)
        return answer.astype(np.float32)
