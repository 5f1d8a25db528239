"""Class indices made into vectors: rows of a learned table, or rows of the identity matrix.

With e_t the one-hot vector of index t, looking up row t of W is the product e_tᵀ W, so ∂L/∂W adds each gradient to the
row that was looked up. Source: ``torch.nn.functional.NAME``.
"""

from __future__ import annotations

from tinygen.backend import array_module
from tinygen.op import op
from tinygen.ops.elementwise import where
from tinygen.ops.indexing import getitem
from tinygen.tensor import Tensor


def check_range(index: Tensor, n: int, who: str, exception: str = "") -> None:
    """Check that indices are in [0, n). On the CPU only: a GPU's numbers are not looked at on the way.

    Raises:
        IndexError: one is outside.
    """
    if index.device != "cpu" or not index.data.size:
        return
    low, high = int(index.data.min()), int(index.data.max())
    if low < 0 or high >= n:
        raise IndexError(f"{who} {low if low < 0 else high} is outside [0, {n}){exception}")


def _check_integer(index: Tensor, who: str, name: str) -> None:
    if not isinstance(index, Tensor) or index.dtype.kind not in "iu":
        kind = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"{who}: expected {name} to be an integer tensor, got {kind}")


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """y[…, :] = W[t…, :]: the row of W that each index names.

    ∂L/∂W_t = Σ g over all places where row t was looked up; 0 for the row ``padding_idx``.

    Shapes: input (*), integers in [0, V); weight (V, D) → (*, D).

    Args:
        padding_idx: a row that stays as it is, counted from the end if negative. (PyTorch's max_norm, norm_type,
            scale_grad_by_freq and sparse are not here.)

    Raises:
        TypeError: the input is not integer.
        ValueError: weight is not a matrix, or padding_idx not one of its rows.
        IndexError: (on the CPU) an index is outside [0, V).
    """
    _check_integer(input, "embedding", "input")
    if weight.ndim != 2:
        raise ValueError(f"embedding: expected weight (V, D), one row for each index, got {weight.shape}")
    rows = weight.shape[0]
    check_range(input, rows, "embedding: index")
    y = getitem(weight, input)
    if padding_idx is None:
        return y
    if not -rows <= padding_idx < rows:
        raise ValueError(f"embedding: padding_idx={padding_idx} is not one of the {rows} rows of weight")
    return where((input == padding_idx % rows).unsqueeze(-1), y.detach(), y)


@op
def _one_hot(index, num_classes):
    """y[…, c] = 1 where c = index, else 0: (*) → (*, C). Not differentiable. See one_hot."""
    xp = array_module(index)
    return (index[..., None] == xp.arange(num_classes)).astype("int64")


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """y[…, c] = 1 where c is the index, else 0. Not differentiable.

    Shapes: (*), integers in [0, C) → (*, C), int64.

    Args:
        num_classes: C; −1 takes the largest index plus one, which looks at the numbers (on a GPU, waits for them).

    Raises:
        TypeError: the tensor is not integer.
        ValueError: num_classes is 0 or below −1, or −1 for an empty tensor.
        IndexError: (on the CPU) an index is outside [0, C).
    """
    _check_integer(tensor, "one_hot", "tensor")
    if num_classes == -1:
        if not tensor.data.size:
            raise ValueError("one_hot: num_classes cannot be found from an empty tensor; give it")
        num_classes = int(tensor.data.max()) + 1
    elif num_classes < 1:
        raise ValueError(f"one_hot: expected num_classes ≥ 1, or −1 to find it, got {num_classes}")
    check_range(tensor, num_classes, "one_hot: index")
    return _one_hot(tensor, num_classes)
