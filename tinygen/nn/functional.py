"""``F``: the functions of :mod:`tinygen.ops` that networks are made of, under PyTorch's names, in one place.

    import tinygen.nn.functional as F

Each is documented where it is defined, with its formula, shapes and derivative.
"""

from tinygen.arguments import explain_all as _explain_all
from tinygen.ops.activations import elu, gelu, leaky_relu, logsigmoid, relu, silu, softplus
from tinygen.ops.attention import scaled_dot_product_attention
from tinygen.ops.convolution import conv2d, conv_transpose2d
from tinygen.ops.cross_entropy import cross_entropy, nll_loss
from tinygen.ops.dropout import dropout
from tinygen.ops.elementwise import sigmoid, tanh
from tinygen.ops.embedding import embedding, one_hot
from tinygen.ops.linear import linear
from tinygen.ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from tinygen.ops.normalization import batch_norm, group_norm, instance_norm, layer_norm, normalize
from tinygen.ops.padding import pad
from tinygen.ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_unpool2d
from tinygen.ops.resampling import interpolate, pixel_shuffle, pixel_unshuffle
from tinygen.ops.softmax import log_softmax, softmax
from tinygen.ops.unfold import fold, unfold

# fmt: off
__all__ = [
    "linear", "conv2d", "conv_transpose2d", "unfold", "fold",
    "max_pool2d", "max_unpool2d", "avg_pool2d", "adaptive_avg_pool2d",
    "interpolate", "pixel_shuffle", "pixel_unshuffle", "pad",
    "relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "sigmoid", "logsigmoid", "tanh", "softmax", "log_softmax",
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "normalize",
    "scaled_dot_product_attention", "embedding", "one_hot", "dropout",
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "nll_loss", "kl_div",
]
# fmt: on

_explain_all(globals(), __all__)
