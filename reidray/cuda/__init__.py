"""The labelling mathematics for arrays on a GPU.

Each module has the interface of its counterpart for the CPU and returns the same numbers: the same neighbours, the same
sparse distances, the same labels. Exact results are exact here too, because the kernels add up in the same order.
Tensor cores only exclude what is certainly far away.

`device` defines what the kernels need of a machine: an array module, and a way to launch a kernel from `sources`. On a
GPU that is CuPy; the tests run the same sources on a CPU. CuPy and cuML are imported when they are first used.
"""
