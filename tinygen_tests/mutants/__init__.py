"""Seeded bugs, and the proof that the tests catch each of them: ``python -m tinygen_tests.mutants``.

A bug is one change of one place of the source, written down as a :class:`~tinygen_tests.mutants.mutant.Mutant` in the
file of its family. :mod:`tinygen_tests.mutants.runner` applies them, one at a time, to copies of the project.
"""

from tinygen_tests.mutants import (
    adversarial,
    autograd,
    convolution,
    diffusion,
    dtypes,
    files,
    gpu,
    layers,
    losses,
    normalization,
    operations,
    optimizers,
    pictures,
    pooling,
    randomness,
    surviving,
    variational,
)
from tinygen_tests.mutants.mutant import Mutant

# family → its bugs
FAMILIES: dict[str, list[Mutant]] = {
    "autograd": autograd.MUTANTS,
    "dtypes": dtypes.MUTANTS,
    "operations": operations.MUTANTS,
    "convolution": convolution.MUTANTS,
    "pooling": pooling.MUTANTS,
    "normalization": normalization.MUTANTS,
    "losses": losses.MUTANTS,
    "layers": layers.MUTANTS,
    "optimizers": optimizers.MUTANTS,
    "randomness": randomness.MUTANTS,
    "files": files.MUTANTS,
    "gpu": gpu.MUTANTS,
    "adversarial": adversarial.MUTANTS,
    "diffusion": diffusion.MUTANTS,
    "variational": variational.MUTANTS,
    "pictures": pictures.MUTANTS,
    "surviving": surviving.MUTANTS,
}

MUTANTS: list[Mutant] = [mutant for family in FAMILIES.values() for mutant in family]
