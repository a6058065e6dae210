"""An encoder and a decoder in files, as ONNX Runtime runs them, checked against their description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmms_deploy.bundle import sha256_of
from mmms_deploy.bundle.contract import BOX_CORNERS
from mmms_deploy.engines.onnxruntime.cpu import import_onnxruntime
from mmms_deploy.errors import ExportError
from mmms_deploy.export.encoder_file import check_places, first_line
from mmms_deploy.export.pair.description import Layout, PairDescription, Unit
from mmms_deploy.export.pair.ort_graph import begins_as_ort

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
}
"""ONNX Runtime's names of the types that inputs may have."""
AXES = {Layout.NCHW: (0, 1, 2, 3), Layout.NHWC: (0, 2, 3, 1), Layout.CHW: (1, 2, 3), Layout.HWC: (2, 3, 1)}
"""The axes of an image (1, 3, H, W) in each layout; a layout without N drops the first."""


class PairFiles:
    """The two files.

    Args:
        description: What goes in and comes out.
        encoder: The encoder's file, ``.onnx`` or ``.ort``.
        decoder: The decoder's file, likewise.
        tried: The same files, opened before, which need not be tried again; None tries them.
        optimised: Whether ONNX Runtime fuses and reorders nodes, as it does for who uses the files.

    Attributes:
        answers: Number K, height and width of the answers.
        features: Shape of the feature that each of the decoder's inputs takes, by the input's name.
        constants: Values of the decoder's other inputs, by name.
        decoder_types: Types of the decoder's inputs, by name.
        has_mask_shape: Shape of the decoder's flag for a previous answer.
        mask_shape: Shape of the decoder's mask input.

    Raises:
        ExportError: A file cannot be read or run, has another hash, or is not what the description says.
    """

    def __init__(
        self,
        description: PairDescription,
        encoder: Path,
        decoder: Path,
        *,
        tried: PairFiles | None = None,
        optimised: bool = True,
    ) -> None:
        self.description = description
        self.paths = {"encoder": encoder, "decoder": decoder}
        self._encoder = self._open("encoder", optimised)
        self._decoder = self._open("decoder", optimised)
        self._image_input = self._check_encoder()
        self.decoder_types, self.constants = self._check_decoder()
        given = description.decoder
        self.mask_shape = self._shape_of(given.mask_input)
        self.has_mask_shape = self._shape_of(given.has_mask_input)
        self.features: dict[str, tuple[int, ...]] = {} if tried is None else tried.features
        self.answers: tuple[int, int, int] = self._try() if tried is None else tried.answers

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file, as ``encoder`` and ``decoder``."""
        return {name: sha256_of(path) for name, path in self.paths.items()}

    # --- running ------------------------------------------------------------------------------------------------------

    def encode(self, image: FloatArray) -> dict[str, Array]:
        """Return the features of a prepared image.

        Args:
            image: (1, 3, H, W) float32.

        Returns:
            Arrays by the name of the decoder's input that takes them.
        """
        features = self.description.encoder.features
        outputs = list(dict.fromkeys(features.values()))
        axes = AXES[self.description.encoder.layout]
        laid = np.ascontiguousarray(
            image.transpose(axes) if len(axes) == 4 else image[0].transpose([a - 1 for a in axes])
        )
        found = dict(zip(outputs, self._encoder.run(outputs, {self._image_input: laid}), strict=True))
        return {name: found[output] for name, output in features.items()}

    def decode(
        self, features: Mapping[str, Array], points: Sequence[tuple[float, float, float]], previous: FloatArray | None
    ) -> tuple[FloatArray, FloatArray | None]:
        """Return the answers to clicks.

        Args:
            features: What :meth:`encode` returned.
            points: Every click so far: x and y in pixels of the encoder's image, and 1 on the object or 0 off it; for
                the corners of a box 2 and 3.
            previous: (h, w), the previous answer; None where there is none.

        Returns:
            The answers (K, h, w) and their scores (K,), float32; None for scores that there are none of.
        """
        given = self.description.decoder
        height, width = self.description.size
        parts = (1.0, 1.0) if given.unit is Unit.PIXELS else (width, height)
        places = [[np.float32(x) / np.float32(parts[0]), np.float32(y) / np.float32(parts[1])] for x, y, _ in points]
        kinds = {0.0: given.negative, 1.0: given.positive}
        labels = [kinds.get(float(kind), float(kind)) for _, _, kind in points]
        boxed = any(kind > 1 for _, _, kind in points)
        if given.padding is not None and not boxed:
            places, labels = [*places, [np.float32(0), np.float32(0)]], [*labels, given.padding]
        feed: dict[str, Array] = {
            given.points: np.array([places], dtype=np.float32),
            given.labels: np.array([labels], dtype=np.float32),
            **features,
            **self.constants,
        }
        if given.mask_input is not None:
            feed[given.mask_input] = np.zeros(self.mask_shape) if previous is None else previous[None, None]
        if given.has_mask_input is not None:
            feed[given.has_mask_input] = np.full(self.has_mask_shape, float(previous is not None))
        feed = {name: array.astype(self.decoder_types[name]) for name, array in feed.items()}
        wanted = [given.masks] if given.scores is None else [given.masks, given.scores]
        found = self._decoder.run(wanted, feed)
        return found[0][0].astype(np.float32), found[1][0].astype(np.float32) if len(found) > 1 else None

    def allowed(self, points: int) -> tuple[int, ...]:
        """Return which answers may be taken after that many clicks, from 0."""
        given = self.description.decoder
        return (given.first if points == 1 else given.later) or tuple(range(self.answers[0]))

    def choose(self, scores: FloatArray | None, points: int) -> int:
        """Return which answer is taken after that many clicks, from 0: the one with the highest score."""
        return 0 if scores is None else max(self.allowed(points), key=lambda place: (scores[place], -place))

    # --- checks -------------------------------------------------------------------------------------------------------

    def _open(self, part: str, optimised: bool) -> Any:
        path = self.paths[part]
        expected = getattr(self.description, part).sha256
        if not begins_as_ort(path):
            check_places(path, f"the {part}")
        if expected is not None and sha256_of(path) != expected:
            raise self._unlike(part, f"it has the SHA-256 {sha256_of(path)}", f"the file with {expected}")
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
            raise self._unlike(part, f"ONNX Runtime cannot open it: {first_line(error)}", "an ONNX file") from error

    def _check_encoder(self) -> str:
        given = self.description.encoder
        inputs = {value.name: value for value in self._encoder.get_inputs()}
        outputs = [value.name for value in self._encoder.get_outputs()]
        if len(inputs) != 1 or (given.input is not None and given.input not in inputs):
            raise self._unlike(
                "encoder",
                f"it has the inputs {', '.join(inputs) or 'none'}",
                f"one input, {given.input!r}" if given.input else "one input, the image",
            )
        if missing := [name for name in given.features.values() if name not in outputs]:
            raise self._unlike(
                "encoder", f"it has no output {', '.join(missing)}", f"outputs from {', '.join(outputs)}"
            )
        value = next(iter(inputs.values()))
        full = (1, 3, *self.description.size)
        wanted = [full[axis] for axis in AXES[given.layout]]
        if value.type != "tensor(float)" or not _fits(value.shape, wanted):
            raise self._unlike(
                "encoder",
                f"its input {value.name} is {value.type} {list(value.shape)}",
                f"tensor(float) {wanted}, as 'size' and 'encoder.layout' say",
            )
        return str(value.name)

    def _check_decoder(self) -> tuple[dict[str, np.dtype[Any]], dict[str, Array]]:
        given, features = self.description.decoder, self.description.encoder.features
        inputs = {value.name: value for value in self._decoder.get_inputs()}
        outputs = [value.name for value in self._decoder.get_outputs()]
        named = [given.points, given.labels, given.mask_input, given.has_mask_input]
        described = [*(name for name in named if name is not None), *features, *given.constants]
        if missing := [name for name in described if name not in inputs]:
            raise self._unlike("decoder", f"it has no input {', '.join(missing)}", f"inputs from {', '.join(inputs)}")
        if left := [name for name in inputs if name not in described]:
            raise self._unlike(
                "decoder",
                f"nothing is said of its inputs {', '.join(left)}",
                "every input described; one that never changes in 'decoder.constants'",
            )
        if repeated := sorted({name for name in described if described.count(name) > 1}):
            raise self._unlike("decoder", f"{', '.join(repeated)} is described twice", "each input once")
        wanted = [given.masks] if given.scores is None else [given.masks, given.scores]
        if missing := [name for name in wanted if name not in outputs]:
            raise self._unlike(
                "decoder", f"it has no output {', '.join(missing)}", f"outputs from {', '.join(outputs)}"
            )
        if unknown := [value for value in inputs.values() if value.type not in TYPES]:
            raise self._unlike(
                "decoder", f"its input {unknown[0].name} is {unknown[0].type}", f"one of {', '.join(TYPES)}"
            )
        types = {name: TYPES[value.type] for name, value in inputs.items()}
        constants = {
            name: self._constant(name, value, inputs[name].shape, types[name])
            for name, value in given.constants.items()
        }
        return types, constants

    def _constant(
        self, name: str, value: float | list[float], shape: Sequence[Any], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        numbers = np.array(value, dtype=dtype)
        try:
            return numbers.reshape([n if isinstance(n, int) else -1 for n in shape])
        except ValueError as error:
            raise self._unlike(
                "decoder", f"the constant {name} has {numbers.size} numbers", f"numbers for the shape {list(shape)}"
            ) from error

    def _shape_of(self, name: str | None) -> tuple[int, ...]:
        """Return the shape of an input for one object; empty where there is none."""
        if name is None:
            return ()
        value = next(value for value in self._decoder.get_inputs() if value.name == name)
        return tuple(n if isinstance(n, int) else 1 for n in value.shape)

    def _try(self) -> tuple[int, int, int]:
        """Run both files on grey, with one click and with two, and return the shape of the answers."""
        height, width = self.description.size
        try:
            features = self.encode(np.zeros((1, 3, height, width), dtype=np.float32))
        except Exception as error:
            raise self._unlike(
                "encoder", f"ONNX Runtime cannot run it: {first_line(error)}", "one that runs"
            ) from error
        self.features = {name: array.shape for name, array in features.items()}
        clicks = [(width / 2, height / 2, True), (width / 4, height / 4, False)]
        shapes = set()
        for count in (1, 2):
            try:
                masks, scores = self.decode(features, clicks[:count], None)
            except Exception as error:
                raise self._unlike(
                    "decoder", f"ONNX Runtime cannot run it with {count} points: {first_line(error)}", "one that runs"
                ) from error
            shapes.add((masks.shape, None if scores is None else scores.shape))
        if self.description.decoder.box:
            corners = [(1.0, 1.0, BOX_CORNERS[0]), (width / 2, height / 2, BOX_CORNERS[1])]
            try:
                masks, scores = self.decode(features, corners, None)
            except Exception as error:
                raise self._unlike(
                    "decoder", f"ONNX Runtime cannot run it with a box: {first_line(error)}", "one that takes boxes"
                ) from error
            shapes.add((masks.shape, None if scores is None else scores.shape))
        if len(shapes) > 1:
            raise self._unlike(
                "decoder", f"its answers change their shape with the clicks: {sorted(shapes, key=str)}", "one"
            )
        masks_shape, scores_shape = shapes.pop()
        if (
            len(masks_shape) != 3
            or scores_shape not in (None, masks_shape[:1])
            or (scores_shape is None and masks_shape[0] > 1)
        ):
            raise self._unlike(
                "decoder",
                f"its answers are (1, {', '.join(map(str, masks_shape))}) and their scores {scores_shape}",
                "answers (1, K, h, w), and K scores (1, K) where there are several",
            )
        count, rows, columns = masks_shape
        self._check_choice(count)
        decoder = self.description.decoder
        if decoder.fed and self.mask_shape != (1, 1, rows, columns):
            raise self._unlike(
                "decoder",
                f"its mask input is {self.mask_shape} and its answers {(rows, columns)}",
                "answers that can be fed back; or 'feedback = false' in 'decoder'",
            )
        return count, rows, columns

    def _check_choice(self, count: int) -> None:
        decoder = self.description.decoder
        wrong = [place for place in (*decoder.first, *decoder.later) if not 0 <= place < count]
        if wrong:
            raise self._unlike(
                "decoder", f"'first' or 'later' names the answer {wrong[0]}", f"numbers from 0 to {count - 1}"
            )

    def _unlike(self, part: str, given: str, expected: str) -> ExportError:
        return ExportError(
            f"the {part} {self.paths[part]!s:.200}: {given}",
            expected=expected,
            fix=f"correct '{part}' in the description, or take another file",
        )


def _fits(shape: Sequence[Any], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(n == w for n, w in zip(shape, wanted, strict=True) if isinstance(n, int))
