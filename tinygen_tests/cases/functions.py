"""Cases of public functions that are made of several ops, which the registry does not know.

Each op is right by itself, and PyTorch judges the functions in float64. What is checked of these is what they are put
together from: constants that keep float32 and float16, layouts that one op hands to the next.
"""

import numpy as np

import tinygen as tg
import tinygen.nn.functional as F
from tinygen.testing import Case, booleans, declare, distinct, integers, positive, real

IMAGES = (2, 2, 3, 3)


def probability(*shape):
    return real(*shape, low=0.1, high=0.9)


def targets(*shape):
    """Class indices, the last one ignored."""
    t = integers(*shape, high=3).draw(np.random.default_rng(0))
    t.reshape(-1)[-1] = -100
    return t


def max_over_rows(x):
    return tg.max(x, 1)[0]


def pieces_reversed(x):
    return tg.cat(x.split(2, -1)[::-1], -1)


CASES = {
    tg.var: [Case(real(2, 3), 1), Case(real(*IMAGES), (0, 2), 0, True)],
    tg.std: [Case(real(2, 3), 1), Case(real(*IMAGES), (0, -1), keepdim=True)],
    tg.prod: [Case(real(2, 3), 1), Case(real(1, 2, 2, 2))],
    tg.norm: [Case(real(2, 3)), Case(real(1, 2, 2, 2), 2, 1), Case(positive(2, 3), 3, 0)],
    tg.clamp: [Case(real(2, 3), -1, 1), Case(real(3), 0)],
    max_over_rows: [Case(distinct(2, 3)), Case(distinct(1, 2, 2, 2))],
    tg.gather: [Case(real(2, 3), 1, integers(2, 4, high=3))],
    tg.scatter_add: [Case(real(2, 3), 1, integers(2, 4, high=3), real(2, 4))],
    tg.index_select: [Case(real(1, 2, 2, 2), 2, integers(3, high=2))],
    tg.masked_fill: [Case(real(2, 3), booleans(3), 1.5)],
    tg.tril: [Case(real(2, 3), 1), Case(real(1, 2, 2, 2))],
    pieces_reversed: [Case(real(2, 3)), Case(real(1, 2, 2, 3))],
    tg.matmul: [Case(real(3), real(2, 3, 2)), Case(real(2, 2, 3), real(3))],
    tg.outer: [Case(real(2), real(3))],
    F.linear: [Case(real(1, 2, 2, 3), real(2, 3), real(2))],
    F.conv2d: [
        Case(real(1, 2, 3, 4), real(2, 1, 2, 2), real(2), 2, 1, 1, 2),
        Case(real(2, 3, 3), real(1, 2, 2, 1), None, 1, "same"),
    ],
    F.conv_transpose2d: [Case(real(1, 2, 2, 2), real(2, 1, 2, 2), real(2), 2, 1, 1, 2)],
    F.max_pool2d: [Case(distinct(1, 2, 4, 3), 2, 1, 1), Case(distinct(1, 3, 3), (2, 1), ceil_mode=True)],
    F.max_unpool2d: [Case(real(1, 1, 2, 2), np.array([[[[0, 3], [9, 15]]]]), 2)],
    F.avg_pool2d: [Case(real(1, 2, 4, 3), 2, 1, 1), Case(real(1, 3, 3), 2, 2, 0, True)],
    F.adaptive_avg_pool2d: [Case(real(1, 2, 4, 3), 2)],
    F.interpolate: [Case(real(1, 2, 2, 3), (3, 4)), Case(real(1, 2, 2, 3), None, 2, "bilinear")],
    F.pad: [Case(real(1, 2, 2, 3), (1, -1, 2, 0), "constant", 1.5), Case(real(2, 3, 3), (1, 2, 0, 1), "reflect")],
    F.unfold: [Case(real(1, 2, 3, 3), 2, 1, 1, 2)],
    F.batch_norm: [Case(real(*IMAGES), None, None, real(2), real(2), True, eps=0.1)],
    F.layer_norm: [Case(real(2, 2, 3), (2, 3), real(2, 3), real(2, 3), 0.1)],
    F.group_norm: [Case(real(1, 4, 2, 1), 2, real(4), real(4), 0.1)],
    F.instance_norm: [Case(real(*IMAGES), None, None, real(2), real(2), eps=0.1)],
    F.normalize: [Case(real(2, 3)), Case(real(1, 2, 2, 2), 3.0, 1)],
    F.scaled_dot_product_attention: [
        Case(real(1, 2, 2, 2), real(1, 2, 3, 2), real(2, 3, 1), real(2, 3)),
        Case(real(3, 2), real(3, 2), real(3, 2), is_causal=True),
    ],
    F.embedding: [Case(integers(2, 3, high=4), real(4, 2))],
    F.gelu: [Case(real(2, 3)), Case(real(1, 2, 2, 2), "tanh")],
    F.mse_loss: [Case(real(2, 3), real(2, 3))],
    F.l1_loss: [Case(real(2, 3), real(2, 3, low=3, high=4))],
    F.smooth_l1_loss: [Case(real(2, 3), real(2, 3, low=3.5, high=5), beta=0.5)],
    F.huber_loss: [Case(real(2, 3), real(2, 3), "sum", 5.0)],
    F.binary_cross_entropy: [Case(probability(2, 3), probability(2, 3), positive(3))],
    F.binary_cross_entropy_with_logits: [Case(real(2, 3), probability(2, 3), positive(3), pos_weight=positive(3))],
    F.kl_div: [
        Case(real(2, 3), probability(2, 3), reduction="batchmean"),
        Case(real(2, 3), real(2, 3), log_target=True),
    ],
    F.nll_loss: [Case(real(4, 3), targets(4), positive(3)), Case(real(1, 3, 2, 2), targets(1, 2, 2), reduction="sum")],
    F.cross_entropy: [
        Case(real(4, 3), targets(4), positive(3), label_smoothing=0.1),
        Case(real(2, 3), probability(2, 3), label_smoothing=0.2),
    ],
}
AMPLIFY = {F.normalize, F.scaled_dot_product_attention}  # numbers that cancel to 0 leave more of float16's rounding
DECLARATIONS = [
    declare(f, *cases, dtypes=("float32", "float16"), slack=4 if f in AMPLIFY else 1) for f, cases in CASES.items()
]
