"""No TensorRT for RTX is on the GPU host, also where this environment has it."""

raise ModuleNotFoundError("No module named 'tensorrt_rtx'", name="tensorrt_rtx")
