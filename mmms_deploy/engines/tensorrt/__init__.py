"""TensorRT: compiling plans, inspecting and caching them, and running them."""
