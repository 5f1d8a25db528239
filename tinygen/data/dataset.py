"""Dataset: examples and their labels, two arrays of equal length that travel together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.data.draws import HostDraws
from tinygen.random import Generator


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples x and labels y, the same index in both; never changed after it is made.

    ``len(d)`` is N; ``d[i]`` is the pair (x[i], y[i]), or (x[i], None) without labels, for anything that
    NumPy indexes the first axis with. The arrays are kept as read-only views, not copies.

    Args:
        x: (N, ...) floating: images (N, C, H, W) or points (N, D). Built-in sets are float32 and say their
            range.
        y: (N,) int64 class numbers 0 ≤ y < len(classes), or None when the examples have no labels.
        name: what errors and plots call this set.
        classes: the class names in label order; () when there are none.

    Raises:
        TypeError: x or y is not a NumPy array, x is not floating or y not an integer array.
        ValueError: the lengths differ, or a label has no class name.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    name: str = "data"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if not isinstance(x, np.ndarray) or not np.issubdtype(x.dtype, np.floating):
            raise TypeError(
                f"Dataset {self.name!r}: x must be a floating NumPy array, got {_describe(x)}; "
                "convert first, for example images.astype(np.float32) / 255"
            )
        if x.ndim == 0:
            raise ValueError(f"Dataset {self.name!r}: x must have a first axis that counts examples, got shape ()")
        _set(self, "x", _read_only(x))
        _set(self, "classes", tuple(str(c) for c in self.classes))
        if y is None:
            return
        if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.integer):
            raise TypeError(f"Dataset {self.name!r}: y must be an integer NumPy array or None, got {_describe(y)}")
        if y.shape != (len(x),):
            raise ValueError(
                f"Dataset {self.name!r}: x holds {len(x)} examples (shape {x.shape}), so y must have "
                f"shape ({len(x)},), got {y.shape}"
            )
        if self.classes and y.size and not 0 <= int(y.min()) <= int(y.max()) < len(self.classes):
            raise ValueError(
                f"Dataset {self.name!r}: labels run from {y.min()} to {y.max()}, but there are "
                f"{len(self.classes)} classes, so labels must lie in 0..{len(self.classes) - 1}"
            )
        _set(self, "y", _read_only(y.astype(np.int64, copy=False)))

    @property
    def images(self) -> np.ndarray:
        """x, where it holds images (N, C, H, W). Raises AttributeError for data of another rank."""
        return self._rank(4, "images (N, C, H, W)")

    @property
    def points(self) -> np.ndarray:
        """x, where it holds points (N, D). Raises AttributeError for data of another rank."""
        return self._rank(2, "points (N, D)")

    @property
    def labels(self) -> np.ndarray:
        """y, where there are labels, int64 (N,). Raises AttributeError where there are none."""
        if self.y is None:
            raise AttributeError(f"Dataset {self.name!r} has no labels (y is None)")
        return self.y

    def _rank(self, ndim: int, what: str) -> np.ndarray:
        if self.x.ndim != ndim:
            raise AttributeError(f"Dataset {self.name!r} does not hold {what}: x has shape {self.x.shape}")
        return self.x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        """The pair (x[index], y[index]).

        Raises:
            IndexError: index is out of range, or a mask of another length than N.
        """
        try:
            return self.x[index], None if self.y is None else self.y[index]
        except IndexError as error:
            raise IndexError(f"Dataset {self.name!r} holds {len(self)} examples: {error}") from None

    def __repr__(self) -> str:
        labels = "no labels" if self.y is None else f"{len(self.classes) or '?'} classes"
        return f"Dataset({self.name!r}: {len(self)} × {self.x.shape[1:]} {self.x.dtype}, {labels})"

    def subset(self, index: Any, name: str | None = None) -> Dataset:
        """The examples that a slice, an index array (M,) or a boolean mask (N,) selects, as a Dataset.

        ``d.subset(d.y != 3)`` leaves out the threes.

        Raises:
            IndexError: an index is out of range, or a mask of another length than N.
            TypeError: index is a single integer, which would drop the first axis.
        """
        if isinstance(index, (int, np.integer)):
            raise TypeError(
                f"subset takes a slice, an index array or a mask, got the single index {index}; "
                f"for one example write dataset[{index}], or subset([{index}])"
            )
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0 and index.dtype != bool:
                index = index.astype(np.int64)
        x, y = self[index]
        return Dataset(x, y, self.name if name is None else name, self.classes)

    def split(self, lengths: Sequence[float], rng: Generator | None = None) -> tuple[Dataset, ...]:
        """Cut into parts that together hold every example exactly once.

        Args:
            lengths: whole numbers that sum to N, or fractions that sum to 1. Fractions give ⌊N·f⌋ each, and
                what rounding leaves over goes one by one to the parts from the first.
            rng: a ``tg.Generator`` that shuffles first; None cuts the examples in the order they have.

        Raises:
            ValueError: lengths are empty, negative, or do not sum to N (or to 1).
            TypeError: rng is not a ``tg.Generator``.

        Source: ``torch.utils.data.random_split``.
        """
        sizes = _sizes(list(lengths), len(self), self.name)
        order = np.arange(len(self)) if rng is None else HostDraws(rng).permutation(len(self))
        ends = np.cumsum([0, *sizes])
        return tuple(
            self.subset(order[a:b], f"{self.name}[part {i + 1} of {len(sizes)}]")
            for i, (a, b) in enumerate(zip(ends[:-1], ends[1:], strict=True))
        )


def stratified_test_mask(labels: np.ndarray, n_test: int) -> np.ndarray:
    """Which examples a fixed, random-free split keeps for testing: bool (N,), True n_test times.

    Sort the examples by label, keeping their order within a label. Of that row, position p = 0..N−1 is tested
    when

        ⌊(p+1)·n_test/N⌋ > ⌊p·n_test/N⌋,

    which spaces n_test picks evenly. So each class c gives its share N_c·n_test/N to within one example,
    early and late parts of the file are both tested, and no random generator's version can change the split.

    Shapes: labels (N,) integers -> (N,) bool.

    Raises:
        ValueError: n_test is not in 0..N.
    """
    n = len(labels)
    if not 0 <= n_test <= n:
        raise ValueError(f"n_test must lie in 0..{n}, the number of labels, got {n_test}")
    p = np.arange(n, dtype=np.int64)
    mask = np.zeros(n, dtype=bool)
    mask[np.argsort(labels, kind="stable")] = (p + 1) * n_test // max(n, 1) > p * n_test // max(n, 1)
    return mask


def _sizes(lengths: list[float], n: int, name: str) -> list[int]:
    """Whole part sizes from the two forms that split() takes."""
    if not lengths or any(not isinstance(v, (int, float, np.integer, np.floating)) or not v >= 0 for v in lengths):
        raise ValueError(f"split of {name!r}: lengths must be non-negative numbers, at least one, got {lengths}")
    if all(isinstance(v, (int, np.integer)) for v in lengths) and sum(lengths) == n:
        return [int(v) for v in lengths]
    if any(isinstance(v, (float, np.floating)) for v in lengths) and math.isclose(sum(lengths), 1, abs_tol=1e-9):
        sizes = [math.floor(n * v + 1e-9) for v in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        return sizes
    raise ValueError(
        f"split of {name!r}: lengths must be whole numbers that sum to {n}, the number of examples, "
        f"or fractions that sum to 1; got {lengths}, which sum to {sum(lengths)}"
    )


def _describe(value: Any) -> str:
    """What came, for an error message: the dtype and shape of an array, else the type."""
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return f"a {type(value).__name__}"


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _set(dataset: Dataset, field: str, value: Any) -> None:
    object.__setattr__(dataset, field, value)  # the one way to normalise a field of a frozen dataclass
