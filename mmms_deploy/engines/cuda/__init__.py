"""What the CUDA engines share: one GPU, its memory, CUDA graphs, and the resources of each session.

In reading order:

- ``options``: :class:`CudaOptions`, the settings of an engine.
- ``runtime``: the CUDA runtime; it checks every return code.
- ``devices``: which GPUs can be used and, if none, why not.
- ``memory``: allocations, their account and budget, spare buffers, pinned memory.
- ``executor``: what a library has to offer: programs (shared) and executors (one for each session).
- ``layout``: which tensors of a bundle need a fixed address, and how many bytes a session takes.
- ``values``: the tensors that a session holds, and the binding buffers at fixed addresses.
- ``graph``: one captured CUDA graph.
- ``kernels``: kernels of this package, loaded once and launched on a stream.
- ``finisher``: masks of answers at the image's size, made on the GPU.
- ``decider``: which of several objects has each pixel of the image, decided on the GPU.
- ``stage``: one stage of a session: copies in, run, copies out; captured as a CUDA graph for a click.
- ``resources``: all that one session holds on the GPU.
- ``runner``: the session's side: upload, run, download.
- ``engine``: opens runners within the budget; the engines of the libraries derive from it.
"""
