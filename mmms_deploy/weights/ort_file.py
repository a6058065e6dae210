"""Weights in a file of ONNX Runtime's own format (.ort): a flatbuffer of the graph that it runs.

ONNX Runtime folds what it can into constants before it writes such a file, so the weights of linear layers lie in it
transposed, and of SAM 2's two position tables only their sum at the encoder's grid is left. The wheel of ONNX Runtime
holds the flatbuffer's schema.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from mmms_deploy import telemetry
from mmms_deploy.errors import CheckpointCorruptError, CheckpointError, FileReadError
from mmms_deploy.files import read_bytes
from mmms_deploy.installed import pip_install
from mmms_deploy.weights.arrays import Array
from mmms_deploy.weights.npm import SAM2_TINY_ENCODER

SUFFIX = ".ort"
_LIMIT = 2**31
"""Bytes; flatbuffers end there."""
_IDENTIFIER = b"ORTM"
_FLOAT = 1
"""TensorDataType.FLOAT."""
_POSITIONS = "/image_encoder/trunk/Transpose_output_0"
_FORMAT = "onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession"
"""The module with the schema's root; importing it imports ONNX Runtime."""


def begins_as_ort(head: bytes) -> bool:
    """Whether a file begins as ONNX Runtime's own format does."""
    return head[4:8] == _IDENTIFIER


@dataclass(frozen=True)
class OrtWeights:
    """Weights of a network that was exported from PyTorch and saved by ONNX Runtime.

    Attributes:
        arrays: The weights under their names in PyTorch, float32.
        positions: (1, C, H, W), what a Hiera adds to its first tokens at its grid; None where there is none.
    """

    arrays: dict[str, Array]
    positions: Array | None


def read_ort_file(path: Path) -> OrtWeights:
    """Read the weights of a network that was exported from PyTorch and saved by ONNX Runtime.

    Args:
        path: The file.

    Raises:
        CheckpointCorruptError: The file is damaged, or holds no weights under such names.
        CheckpointError: ONNX Runtime's wheel lacks the schema.
    """
    try:
        found = dict(_initializers(read_bytes(path, _LIMIT)))
    except FileReadError as error:
        raise CheckpointCorruptError(
            f"{path!s:.200} cannot be read: {error.reason}", expected="a file of ONNX Runtime's own format (.ort)"
        ) from error
    # What the flatbuffer reader meets when an offset or a length in it is wrong.
    except (struct.error, ValueError, TypeError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise CheckpointCorruptError(
            f"{path} is no readable file of ONNX Runtime: {type(error).__name__}: {error}",
            expected="a complete .ort file",
            fix="copy it again and compare its hash with the source's",
        ) from error
    weights = _named(found)
    if not weights.arrays and weights.positions is None:
        raise CheckpointCorruptError(
            f"{path} holds no weights under the names of a PyTorch network",
            expected=f"an encoder that was exported from PyTorch, such as {SAM2_TINY_ENCODER}",
            fix="take the PyTorch checkpoint that it was made from",
        )
    return weights


def _initializers(content: bytes) -> Iterator[tuple[str, Array]]:
    """Yield the float32 constants of the graph by name."""
    try:
        with telemetry.off("onnxruntime"):
            format_module = import_module(_FORMAT)
    except ImportError as error:
        raise CheckpointError(
            f"reading ONNX Runtime's own format needs a module that is not installed: {error.name or error}",
            expected="onnxruntime with onnxruntime.tools.ort_format_model, and flatbuffers",
            fix=pip_install("export,cpu"),
        ) from error
    graph = format_module.InferenceSession.GetRootAsInferenceSession(content, 0).Model().Graph()
    for number in range(min(graph.InitializersLength(), len(content))):
        tensor = graph.Initializers(number)
        if tensor.DataType() != _FLOAT or not tensor.DimsLength():
            continue
        shape = tuple(int(length) for length in tensor.DimsAsNumpy())
        raw = tensor.RawDataAsNumpy()
        if len(shape) > 8 or min(shape) < 0 or isinstance(raw, int) or raw.nbytes != 4 * math.prod(shape):
            raise ValueError(f"constant {number} has a shape that does not fit its bytes")
        yield tensor.Name().decode(), np.frombuffer(raw.tobytes(), dtype="<f4").reshape(shape)


def _named(found: Mapping[str, Array]) -> OrtWeights:
    arrays, positions = {}, None
    for name, array in found.items():
        folded = re.fullmatch(r"/(.+)/Transpose_output_0", name)
        if name == _POSITIONS and array.ndim == 4:
            positions = array
        elif folded is not None and array.ndim == 2:
            arrays[f"{folded[1].replace('/', '.')}.weight"] = np.ascontiguousarray(array.T)
        elif re.fullmatch(r"[A-Za-z]\w*(\.\w+)+", name):
            arrays[name.removeprefix("model.")] = array
    return OrtWeights(arrays, positions)
