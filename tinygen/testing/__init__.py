"""What it takes to trust a gradient: checks of any function of tensors, ours or a user's own.

>>> import tinygen as tg
>>> tg.testing.check_grad(lambda x: (x * x).exp(), tg.randn(2, 3, rng=tg.Generator(0)))
"""

from typing import Any

from tinygen.testing.evaluation import GradientError
from tinygen.testing.gradcheck import check_adjoint, check_grad
from tinygen.testing.strict import count_syncs, strict_cupy
from tinygen.testing.values import booleans, distinct, integers, positive, real


def __getattr__(name: str) -> Any:
    """``tg.testing.strategies``, imported when first asked for: it needs Hypothesis."""
    if name == "strategies":
        import importlib

        return importlib.import_module("tinygen.testing.strategies")
    raise AttributeError(f"module 'tinygen.testing' has no attribute {name!r}")
