"""A bundle behind NVIDIA Triton: model repositories in two forms, and the code that answers in one of them.

- ``repository``: writes a model repository (``mmms-serve triton``)
- ``python_form``: the form for servers with the Python backend: Triton's sequences are sessions
- ``stages_form``: the form for the ONNX Runtime and TensorRT backends: Triton keeps the click stage's state
- ``norms``: casts around norms in half graphs for the TensorRT backend
- ``pbtxt``: the text of ``config.pbtxt``
- ``model``: the ``model.py`` of the first form; only this file is copied into a repository
- ``serving``, ``requests``, ``sequences``: what it does
- ``server``: the server that nvidia-pytriton carries, on this machine's loopback address
- ``conformance``: this door for the comparison of all doors

docs/triton.md describes requests and answers.
"""
