"""What it takes to trust a gradient: checks of any function of tensors, ours or a user's own.

>>> import tinygen as tg
>>> tg.testing.check_grad(lambda x: (x * x).exp(), tg.randn(2, 3, rng=tg.Generator(0)))
"""

from tinygen.testing.gradcheck import GradientError, check_adjoint, check_grad
from tinygen.testing.strict import count_syncs, strict_cupy
