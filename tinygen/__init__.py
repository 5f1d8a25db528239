"""tinygen: a deep-learning framework from scratch, on NumPy and CuPy.

``import tinygen as tg`` gives tensors and functions under PyTorch's names; ``tg.nn``, ``tg.optim``, ``tg.models``,
``tg.metrics``, ``tg.data``, ``tg.training`` and ``tg.viz`` build on them, each imported when it is first named.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from tinygen import cuda
from tinygen import methods as _methods  # first: hangs the ops on Tensor
from tinygen.anomaly import AnomalyError, detect_anomaly
from tinygen.arguments import explain_all as _explain_all
from tinygen.autograd import grad
from tinygen.backend import (
    DeviceError,
    device,
    float16,
    float32,
    float64,
    get_default_device,
    get_default_dtype,
    int32,
    int64,
    set_default_device,
    set_default_dtype,
    uint8,
)
from tinygen.backend import bool_ as bool
from tinygen.creation import (
    arange,
    as_tensor,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from tinygen.cuda.graphs import capture
from tinygen.op import op
from tinygen.ops.activations import relu
from tinygen.ops.comparison import (
    eq,
    ge,
    gt,
    isfinite,
    isnan,
    le,
    logical_not,
    lt,
    ne,
)
from tinygen.ops.elementwise import (
    abs,
    add,
    ceil,
    clamp,
    cos,
    div,
    erf,
    exp,
    expm1,
    floor,
    log,
    log1p,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reciprocal,
    round,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from tinygen.ops.indexing import gather, index_select, masked_fill, scatter_add, tril, triu
from tinygen.ops.matmul import einsum, matmul, outer
from tinygen.ops.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    cumsum,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    std,
    sum,
    var,
)
from tinygen.ops.shape import (
    broadcast_to,
    cat,
    chunk,
    flatten,
    flip,
    moveaxis,
    narrow,
    permute,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    transpose,
    unbind,
    unflatten,
    unsqueeze,
)
from tinygen.ops.softmax import log_softmax, softmax
from tinygen.random import (
    Generator,
    default_generator,
    manual_seed,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from tinygen.recording import enable_grad, is_grad_enabled, no_grad
from tinygen.serialization import CheckpointError, load, save
from tinygen.tensor import Tensor

if TYPE_CHECKING:
    from tinygen import data, distributions, metrics, models, nn, optim, safetensors, testing, training, viz

__version__ = "0.1.0"

_explain_all(globals(), [name for name in globals() if not name.startswith("_")])

_PARTS = ("data", "distributions", "metrics", "models", "nn", "optim", "safetensors", "testing", "training", "viz")


def __getattr__(name: str) -> _Any:
    # `import tinygen` stays quick: a part is imported by the first `tg.PART`.
    if name in _PARTS:
        return _import_module(f"tinygen.{name}")
    raise AttributeError(f"module 'tinygen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])
