"""Everything that CUDA engines share: devices, memory, captured graphs, and one session's resources."""
