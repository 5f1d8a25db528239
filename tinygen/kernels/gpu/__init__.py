"""The GPU's own kernels: CUDA C, one launch where array operations would take several.

A training step of a small network is bound by the number of launches and by what a launch costs in Python, not by
arithmetic. So each formula that tinygen computes often has one kernel here: pointwise formulas (pointwise.py), softmax
(rows.py), normalisation (normalization.py), convolution (convolution.py), optimisers over all parameters at once
(parameters.py); matrix products go to cuBLAS itself (blas.py). What they compute is defined in :mod:`tinygen.ops` and
:mod:`tinygen.optim`, in array operations that run on any library and that the tests hold the kernels to.

Every function here returns None where it does not apply (another dtype, another layout, the kernels switched off by
``TINYGEN_GPU_KERNELS=0``); the caller then goes on with array operations. Kernels take dense arrays of float32 or
float64 in C order.
"""
