"""A click, and the answer to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmms_deploy.annotations.boxes import bbox_of, xyxy_of
from mmms_deploy.annotations.polygons import Polygon, polygons_of
from mmms_deploy.annotations.record import write_mask
from mmms_deploy.annotations.rle import Rle, rle_of
from mmms_deploy.arguments import real, shown
from mmms_deploy.errors import AnnotationError, ChoiceError, ClickError, NoImageError
from mmms_deploy.files import PathLike
from mmms_deploy.imaging.io import ChannelOrderLike, ImageLike, UInt8Array, load_rgb
from mmms_deploy.imaging.resize import BoolArray, FloatArray
from mmms_deploy.session.answers import Candidate, NetworkAnswer
from mmms_deploy.session.overlay import draw_overlay, other_size
from mmms_deploy.session.sheet import draw_sheet
from mmms_deploy.session.thumbnail import Drawn, captioned, png_of, thumbnail

if TYPE_CHECKING:
    from PIL import Image

    from mmms_deploy.session.canvas import Whole


@dataclass(frozen=True, slots=True)
class Click:
    """A click in the image's own pixels.

    Attributes:
        x: Column, to the right; the centre of the first column is 0.
        y: Row, downwards; the centre of the first row is 0.
        positive: True on the object, False off it.
    """

    x: float
    y: float
    positive: bool = True

    def to_list(self) -> list[float]:
        """Return ``[x, y, 1]`` or ``[x, y, 0]``, plain numbers that JSON keeps exactly.

        ``Session.set_clicks`` takes a list of these, and ``session.click(*click.to_list())`` clicks again.
        """
        return [float(self.x), float(self.y), 1 if self.positive else 0]


@dataclass(frozen=True)
class Timings:
    """Where the time of a click went, in milliseconds of wall time.

    Attributes:
        engine: Uploading the click, running the click stage, and downloading its answer; undo and redo only download.
        mask: Resizing the answer to the image's size, and cleaning the mask where the session does; where the result's
            ``mask_device`` is ``cuda``, unpacking the mask in place of the resizing, which is part of ``engine``. Of a
            network that answers for all objects at once, all of the decision between them, on either device.
        total: The whole call.
        compile: Compiling the click stage for a longer list of clicks, once an engine; not in ``engine``. 0 for
            networks that take no list, and at nearly every click.
    """

    engine: float
    mask: float
    total: float
    compile: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Return it as plain numbers by name, JSON-able."""
        return asdict(self)

    def __repr__(self) -> str:
        compiled = f", compile {_ms(self.compile)}" if self.compile else ""
        return f"Timings({_ms(self.total)} ms: engine {_ms(self.engine)}, mask {_ms(self.mask)}{compiled})"


def timings_of(start: float, fetched: float, end: float, compiled: float = 0.0) -> Timings:
    """Return where the time of a click went.

    Args:
        start: When the call began, in seconds.
        fetched: When the network's answer was there.
        end: When the mask was there.
        compiled: Seconds before ``fetched`` that went into compiling.
    """
    return Timings(
        engine=1e3 * (fetched - start - compiled),
        mask=1e3 * (end - fetched),
        total=1e3 * (end - start),
        compile=1e3 * compiled,
    )


@dataclass(frozen=True)
class ImageTimings:
    """Where the time of ``set_image`` went, in milliseconds of wall time.

    Attributes:
        prepare: Reading, checking, resizing and normalising. A GPU that resizes and normalises does so meanwhile and
            afterwards: then it is reading, checking and handing the pixels over, and the GPU's own time is in
            ``engine``.
        engine: Running the stages that take the image and its modalities.
        total: The whole call.
        found: Whether the image had been encoded before, so that no stage ran.
    """

    prepare: float
    engine: float
    total: float
    found: bool = False

    def to_dict(self) -> dict[str, float]:
        """Return the times as plain numbers by name, JSON-able."""
        return {"prepare": self.prepare, "engine": self.engine, "total": self.total}

    def __repr__(self) -> str:
        found = ", encoded before" if self.found else ""
        return f"ImageTimings({_ms(self.total)} ms: prepare {_ms(self.prepare)}, engine {_ms(self.engine)}{found})"


@dataclass(frozen=True, eq=False)
class ClickResult:
    """The answer to the clicks so far.

    Attributes:
        mask: (H0, W0) bool, read-only, at the image's own resolution: True where the object is; cleaned where the
            session was opened with ``cleaning``. All that is made of it is of this one, such as ``area`` and ``rle``;
            ``probability`` and ``above`` are the network's.
        click: The newest click; None when there is none (after an undo of the first).
        index: How many clicks led here; 0 for none. Of a network that answers for all objects at once, these are the
            clicks on the object, though those on others count too.
        timings: Where the time went.
        answer: The network's answer at its own resolution.
        crop: The part of the image in which the newest click was answered, x0, y0, x1, y1 in pixel edges:
            ``image[y0:y1, x0:x1]``; ``network_probability`` covers it. None in a session without ``zoom``, before the
            first click, and for a mask that was put in.
        candidates: All answers to the newest click of a network that gives several, in its order; the mask is that of
            the one that is ``taken``. Empty where the network gives one answer to that click, without clicks, and for a
            mask that was put in.
        mask_device: Where the mask was brought to the image's size: ``cpu``, or ``cuda`` on a GPU, which agrees with
            the CPU but for pixels within rounding of the threshold; of a network that answers for all objects at once,
            but for pixels within rounding of a tie. A mask is cleaned on the CPU in either case. What is computed of
            the answer later, such as ``probability``, is computed on the CPU.
    """

    mask: BoolArray
    click: Click | None
    index: int
    timings: Timings
    answer: NetworkAnswer
    crop: tuple[int, int, int, int] | None = None
    candidates: tuple[Candidate, ...] = ()
    mask_device: str = "cpu"
    _picture: UInt8Array | None = None
    _canvas: Whole | None = None
    _interactions: Sequence[object] = ()

    @property
    def clicks(self) -> tuple[Click, ...]:
        """All clicks that led here, oldest first; they are put together when this is read."""
        return tuple(one for one in self._interactions if isinstance(one, Click))

    @property
    def network_probability(self) -> FloatArray:
        """(h, w) float32, read-only: the network's answer at its own resolution, in [0, 1]."""
        return self.answer.probability

    @property
    def score(self) -> float | None:
        """The network's own score of its answer; None where it gives none."""
        return next((candidate.score for candidate in self.candidates if candidate.taken), None)

    @cached_property
    def probability(self) -> FloatArray:
        """(H0, W0) float32, read-only, in [0, 1]: the probability of every pixel; computed on first use.

        Of a network that answers for all objects at once it is the sigmoid of the object's logit minus the largest of
        all others, the background's among them: our definition, because its paper has none.
        """
        height, width = self.mask.shape
        if self._canvas is None:
            return self.answer.at((height, width))
        probability = self._canvas.probability()
        probability.setflags(write=False)
        return probability

    def above(self, threshold: float) -> BoolArray:
        """Return where the probability is above another threshold than the bundle's, (H0, W0) bool, a new array.

        It is not cleaned; :meth:`MaskCleaning.clean <mmms_deploy.MaskCleaning.clean>` does that.

        Args:
            threshold: A probability above 0 and below 1.

        Raises:
            AnnotationError: It is something else.
        """
        checked = _checked_threshold(threshold)
        if self._canvas is not None:
            return self._canvas.mask(checked)
        height, width = self.mask.shape
        return self.answer.above((height, width), checked)

    def __getstate__(self) -> dict[str, object]:
        # A result that goes to another process goes without the image: it is much larger than all the rest.
        return {**self.__dict__, "_picture": None}

    @cached_property
    def area(self) -> int:
        """How many pixels the object has."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def xyxy(self) -> tuple[int, int, int, int]:
        """The object's box x0, y0, x1, y1 in pixel edges: ``mask[y0:y1, x0:x1]``; zeros for an empty mask."""
        return xyxy_of(self.mask)

    @cached_property
    def bbox(self) -> tuple[int, int, int, int]:
        """The object's box x, y, width, height in pixels, as COCO writes it; zeros for an empty mask."""
        return bbox_of(self.mask)

    def rle(self, compressed: bool = True) -> Rle:
        """Return the mask as COCO's run lengths.

        Args:
            compressed: Whether as COCO's compressed text; else as numbers.

        Returns:
            ``{"size": [H0, W0], "counts": ...}``, JSON-able; :func:`mmms_deploy.annotations.mask_of_rle` and
            pycocotools draw it.
        """
        return rle_of(self.mask, compressed)

    def polygons(self, tolerance: float = 0.0) -> tuple[Polygon, ...]:
        """Return the outlines of the mask along its pixel edges, with holes.

        Args:
            tolerance: How far an outline may move, in image pixels, to have fewer corners; at 0 the polygons cover
                exactly the mask.

        Returns:
            One :class:`~mmms_deploy.annotations.Polygon` for every connected piece, the largest first; none for an
            empty mask. Coordinates are pixel edges, 0 to W0 and 0 to H0, as in COCO: half a pixel more than those of
            clicks.

        Raises:
            AnnotationError: The tolerance is no number of 0 or more.
        """
        return polygons_of(self.mask, tolerance)

    def overlay(self, image: ImageLike | None = None, channel_order: ChannelOrderLike = "rgb") -> Image.Image:
        """Draw the mask and its clicks on the image.

        Args:
            image: What to draw on, as for ``Session.set_image``. None takes the image that was set.
            channel_order: ``rgb``, or ``bgr`` where ``image`` is an array of OpenCV. The picture that is returned is
                RGB.

        Returns:
            An RGB picture of the image's size.

        Raises:
            NoImageError: No image is given, and the session has kept none: it was given features, or opened with
                ``keep_image=False``.
            ImageError: The image has another size, or is none.
        """
        return draw_overlay(self._drawn_on(image, channel_order), self.mask, self.clicks)

    def candidate_sheet(self, image: ImageLike | None = None, channel_order: ChannelOrderLike = "rgb") -> Image.Image:
        """Draw all answers of a network that gives several, side by side on small pictures of the image.

        Below each stand its number, as ``Session.choose`` takes it, its score and its area; the one that is taken has a
        green frame.

        Args:
            image: As for :meth:`overlay`.
            channel_order: As for :meth:`overlay`.

        Returns:
            An RGB picture; each of the small ones has at most 640 pixels on its longer side.

        Raises:
            ChoiceError: There are no candidates.
            NoImageError: As for :meth:`overlay`.
            ImageError: As for :meth:`overlay`.
        """
        if not self.candidates:
            raise ChoiceError(
                "this result has no candidates to draw",
                expected="the answer of a network that gives several to its newest click",
                fix="check result.candidates first; overlay() draws the mask",
            )
        picture = self._drawn_on(image, channel_order)
        if picture.shape[:2] != self.mask.shape:
            raise other_size(picture, self.mask)
        return draw_sheet(picture, self.candidates, self.clicks)

    def _drawn_on(self, image: ImageLike | None, channel_order: ChannelOrderLike) -> UInt8Array:
        """Return the picture that is drawn on, (H0, W0, 3) uint8."""
        picture = self._picture if image is None else load_rgb(image, channel_order)
        if picture is None:
            raise NoImageError(
                "this result has no picture to draw on: its session was given features, or keeps no image",
                expected="an image",
                fix="pass the image: overlay(image); or open the session with keep_image=True",
            )
        return picture

    def to_dict(self, mask: Literal["rle", "polygons"] | None = "rle") -> dict[str, Any]:
        """Return the answer as plain data, JSON-able.

        Args:
            mask: In which form the mask is in it: as COCO's compressed run lengths, as polygons along the pixel edges,
                or not at all.

        Returns:
            ``size`` [H0, W0]; ``clicks`` [[x, y, 1 or 0], ...] and ``index``, their number; ``area`` in pixels;
            ``bbox`` [x, y, width, height]; ``timings`` in milliseconds by name; ``crop`` [x0, y0, x1, y1], where there
            is one; ``scores`` of the candidates and ``taken``, which of them the mask is, where there are some; and
            ``rle``, or ``polygons`` [{"outer": [[x, y], ...], "holes": [...]}, ...].

        Raises:
            AnnotationError: There is no such form.
        """
        if not (mask is None or (isinstance(mask, str) and mask in ("rle", "polygons"))):
            raise AnnotationError(
                f"mask is {shown(mask)}",
                expected='"rle", "polygons" or None',
                fix='pass mask="rle"; result.mask is the array, and result.save(path) writes it as a picture',
            )
        forms: dict[str, Any] = {}
        if mask == "rle":
            forms["rle"] = self.rle()
        elif mask == "polygons":
            forms["polygons"] = [polygon.to_dict() for polygon in self.polygons()]
        return {
            "size": list(self.mask.shape),
            "clicks": [click.to_list() for click in self.clicks],
            "index": self.index,
            "area": self.area,
            "bbox": list(self.bbox),
            "timings": self.timings.to_dict(),
            **({} if self.crop is None else {"crop": list(self.crop)}),
            **self._scores(),
            **forms,
        }

    def _scores(self) -> dict[str, Any]:
        if not self.candidates:
            return {}
        taken = [candidate.taken for candidate in self.candidates].index(True)
        return {"scores": [candidate.score for candidate in self.candidates], "taken": taken}

    def save(self, path: PathLike, overwrite: bool = False) -> None:
        """Write the mask, whole or not at all.

        Args:
            path: The file. ``.png``, ``.bmp``, ``.tif`` or ``.tiff``: a grey picture, 255 on the object and 0 off it.
                ``.json``: size, area, box, run lengths, polygons and clicks, which
                :func:`mmms_deploy.annotations.read_annotation` reads back exactly.
            overwrite: Whether an existing file may be replaced.

        Raises:
            OutputFormatError: The path ends in another suffix.
            OutputExistsError: The file exists, and may not be replaced.
            OutputWriteError: It cannot be written.
        """
        write_mask(path, self.mask, self.clicks, overwrite=overwrite)

    def __repr__(self) -> str:
        newest, sign = self.click, "+" if self.click is None or self.click.positive else "-"
        where = "" if newest is None else f", newest {sign}({newest.x:g}, {newest.y:g})"
        return f"ClickResult({self._line()}{where})"

    def _repr_png_(self) -> bytes | None:
        """Return what a notebook shows: a small picture of mask and clicks, with a line below it."""
        try:
            drawn = thumbnail(self._picture, self.mask.shape, [Drawn(self.mask, self.clicks)])
            return png_of(captioned(drawn, f"{self._line()} (engine {_ms(self.timings.engine)})"))
        except MemoryError:
            return None  # the notebook shows the text alone

    def _line(self) -> str:
        height, width = self.mask.shape
        clicks = f"{self.index} click{'s' if self.index != 1 else ''}"
        share = f"{100 * self.area / self.mask.size:.1f} % of {width} x {height}"
        return f"{clicks}{self._chosen()}, {self.area:,} px, {share}, {_ms(self.timings.total)} ms"

    def _chosen(self) -> str:
        """Return what is said of the candidate that is taken; nothing where there is none."""
        for place, one in enumerate(self.candidates):
            if one.taken:
                return f", candidate {place} (of 0 to {len(self.candidates) - 1}, score {one.score:.3f})"
        return ""


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.{1 if milliseconds >= 10 else 2}f}"


def _checked_threshold(threshold: object) -> float:
    number = real(threshold)
    if number is None or not 0 < number < 1:
        raise AnnotationError(
            f"the threshold is {shown(threshold, 80)}",
            expected="a probability above 0 and below 1",
            fix="pass a number, such as above(0.7)",
        )
    return number


def checked_click(x: object, y: object, positive: object, size: tuple[int, int]) -> Click:
    """Return a click, checked.

    Args:
        x: Column; must be a finite number from -0.5 to W0 - 0.5, the far edge excluded.
        y: Row; likewise, up to H0 - 0.5.
        positive: Must be a bool, 1 or 0; 1.0 and 0.0 count, as in a row of floats.
        size: (H0, W0) of the image.

    Raises:
        ClickError: One of them has another type or value.
    """
    height, width = size
    given = f"click ({shown(x, 80)}, {shown(y, 80)})"
    numbers = []
    for value in (x, y):
        number = real(value)
        if number is None:
            pair = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 1)
            fix = "pass the numbers, not a pair: click(*point)" if pair else "pass click(x, y)"
            raise ClickError(given, expected="two numbers, x and y in image pixels", fix=fix)
        numbers.append(number)
    kind = _checked_kind(positive, given)
    column, row = numbers
    if not (math.isfinite(column) and math.isfinite(row)):
        raise ClickError(given, expected="finite numbers", fix="check how the click was computed")
    if not (-0.5 <= column < width - 0.5 and -0.5 <= row < height - 0.5):
        swapped = -0.5 <= row < width - 0.5 and -0.5 <= column < height - 0.5
        raise ClickError(
            f"{given} is outside of the image",
            expected=f"-0.5 <= x < {width - 0.5} and -0.5 <= y < {height - 0.5} (x is the column, y the row)",
            fix="click inside the image" + (", and pass (x, y), not (row, column)" if swapped else ""),
            command_fix="click inside the image" + (", and pass X,Y, not row,column" if swapped else ""),
        )
    return Click(column, row, kind)


def _checked_kind(positive: object, given: str) -> bool:
    """Return whether a click is positive, checked: True or 1, False or 0; a row of floats says 1.0 and 0.0."""
    number = isinstance(positive, bool | np.bool_ | int | np.integer | float | np.floating)
    if number and positive in (0, 1):
        return bool(positive)
    boxes = number and positive in (2, 3)
    raise ClickError(
        f"{given} with positive={shown(positive, 80)}" + (", the corner of a box to SAM" if boxes else ""),
        expected="True or 1 on the object, False or 0 off it"
        + (": this network takes clicks, no boxes" if boxes else ""),
        fix="click inside the box instead" if boxes else "pass positive=True or positive=False",
    )
