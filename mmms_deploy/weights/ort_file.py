"""Weights in a file of ONNX Runtime's own format (.ort): a flatbuffer of the graph that it runs.

ONNX Runtime folds what it can into constants before it writes such a file, so the weights of linear layers lie in it
transposed, and of SAM 2's two position tables only their sum at the encoder's grid is left.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mmms_deploy.errors import CheckpointCorruptError, FileReadError
from mmms_deploy.files import read_bytes
from mmms_deploy.weights.arrays import Array, WeightArrays
from mmms_deploy.weights.flatbuffer import Table
from mmms_deploy.weights.npm import SAM2_TINY_ENCODER

SUFFIX = ".ort"
_LIMIT = 2**31
"""Bytes; flatbuffers end there."""
_IDENTIFIER = b"ORTM"
_FLOAT = 1
"""TensorDataType.FLOAT."""
_POSITIONS = "/image_encoder/trunk/Transpose_output_0"
_MODEL, _GRAPH, _INITIALIZERS = 1, 7, 0
"""Numbers of the fields of InferenceSession, Model and Graph that lead to the constants (onnxruntime's ort.fbs)."""
_NAME, _DIMS, _TYPE, _RAW = 0, 2, 3, 4
"""Numbers of the fields of Tensor."""


def begins_as_ort(head: bytes) -> bool:
    """Whether a file begins as ONNX Runtime's own format does."""
    return head[4:8] == _IDENTIFIER


def read_ort_file(path: Path) -> WeightArrays:
    """Read the weights of a network that was exported from PyTorch and saved by ONNX Runtime.

    Args:
        path: The file.

    Returns:
        The weights under their names in PyTorch, float32.

    Raises:
        CheckpointCorruptError: The file is damaged, or holds no weights under such names.
    """
    try:
        found = dict(_initializers(read_bytes(path, _LIMIT)))
    except FileReadError as error:
        raise CheckpointCorruptError(
            f"{path!s:.200} cannot be read: {error.reason}", expected="a file of ONNX Runtime's own format (.ort)"
        ) from error
    # What the flatbuffer reader meets when an offset or a length in it is wrong.
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
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
    graph = Table.root(memoryview(content)).table(_MODEL).table(_GRAPH)
    for number, tensor in enumerate(graph.tables(_INITIALIZERS)):
        shape = tensor.numbers(_DIMS)
        if tensor.whole(_TYPE) != _FLOAT or not shape:
            continue
        raw = tensor.content(_RAW)
        if len(shape) > 8 or min(shape) < 0 or len(raw) != 4 * math.prod(shape):
            raise ValueError(f"constant {number} has a shape that does not fit its bytes")
        yield bytes(tensor.content(_NAME)).decode(), np.frombuffer(raw, dtype="<f4").reshape(shape)


def _named(found: Mapping[str, Array]) -> WeightArrays:
    arrays, positions = {}, None
    for name, array in found.items():
        folded = re.fullmatch(r"/(.+)/Transpose_output_0", name)
        if name == _POSITIONS and array.ndim == 4:
            positions = array
        elif folded is not None and array.ndim == 2:
            arrays[f"{folded[1].replace('/', '.')}.weight"] = np.ascontiguousarray(array.T)
        elif re.fullmatch(r"[A-Za-z]\w*(\.\w+)+", name):
            arrays[name.removeprefix("model.")] = array
    return WeightArrays(arrays, positions)
