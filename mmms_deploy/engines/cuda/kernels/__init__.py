"""Kernels of this package, for what no library's stage does on the GPU.

- ``driver``: the calls of the CUDA driver that load and launch kernels; every return code is checked.
- ``module``: loads a module of kernels once on a GPU, and launches them on a stream, also inside a capture.
"""
