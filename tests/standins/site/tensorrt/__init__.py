"""Stands in for TensorRT."""

import os

_version = os.environ.get("MMMS_REHEARSAL_TENSORRT", "11.4.0.106")
if _version == "off":
    raise ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")

from tests.standins.tensorrt import TensorRtStandIn  # noqa: E402

globals().update({name: item for name, item in vars(TensorRtStandIn(_version)).items() if isinstance(item, type)})
__version__ = _version
