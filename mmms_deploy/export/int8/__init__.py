"""Graphs in 8 bits, for CPUs: calibrated on clicks, with the layers in float32 that masks need, and compared by masks.

In reading order:

- ``precision``: what a quantised graph may differ from float32; needs no torch
- ``calibration``: what the stages are called with while clicks are answered in float32
- ``quantisation``: a graph quantised by NNCF, in the form that ONNX Runtime and OpenVINO both compute fast
- ``layers``: which layers of a graph are quantised, and how to give some of them back their float32 inputs
- ``replaying``: masks of a bundle with other graphs in the place of its own
- ``selection``: which layers have to stay in float32
- ``export``: adds quantised graphs to a bundle: calibrate, quantise, choose, write, compare
"""
