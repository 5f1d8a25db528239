"""The cases of every registered op, by the file that it is in: cases/pooling.py declares those of ops/pooling.py.

An op without cases here fails tinygen_tests/test_every_op.py, which names it.
"""

from tinygen_tests.cases import (
    activations,
    attention,
    axis_windows,
    collective,
    comparison,
    conversion,
    convolution,
    elementwise,
    embedding,
    indexing,
    layer_normalization,
    linear,
    losses,
    matmul,
    padding,
    pooling,
    reduction,
    resampling,
    shape,
    softmax,
    standardization,
    unfold,
)

FAMILIES = (
    elementwise,
    comparison,
    activations,
    reduction,
    shape,
    conversion,
    indexing,
    matmul,
    softmax,
    attention,
    layer_normalization,
    linear,
    unfold,
    convolution,
    axis_windows,
    pooling,
    padding,
    resampling,
    standardization,
    losses,
    embedding,
    collective,
)
DECLARATIONS = [declaration for family in FAMILIES for declaration in family.DECLARATIONS]
