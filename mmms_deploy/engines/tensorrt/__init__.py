"""TensorRT: compiling the stages of a bundle into plans, inspecting and caching them, and running them.

The files in reading order:

    api         the Python APIs of TensorRT 10.12 to 11 and TensorRT-RTX as one: import, versions, messages
    network     what TensorRT reads from an ONNX graph: matrix operations with their types, attentions
    norms       casts around norms between half tensors, which TensorRT would compute in half
    inspect     what a compiled plan computes in, read from its kernels; refuses a plan in another precision
    build       compiles one ONNX graph into a plan: options, progress, interrupts
    plan_cache  plans and timing caches on disk: identity, checksum, lock
    plans       the plans of a whole bundle, from the cache or compiled
    engine      runs plans on the GPU: the TensorRT engine that ``open_engine`` returns
    surface/    the names in the API of each supported release; tools/tensorrt_api_lists.py writes them
"""
