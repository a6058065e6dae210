"""``mmms-bench``: what a bundle costs on this machine. Every number comes from a measurement of that run.

In reading order:

- ``run``: one run from the bundle's folder to its report
- ``workload``: what is measured: networks by name, images and clicks
- ``timed_session``: a session whose calls are timed, on the host and by a ``StageTimer`` on the GPU
- ``measure``: images, clicks, several sessions, CUDA graphs, numbers of threads
- ``state_copies``: what copying the state costs a click on a GPU
- ``annotators``: many annotators on one engine, with and without time to think
- ``eager``: the same network in PyTorch, for comparison
- ``memory``: RAM in each phase, and memory on the GPU
- ``arithmetic``: operations of each stage, and their share of the machine's peak
- ``peak``: how fast this machine multiplies matrices
- ``report``: the results as JSON, with statistics of every metric
- ``compare``: a report against an older one
- ``papers``: figures that papers published
- ``text``, ``page``: the results on the terminal and as an HTML page
- ``errors``: the named errors of measuring
"""
