"""What it takes to trust a gradient: checks of any function of tensors, ours or a user's own.

>>> import tinygen as tg
>>> tg.testing.check_grad(lambda x: (x * x).exp(), tg.randn(2, 3, rng=tg.Generator(0)))

A declared op is checked in every way at once, by ``tg.testing.check_op``; docs/testing.md shows how.
"""

from typing import Any

from tinygen.op import registry
from tinygen.testing.cases import Case, Declaration, declare, derived
from tinygen.testing.checks import check_batch_consistency, check_inverse
from tinygen.testing.evaluation import GradientError
from tinygen.testing.gradcheck import check_adjoint, check_grad
from tinygen.testing.opcheck import Check, check_op, checks
from tinygen.testing.strict import count_syncs, strict_cupy
from tinygen.testing.values import Values, booleans, distinct, integers, positive, real


def __getattr__(name: str) -> Any:
    """``tg.testing.strategies``, imported when first asked for: it needs Hypothesis."""
    if name == "strategies":
        import importlib

        return importlib.import_module("tinygen.testing.strategies")
    raise AttributeError(f"module 'tinygen.testing' has no attribute {name!r}")
