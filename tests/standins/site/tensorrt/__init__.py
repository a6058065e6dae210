"""Stands for TensorRT."""

import os

_version = os.environ.get("MMMS_REHEARSAL_TENSORRT", "11.4.0.106")
if _version == "off":
    raise ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")

from tests.standins.trt import Library  # noqa: E402

globals().update(vars(Library(_version)))
