"""Stand-ins of what only a GPU host or a network has. Each takes what the real one takes, and refuses what it refuses.

cuda: the CUDA runtime, as cuda-python offers it, on host memory.
cuda_driver: the CUDA driver's calls for kernels, on that memory.
kernels: models in NumPy of the package's kernels, which it runs.
tensorrt: TensorRT's Python API; its plans run on ONNX Runtime's CPU and the CUDA stand-in.
onnxruntime: ONNX Runtime with a CUDA provider, which computes on the CPU and on the CUDA stand-in.
hub: the Hugging Face hub, a server on 127.0.0.1 for the real client.
cvat_server: a CVAT server with a task and a function's queue, on 127.0.0.1 for the real cvat-cli.
cvat_sdk: the part of cvat_sdk that the agent's function calls.
npm_registry: an npm registry, a server on 127.0.0.1 for our own client.
triton_backend: what Triton's Python backend gives a model.py.
cuda_libraries: CUDA's shared libraries, on which ONNX Runtime's real CUDA provider loads; their C is beside it.
site: the folder that puts the first three in the place of the real ones in a process of its own.
"""
