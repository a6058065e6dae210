"""TensorRT-RTX as the tests of what it compiles know it."""

PINNED = "1.7.1.116"
"""The version whose list of kernels, which has no fixed form, the tests read."""
