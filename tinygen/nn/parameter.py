"""Parameter: a leaf tensor that a Module learns."""

from __future__ import annotations

from typing import Any

from tinygen.backend import as_dtype, get_default_device, get_default_dtype, is_array, module_for
from tinygen.tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor that requires grad and that a :class:`Module` finds among its attributes.

    The numbers are copied, so that training never writes into an array that somebody else holds. (PyTorch
    shares them.) ``copy.deepcopy`` copies the numbers too, and leaves the gradient behind.

    Args:
        data: a Tensor or an array, of floating numbers where ``requires_grad``.
        requires_grad: whether it is learned.

    Raises:
        TypeError: data is neither, or requires_grad is asked of numbers that are not floating.

    Source: ``torch.nn.Parameter``.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        array = data.data if isinstance(data, Tensor) else data
        if not is_array(array):
            raise TypeError(
                f"Parameter: expected a Tensor or an array, got {type(data).__name__}; make one with tg.tensor(...)"
            )
        super().__init__(array.copy(order="K"), requires_grad)

    def __deepcopy__(self, memo: dict) -> Parameter:
        twin = memo[id(self)] = type(self)(self, self.requires_grad)
        return twin

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def empty_parameter(*shape: int, dtype: Any = None, device: str | None = None) -> Parameter:
    """A parameter whose numbers are yet to be set by an initialisation of :mod:`tinygen.nn.init`.

    Raises:
        TypeError: the dtype is not floating.
        DeviceError: the device cannot be used.
    """
    library = module_for(get_default_device() if device is None else device)
    made = Parameter.__new__(Parameter)
    Tensor.__init__(made, library.empty(shape, as_dtype(dtype or get_default_dtype())), requires_grad=True)
    return made
