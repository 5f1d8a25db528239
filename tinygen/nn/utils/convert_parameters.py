"""All parameters as one vector, and back: for optimisers and measurements that think in vectors."""

from __future__ import annotations

from collections.abc import Iterable

from tinygen.ops.shape import cat
from tinygen.tensor import Tensor, next_number


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All numbers of all parameters in one vector, in the order of the parameters. Differentiable.

    Raises:
        ValueError: there are no parameters.

    Source: ``torch.nn.utils.parameters_to_vector``.
    """
    flat = [p.reshape(-1) for p in parameters]
    if not flat:
        raise ValueError("parameters_to_vector: there are no parameters")
    return cat(flat)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the numbers of a vector into the parameters, in their order; they are copied (PyTorch shares them).

    Raises:
        TypeError: vec is not a Tensor.
        ValueError: it holds another number of numbers than the parameters, or another dtype; nothing was written.

    Source: ``torch.nn.utils.vector_to_parameters``.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a Tensor, got {type(vec).__name__}")
    listed = list(parameters)
    total = sum(p.data.size for p in listed)
    if vec.shape != (total,):
        raise ValueError(f"vector_to_parameters: expected a vector of {total} numbers, got shape {vec.shape}")
    if any(p.dtype != vec.dtype for p in listed):
        raise ValueError(f"vector_to_parameters: the vector is {vec.dtype}, not every parameter is")
    at = 0
    for p in listed:
        p.data[...] = vec.data[at : at + p.data.size].reshape(p.shape)
        p._written = next_number()
        at += p.data.size
