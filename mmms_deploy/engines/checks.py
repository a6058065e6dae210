"""Checks of what a caller gives: its type first, so that a mistake has a name instead of an error from deep inside."""

from __future__ import annotations

import operator

from mmms_deploy import arguments
from mmms_deploy.errors import EngineError

_LONGEST = 60
ALIASES = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "ort": "onnxruntime",
    "onnx": "onnxruntime",
    "ov": "openvino",
    "trt": "tensorrt",
    "float32": "fp32",
    "f32": "fp32",
    "float16": "fp16",
    "f16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "8bit": "int8",
    "i8": "int8",
    "quantized": "int8",
}
"""What others call the devices, engines and precisions."""


def shown(value: object) -> str:
    """Return a value and its type for a message, never long."""
    return f"{arguments.shown(value, _LONGEST)} ({type(value).__name__})"


def checked_name(what: str, value: object, *, expected: str, fix: str, command_fix: str) -> str:
    """Return a text as it is.

    Raises:
        EngineError: It is something else.
    """
    if not isinstance(value, str):
        raise EngineError(
            f"{what} {shown(value)} was requested", expected=f"a text: {expected}", fix=fix, command_fix=command_fix
        )
    return value


def checked_whole(
    what: str, value: object, *, least: int, most: int | None = None, fix: str, command_fix: str | None = None
) -> int:
    """Return a whole number as an ``int``; NumPy's whole numbers are some too, booleans and texts are not.

    Raises:
        EngineError: It is something else, or out of range.
    """
    # NumPy's booleans are no indices, and Python's are.
    number = None
    if not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            number = None
    if number is None or number < least or (most is not None and number > most):
        span = f"{least} or more" if most is None else f"from {least} to {most}"
        huge = number is not None and number.bit_length() > 128
        given = shown(value) if number is None else f"of {number.bit_length()} bits" if huge else str(number)
        raise EngineError(f"{what} {given}", expected=f"a whole number, {span}", fix=fix, command_fix=command_fix)
    return number


def checked_flag(what: str, value: object, *, fix: str, command_fix: str | None = None) -> bool:
    """Return a boolean as a ``bool``; NumPy's are some too.

    Raises:
        EngineError: It is something else.
    """
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise EngineError(f"{what} {shown(value)}", expected="True or False", fix=fix, command_fix=command_fix)
