"""Graphs in float16 and bfloat16, made from the torch network and compared with float32.

In reading order:

- ``precision``: which reduced precisions there are, and how much each may differ; needs no torch
- ``network``: the network with half weights and activations, and its parts that stay float32
- ``export``: adds a precision to a bundle: export, cut, write, compare
- ``gate``: the comparisons with float32 and with the checkpoint
- ``rounded``: a half graph as a float32 graph that rounds every result, for the gate on a CPU
"""
