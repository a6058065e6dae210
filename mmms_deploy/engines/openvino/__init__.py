"""OpenVINO on the CPU.

library: the module, and what all engines of a process share.
engine: the engine and its runners, in float32 or BF16.
compile: a stage compiled, or loaded from the cache, and checked.
amx: convolutions that OpenVINO's kernels compute wrongly, above all on AMX, in a form that is right.
inspect: what a compiled graph really computes in.
"""
