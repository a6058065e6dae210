"""Weights in a file of ONNX Runtime's own format (.ort): a flatbuffer of the graph that it runs.

ONNX Runtime folds what it can into constants before it writes such a file, so the weights of linear layers lie in it
transposed, and of SAM 2's two position tables only their sum at the encoder's grid is left. The wheel of ONNX Runtime
holds the flatbuffer's schema.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmms_deploy import telemetry
from mmms_deploy.errors import CheckpointCorruptError, CheckpointError, FileReadError
from mmms_deploy.files import read_bytes
from mmms_deploy.installed import pip_install
from mmms_deploy.models.hiera import tables_of_map

SUFFIX = ".ort"
_LIMIT = 2**31
"""Bytes; flatbuffers end there."""
_IDENTIFIER = b"ORTM"
_FLOAT = 1
"""TensorDataType.FLOAT."""
_POSITIONS = "/image_encoder/trunk/Transpose_output_0"
_FORMAT = "onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession"
"""The module with the schema's root; importing it imports ONNX Runtime."""
_WINDOW = 8
"""Side of the windows of the first stage, in all of SAM 2's encoders."""


def begins_as_ort(head: bytes) -> bool:
    """Whether a file begins as ONNX Runtime's own format does."""
    return head[4:8] == _IDENTIFIER


def read_ort_file(path: Path) -> dict[str, Tensor]:
    """Read the weights of a network that was exported from PyTorch and saved by ONNX Runtime.

    Args:
        path: The file.

    Returns:
        The weights under their names in PyTorch.

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
    state = _named(found, path)
    if not state:
        raise CheckpointCorruptError(
            f"{path} holds no weights under the names of a PyTorch network",
            expected="an encoder that was exported from PyTorch, such as sam2_hiera_tiny_encoder.with_runtime_opt.ort",
            fix="take the PyTorch checkpoint that it was made from",
        )
    return state


def _initializers(content: bytes) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
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


def _named(found: dict[str, np.ndarray[Any, np.dtype[np.float32]]], path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, array in found.items():
        tensor = torch.from_numpy(array.copy())
        folded = re.fullmatch(r"/(.+)/Transpose_output_0", name)
        if name == _POSITIONS and tensor.ndim == 4:
            state |= _tables(tensor, path)
        elif folded is not None and tensor.ndim == 2:
            state[f"{folded[1].replace('/', '.')}.weight"] = tensor.T.contiguous()
        elif re.fullmatch(r"[A-Za-z]\w*(\.\w+)+", name):
            state[name.removeprefix("model.")] = tensor
    return state


def _tables(summed: Tensor, path: Path) -> dict[str, Tensor]:
    try:
        table, window = tables_of_map(summed, _WINDOW)
    except (ValueError, RuntimeError) as error:
        raise CheckpointCorruptError(
            f"{path}: its positions are none of SAM 2's: {error}",
            expected="the sum of a table, enlarged, and a window's table, repeated",
            fix="copy it again and compare its hash with the source's",
        ) from error
    return {"image_encoder.trunk.pos_embed": table, "image_encoder.trunk.pos_embed_window": window}
