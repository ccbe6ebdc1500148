"""The labelling mathematics for arrays that live on a GPU.

Each module here has the contract of one on the processor, and returns the same numbers: the same neighbours, the same
sparse distances, the same labels. What is exact there is exact here, because the kernels repeat the sums in the same
order; a tensor core only says what is certainly far away.

`device` says what the kernels need of the machine: an array module and a way to launch a kernel from `sources`. On a
GPU that is CuPy; the tests put a processor in its place and run the same sources there. Nothing here imports CuPy or
cuML before it is used.
"""
