"""What is done with the arguments of PyTorch's that tinygen leaves out: they are refused by name."""

from __future__ import annotations

from typing import Any


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
