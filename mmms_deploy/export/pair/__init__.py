"""From an encoder and a decoder in ONNX files, which others exported, to a bundle.

No PyTorch network is there: the two files are the reference, and what goes in and comes out of them is described.

In reading order:

- ``description``: what goes in and comes out
- ``known``: the pairs that mmms-deploy describes itself, each with the hashes of its files
- ``ort_graph``: a file of ONNX Runtime's own format as an ONNX graph
- ``files``: the two files, checked against the description
- ``graphs``: the graphs of the two stages
- ``reference``: answers clicks with the files themselves
- ``gate``: compares the graphs with the files
- ``exporter``: does all of it
"""
