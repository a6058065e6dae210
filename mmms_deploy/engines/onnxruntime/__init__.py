"""ONNX Runtime, on the CPU and with its CUDA provider.

In reading order:

- ``cpu``: the engine on the CPU.
- ``libraries``: loads the CUDA libraries that the CUDA provider needs, and finds out which are missing.
- ``binding``: a loaded stage as a program, and one session's IO binding to fixed addresses.
- ``cuda``: the engine on CUDA: one stream, one thread, ONNX Runtime's own CUDA graphs.
"""
