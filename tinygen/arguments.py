"""What every public function does with arguments that it does not take: it refuses them by name."""

from __future__ import annotations

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from tinygen.backend import is_array
from tinygen.tensor import Tensor


def refuse(who: str, advice: str = "", **left_out: tuple[Any, Any]) -> None:
    """Raise unless every left-out argument has the value that switches it off: ``name=(value, off)``.

    Raises:
        NotImplementedError: an argument asks for something that is not here; the message names it.
    """
    for name, (value, off) in left_out.items():
        if value is not off and value != off:
            raise NotImplementedError(
                f"{who}: {name}={value!r} is not supported, only {off!r}" + (f"; {advice}" if advice else "")
            )


def explain_all(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Put :func:`explained` around the named functions of a module that take Tensors; ops explain by themselves."""
    for name in names:
        function = namespace[name]
        if isinstance(function, FunctionType) and not hasattr(function, "op"):
            if any("Tensor" in str(kind) for kind in function.__annotations__.values()):
                namespace[name] = explained(function)


def explained(function: Callable) -> Callable:
    """The function, whose complaint about a list in place of a Tensor says what was expected.

    ``F.softmax([1.0, 2.0])`` fails somewhere inside: "'list' object has no attribute 'ndim'". The arguments are looked
    at only then, so that a call that succeeds does not wait for it.

    Raises (by the function):
        TypeError: it failed, and something that is not one stands where its annotations say Tensor.
    """

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, AttributeError, ValueError, IndexError) as error:
            complaint = _complaint(function, args, kwargs, isinstance(error, AttributeError))
            if complaint is None:
                raise
        raise TypeError(complaint)  # here, so that what went wrong inside is not shown above it

    return public


def _complaint(function: Callable, args: tuple, kwargs: dict[str, Any], attribute: bool) -> str | None:
    """What is wrong with the arguments; None where the error is about something else.

    Raw arrays are constants to most functions: they are to blame only where an attribute was missing.
    """
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return None  # an argument is missing or unknown, as Python has said already
    for name, value in given.items():
        parameter = signature.parameters[name]
        kind = str(parameter.annotation)
        listed = "Sequence" in kind and isinstance(value, (list, tuple))
        several = listed or parameter.kind is parameter.VAR_POSITIONAL
        for item in value if several else [value]:
            right = isinstance(item, Tensor) or (item is None and "None" in kind) or (is_array(item) and not attribute)
            if "Tensor" in kind and not right:
                wanted = f"{name} to hold Tensors" if several else f"{name} to be a Tensor"
                return (
                    f"{function.__name__}: expected {wanted}, got {_described(item)}; make one with tg.tensor(...)"
                )
    return None


def _described(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return name if value is None else f"{name} {reprlib.repr(value)}"
