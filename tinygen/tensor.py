"""Tensor: an array that remembers how it was computed, and Node: one remembered step.

The graph points one way, from results to what they were made of::

    Tensor ──▶ Node ──▶ Node ──▶ leaf Tensor
                 └────▶ the tensors its derivative needs

A node never points to the tensor it produced, so a graph holds no reference cycle: when the last result
dies, the whole graph dies with it, without the garbage collector.

The derivative itself is in :mod:`tinygen.autograd`, the operations in :mod:`tinygen.ops`, which also hang
the operators and methods (``+``, ``@``, ``.sum()``, …) on this class.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygen.backend import CaptureError, DeviceError, array_module, capture, device, device_of, is_array, to_numpy
from tinygen.recording import recording

# Every recorded step and every write in place takes the next number. Steps in order of their number are in
# topological order, and "written after it was used" is a comparison of two numbers.
next_number: Callable[[], int] = count(1).__next__


class Node:
    """One recorded step: which op, what its derivative needs, and where the gradient goes next.

    Attributes:
        op: the :class:`tinygen.op.Op`, for its name in messages and pictures.
        rules: one ``(vjp, picks)`` for each edge: ``picks`` says which saved values the vjp is called with.
        edges: for each rule the node or leaf tensor that receives its result; None once freed.
        saved: the values that the rules need, by pick.
        shape, dtype: of the result, which its gradient must have too.
        number: its place in the order of recording.
        place: the lines that led to it; there only if it was recorded under :class:`tinygen.detect_anomaly`.
    """

    __slots__ = ("op", "rules", "edges", "saved", "shape", "dtype", "number", "place", "__weakref__")

    op: Any
    rules: tuple
    edges: list | None
    saved: dict
    shape: tuple[int, ...]
    dtype: Any
    number: int

    def __repr__(self) -> str:
        return f"<{self.op.name}>"


class Tensor:
    """An array with a gradient.

    ``Tensor(array)`` wraps an array without copying it; :func:`tinygen.tensor` makes one from numbers, lists or
    a copy of an array, as ``torch.tensor`` does.

    Args:
        data: a NumPy or CuPy array.
        requires_grad: whether gradients with respect to this tensor are wanted.

    Attributes:
        data: the raw array (NumPy or CuPy). A write into it goes behind autograd's back; ``x[i] = v`` does not.
        grad: None, or a Tensor of the same shape and dtype: ∂L/∂(this), summed over backward calls.

    Raises:
        TypeError: data is not an array, or requires_grad is asked of one that does not hold floating numbers.

    Source: ``torch.Tensor``; reverse mode as in Griewank & Walther, *Evaluating Derivatives* (2008), ch. 3.
    """

    __slots__ = ("data", "grad", "_tracked", "_node", "_written", "__weakref__")
    # NumPy then leaves `array + tensor` to Tensor.__radd__ instead of taking the tensor apart itself.
    __array_ufunc__ = None

    data: Any
    grad: Tensor | None
    _tracked: bool
    _node: Node | None
    _written: int

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        device_of(data)
        self.data = data
        self.grad = None
        self._node = None
        self._tracked = False
        self._written = 0
        if requires_grad:
            self.requires_grad = True

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers, such as ``tg.float32``."""
        return self.data.dtype

    @property
    def device(self) -> device:
        """Where it lives: ``"cpu"`` or ``"cuda:N"``."""
        return device_of(self.data)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to this tensor, or through it, are recorded.

        Raises (when set):
            TypeError: the dtype is not floating.
            RuntimeError: set to False on the result of a recorded op; ``detach()`` gives such a tensor.
        """
        return self._tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.data.dtype.kind not in "fc":
            raise TypeError(
                f"requires_grad: only floating tensors have gradients, this one is {self.dtype}; "
                "convert it with x.to(tg.float32)"
            )
        if not value and self._node is not None:
            raise RuntimeError("requires_grad: cannot be switched off on a computed tensor; use x.detach()")
        self._tracked = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad`` and return the tensor itself (``torch.Tensor.requires_grad_``)."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than by a recorded op."""
        return self._node is None

    @property
    def grad_fn(self) -> Node | None:
        """The recorded step that made it, or None for a leaf."""
        return self._node

    # -- the same numbers elsewhere

    def detach(self) -> Tensor:
        """The same numbers without the history: gradients stop here."""
        return wrap(self.data)

    def numpy(self) -> np.ndarray:
        """The numbers as a NumPy array: a read-only view on the CPU, copied from a GPU.

        Read-only, so that a write cannot change what a recorded graph has saved; ``.numpy().copy()`` is
        yours to write to.

        Raises:
            RuntimeError: the tensor requires grad; use ``x.detach().numpy()`` (PyTorch's rule).
        """
        if self._tracked:
            raise RuntimeError(
                "numpy(): this tensor requires grad, and an array cannot carry the gradient on; use x.detach().numpy()"
            )
        view = to_numpy(self.data).view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.device.type != "cpu":
            raise TypeError(
                f"a tensor on {self.device} does not become a NumPy array by itself; "
                'use x.to("cpu").numpy() or x.numpy()'
            )
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self._tracked:
            raise RuntimeError("__dlpack__: this tensor requires grad; use x.detach()")
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[Any, int]:
        return self.data.__dlpack_device__()

    def item(self) -> float | int | bool:
        """The one number in it, as a Python number.

        Raises:
            ValueError: it holds more or fewer numbers than one.
        """
        if self.data.size != 1:
            raise ValueError(f"item(): expected a tensor of one number, got shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        """The numbers as nested Python lists (a Python number for a 0-d tensor)."""
        return self.data.tolist()

    # -- Python's protocols

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(f"the truth of a tensor of shape {self.shape} is ambiguous; use (x == y).all() or .any()")
        return bool(self.data.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index, this one is {self.dtype}")
        return int(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len(): a 0-d tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("a 0-d tensor cannot be iterated over")
        return (self[i] for i in range(self.shape[0]))

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: dict) -> Tensor:
        if self._node is not None:
            raise RuntimeError("deepcopy: only leaf tensors are copied with their gradient; use x.detach().clone()")
        twin = memo[id(self)] = wrap(self.data.copy(order="K")).requires_grad_(self._tracked)
        twin.grad = copy.deepcopy(self.grad, memo)
        return twin

    def __repr__(self) -> str:
        array = to_numpy(self.data)
        body = np.array2string(array, separator=", ", prefix="tensor(", precision=4, threshold=1000)
        notes = []
        if self.dtype not in (np.dtype("float32"), np.dtype("int64"), np.dtype("bool")):
            notes.append(f"dtype={self.dtype}")
        if array.size == 0:
            notes.append(f"shape={self.shape}")
        if self.device != "cpu":
            notes.append(f"device={str(self.device)!r}")
        if self._node is not None:
            notes.append(f"grad_fn={self._node!r}")
        elif self._tracked:
            notes.append("requires_grad=True")
        return ", ".join([f"tensor({body}", *notes]) + ")"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.data.size == 1 else repr(self)

    # -- writing

    def __setitem__(self, index: Any, value: Any) -> None:
        """``x[index] = value``: tensors are values, so the write never shows through another tensor.

        The array is copied first where something else (a view, a detached twin, a graph) shares it.

        Raises:
            RuntimeError: x is part of a graph that is being recorded, or the value requires grad, which a write
                would lose; use ``tg.where`` or ``tg.scatter_add``.
            DeviceError: the value lives on another device.
            IndexError, ValueError: the index or the value does not fit.
        """
        self._write(raw_index(index, self.data), value, "x[index] = value")

    def copy_(self, source: Any) -> Tensor:
        """Overwrite the numbers with ``source``'s, broadcast to this shape (``torch.Tensor.copy_``).

        As in ``x[index] = value``, the write never shows through another tensor.

        Raises:
            RuntimeError: the tensor takes part in a recorded graph, or the source requires grad.
            DeviceError: the source lives on another device.
            ValueError: the shapes do not broadcast.
        """
        self._write((...,), source, "copy_")
        return self

    def _write(self, index: tuple, value: Any, who: str) -> None:
        if self._node is not None or (self._tracked and recording.get()):
            raise RuntimeError(
                f"{who}: the tensor takes part in a recorded graph, whose derivative a write would falsify; "
                "use tg.where(mask, new, x), or write inside `with tg.no_grad():` to a leaf"
            )
        if isinstance(value, Tensor):
            if value._tracked and recording.get():
                raise RuntimeError(
                    f"{who}: the value requires grad, and a write in place would lose its gradient; "
                    "write value.detach(), or use tg.where or tg.scatter_add"
                )
            value = value.data
        elif isinstance(value, (list, tuple)):
            value = array_module(self.data).asarray(np.asarray(value))  # CuPy fills slices from its arrays alone
        if is_array(value) and value.ndim and device_of(value) != self.device:
            raise DeviceError(
                f"{who}: the tensor lives on {self.device}, the value on {device_of(value)}; "
                "move one with x.to(device)"
            )
        # Two references are this slot and getrefcount's own argument: more means that somebody else looks on.
        if sys.getrefcount(self.data) > 2 or self.data.base is not None:
            if capture.get() is not None:
                raise CaptureError(
                    f"{who}: a tensor of shape {self.shape} shares its memory with something else, so that this write "
                    "would move it to new memory, which a captured step cannot do: the next replay would read the old "
                    "one; let go of the other holder (a state_dict, a view), or clone the tensor before the capture"
                )
            self.data = self.data.copy(order="K")
        *first, last = index_steps(index)
        place = self.data[first[0]] if first else self.data
        place[last] = value
        self._written = next_number()

    if TYPE_CHECKING:  # the operators and methods that tinygen.ops hangs on the class

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...


_new = object.__new__


def wrap(data: Any) -> Tensor:
    """A Tensor around an array that is known to be one; the fast way to make a result."""
    tensor = _new(Tensor)
    tensor.data = data
    tensor.grad = None
    tensor._tracked = False
    tensor._node = None
    tensor._written = 0
    return tensor


def recorded(op: Any, rules: tuple, edges: list, saved: dict, data: Any) -> Tensor:
    """A Tensor that an op has just computed, and the Node that remembers it."""
    node = _new(Node)
    node.op = op
    node.rules = rules
    node.edges = edges
    node.saved = saved
    node.shape = data.shape
    node.dtype = data.dtype
    node.number = next_number()
    return wrap_recorded(data, node)


def wrap_recorded(data: Any, node: Node) -> Tensor:
    """A Tensor that was computed by ``node``."""
    tensor = _new(Tensor)
    tensor.data = data
    tensor.grad = None
    tensor._tracked = True
    tensor._node = node
    tensor._written = 0
    return tensor


def raw_index(index: Any, data: Any) -> tuple:
    """An index expression for ``data``, its tensors and lists made into arrays of the same library.

    Raises:
        IndexError: one of them holds neither integers nor booleans.
    """
    parts = []
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, Tensor):
            part = part.data
        elif isinstance(part, list):
            part = array_module(data).asarray(np.asarray(part) if part else np.zeros(0, dtype="int64"))
        if hasattr(part, "dtype") and part.dtype.kind not in "biu":
            raise IndexError(f"x[index]: an index is integer or boolean, this one is {part.dtype}")
        parts.append(part)
    return tuple(parts)


def index_steps(index: tuple) -> list[tuple]:
    """An index expression of raw arrays as one step, or two where integers and arrays are mixed.

    In ``x[0, :, [1, 2]]`` NumPy takes the integer for an array too and, because a slice stands between the two, puts
    their axis first; PyTorch reads integers first, and the axis stays where the array stands. So do we.
    """
    if len(index) < 3 or not (any(map(_is_integer, index)) and any(map(_is_array, index))):
        return [index]
    first: list = []
    second: list = []
    for part in index:
        if _is_integer(part):
            first.append(part)
        elif _is_array(part):
            first.extend([slice(None)] * (part.ndim if part.dtype.kind == "b" else 1))
            second.append(part)
        else:
            first.append(part)
            second.append(part if part is Ellipsis else slice(None))
    return [tuple(first), tuple(second)]


def _is_integer(part: Any) -> bool:
    if hasattr(part, "dtype"):
        return part.ndim == 0 and part.dtype.kind in "iu"
    return isinstance(part, int) and not isinstance(part, bool)


def _is_array(part: Any) -> bool:
    return hasattr(part, "dtype") and part.ndim > 0
