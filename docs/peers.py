"""What docs/differences.md says of second derivatives, asked of the libraries themselves.

    python -m pip install numpy matplotlib Pillow mygrad==2.5.0 micrograd==0.1.0 tinygrad==0.14.0 dezero==0.0.13
    python docs/peers.py

Take an environment of its own: nothing in tinygen needs these. Each line is one library and one question: the second
derivative of a sum over f(x), by the library, against central differences of its own first derivative.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

rng = np.random.default_rng(0)
PICTURE, FILTER, BATCH = rng.normal(size=(2, 1, 5, 5)), rng.normal(size=(2, 1, 3, 3)), rng.normal(size=(6, 3))


def error(gradient: Callable[[np.ndarray], np.ndarray], second: np.ndarray, at: np.ndarray) -> str:
    """The largest error of ∂Σg²/∂x, relative to the largest entry, against differences of g."""
    numbers = np.zeros_like(at)
    for i in np.ndindex(*at.shape):
        more, less = at.copy(), at.copy()
        more[i] += 1e-5
        less[i] -= 1e-5
        numbers[i] = ((gradient(more) ** 2).sum() - (gradient(less) ** 2).sum()) / 2e-5
    return f"off by {np.abs(second - numbers).max() / np.abs(numbers).max():.1e}"


def tinygen_conv2d_in_the_filter() -> str:
    """∂²/∂w² of Σ conv(x, w)³."""
    import tinygen as tg
    import tinygen.nn.functional as F

    def gradient(w: np.ndarray, create: bool = False) -> Any:
        w = tg.tensor(w, requires_grad=True)
        return w, tg.grad((F.conv2d(tg.tensor(PICTURE), w) ** 3).sum(), [w], create_graph=create)[0]

    w, g = gradient(FILTER, create=True)
    return error(lambda w: gradient(w)[1].numpy(), tg.grad((g * g).sum(), [w])[0].numpy(), FILTER)


def tinygen_batch_norm() -> str:
    """∂²/∂x² of Σ norm(x)³."""
    import tinygen as tg
    import tinygen.nn.functional as F

    def gradient(x: np.ndarray, create: bool = False) -> Any:
        x = tg.tensor(x, requires_grad=True)
        return x, tg.grad((F.batch_norm(x, None, None, training=True) ** 3).sum(), [x], create_graph=create)[0]

    x, g = gradient(BATCH, create=True)
    return error(lambda x: gradient(x)[1].numpy(), tg.grad((g * g).sum(), [x])[0].numpy(), BATCH)


def _dezero() -> Any:
    setattr(np, "int", int)  # noqa: B010  (dezero 0.0.13 needs it, and NumPy has not had it since 1.24)
    import dezero.functions as F
    from dezero import Variable

    return F, Variable


def dezero_conv2d_in_the_filter() -> str:
    """∂²/∂w² of Σ conv(x, w)³."""
    F, Variable = _dezero()

    def gradient(w: np.ndarray, create: bool = False) -> Any:
        w = Variable(w)
        F.sum(F.conv2d(Variable(PICTURE), w) ** 3).backward(create_graph=create)
        return w, w.grad

    w, g = gradient(FILTER, create=True)
    w.cleargrad()
    F.sum(g * g).backward()
    return error(lambda w: gradient(w)[1].data, w.grad.data, FILTER)


def dezero_batch_norm() -> str:
    """∂²/∂x² of Σ norm(x)³."""
    F, Variable = _dezero()

    def gradient(x: np.ndarray, create: bool = False) -> Any:
        x = Variable(x)
        F.sum(F.batch_nrom(x, np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)) ** 3).backward(create_graph=create)
        return x, x.grad

    x, g = gradient(BATCH, create=True)
    x.cleargrad()
    F.sum(g * g).backward()
    return error(lambda x: gradient(x)[1].data, x.grad.data, BATCH)


def mygrad_anything() -> str:
    """What a gradient is."""
    import mygrad

    x = mygrad.tensor(BATCH)
    (x**3).sum().backward()
    return f"x.grad is a {type(x.grad).__name__}, which has no graph"


def micrograd_anything() -> str:
    """What a gradient is."""
    from micrograd.engine import Value

    x = Value(2.0)
    (x**3).backward()
    return f"x.grad is a {type(x.grad).__name__}, which has no graph"


def tinygrad_conv2d_in_the_filter() -> str:
    """∂²/∂w² of Σ conv(x, w)³."""
    from tinygrad import Tensor, dtypes

    def gradient(w: np.ndarray) -> Any:
        w = Tensor(w, dtype=dtypes.float64)
        return w, (Tensor(PICTURE, dtype=dtypes.float64).conv2d(w) ** 3).sum().gradient(w)[0]

    w, g = gradient(FILTER)
    return error(lambda w: gradient(w)[1].numpy(), (g * g).sum().gradient(w)[0].numpy(), FILTER)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, question in list(globals().items()):
        if callable(question) and name.split("_")[0] in ("tinygen", "dezero", "mygrad", "micrograd", "tinygrad"):
            try:
                answer = question()
            except Exception as failure:
                answer = f"{type(failure).__name__}: {failure}"
            print(f"{name.replace('_', ' ')}: {answer}")
