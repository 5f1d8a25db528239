"""Random numbers: a Generator for each device, explicit wherever randomness enters.

Every function that draws takes ``rng=``, a :class:`Generator`; where it is omitted the default generator of the
device draws, which :func:`manual_seed` seeds. A generator's state can be saved and restored, so that a run that
was interrupted goes on with the very numbers it would have drawn.

Source of the underlying generators: on the CPU PCG64, O'Neill, *PCG: A Family of Simple Fast Space-Efficient
Statistically Good Algorithms for Random Number Generation* (2014), as NumPy has it; on a GPU XORWOW, Marsaglia,
*Xorshift RNGs* (2003), as CuPy has it, in 32,768 streams side by side. The same seed gives other numbers there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from tinygen.backend import (
    as_dtype,
    device,
    get_default_device,
    get_default_dtype,
    is_array,
    module_for,
    move,
    to_numpy,
)
from tinygen.defaults import Default, apart
from tinygen.ranks import together
from tinygen.tensor import Tensor, wrap

_STREAMS = 2**15  # on a GPU; one number for all GPUs, so that a saved state (1.5 MB) fits each of them


class Generator:
    """A stream of random numbers on one device.

    Args:
        seed: a non-negative integer; equal seeds give equal streams. None draws one from the system.
        device: where the numbers are drawn.

    Raises:
        ValueError: the seed is negative.
        DeviceError: the device cannot be used.

    Source: ``torch.Generator``.
    """

    def __init__(self, seed: int | None = None, device: str = "cpu") -> None:
        self.device = _device(device)
        self._xp = module_for(self.device)
        # A library draws on the current GPU, whichever was named.
        self._there: Any = nullcontext() if self.device.index is None else self._xp.cuda.Device(self.device.index)
        self.manual_seed(np.random.SeedSequence().entropy if seed is None else seed)  # type: ignore[arg-type]

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of ``seed`` from its beginning.

        Raises:
            ValueError: the seed is not a non-negative integer.
        """
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"manual_seed: expected a non-negative integer, got {seed!r}")
        self._seed = int(seed)
        self._draws = self._begin(self._seed)
        return self

    def _begin(self, seed: int) -> Any:
        random = self._xp.random
        if self.device.type == "cpu":
            return random.default_rng(seed)
        with self._there:
            return random.Generator(random.XORWOW(seed, size=_STREAMS))

    def initial_seed(self) -> int:
        """The seed that the stream began with."""
        return self._seed

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to continue the stream: numbers and strings; from a GPU an array too."""
        bits = self._draws.bit_generator
        # CuPy has no public way to its state; the array that its kernels work on is this (CuPy 13 and 14).
        state = bits.state if self.device.type == "cpu" else to_numpy(bits._state)
        return {"device": str(self.device), "seed": self._seed, "state": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the stream whose state was saved.

        Raises:
            ValueError: the state is not one of :meth:`state_dict` on the same kind of device.
        """
        if not isinstance(state, dict) or set(state) != {"device", "seed", "state"}:
            raise ValueError("load_state_dict: this is not a generator's state (device, seed, state)")
        if str(state["device"]).partition(":")[0] != self.device.type:
            raise ValueError(f"load_state_dict: the state is of {state['device']}, this generator of {self.device}")
        try:
            seed = int(state["seed"])
            draws = self._begin(0)  # so that a state that is refused half-way changes nothing
            if self.device.type == "cpu":
                draws.bit_generator.state = state["state"]
            else:
                _overwrite(draws.bit_generator._state, state["state"])
        except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
            kind = "PCG64" if self.device.type == "cpu" else "XORWOW"
            raise ValueError(f"load_state_dict: this is not a state of {kind}: {error}") from error
        self._draws, self._seed = draws, seed

    # -- raw draws, as arrays of the generator's device

    def _own(self, draw: Callable[[tuple[int, ...]], Any], size: tuple[int, ...]) -> Any:
        """What is drawn; of processes that train together each draws for all of them, and keeps its examples' part."""
        ranks = together.get()
        return draw(size) if ranks is None or not ranks.shares(self) else ranks.draw(draw, size)

    def standard_normal(self, size: tuple[int, ...], dtype: Any) -> Any:
        """ε ~ N(0, 1), an array of shape ``size``.

        Raises:
            TypeError: the dtype is not floating.
        """
        dtype = _floating(dtype, "randn")
        with self._there:
            kind = "float64" if dtype.itemsize == 8 else "float32"
            drawn = self._own(lambda size: self._draws.standard_normal(size, dtype=kind), size)
            return self._xp.asarray(drawn, dtype=dtype)

    def uniform(self, size: tuple[int, ...], dtype: Any, low: float = 0.0, high: float = 1.0) -> Any:
        """u ~ U[low, high), an array of shape ``size``.

        Raises:
            TypeError: the dtype is not floating.
        """
        dtype = _floating(dtype, "rand")
        with self._there:
            kind = "float64" if dtype.itemsize == 8 else "float32"
            drawn = self._own(lambda size: self._draws.random(size, dtype=kind), size)
            if dtype.itemsize == 2:
                drawn = self._xp.floor(drawn * 2048) / 2048  # 11 bits are exact in float16; rounding would reach 1
            drawn = self._xp.asarray(drawn, dtype=dtype)
            return drawn if (low, high) == (0.0, 1.0) else drawn * (high - low) + low

    def integers(self, low: int, high: int, size: tuple[int, ...], dtype: Any = "int64") -> Any:
        """Integers from low to high − 1, equally likely, an array of shape ``size``."""
        with self._there:
            drawn = self._own(lambda size: self._draws.integers(low, high, size, dtype="int64"), size)
            return self._xp.asarray(drawn, dtype=as_dtype(dtype))

    def permutation(self, n: int) -> Any:
        """The numbers 0 … n − 1 in random order: the order that sorts n uniform draws."""
        with self._there:
            return self._draws.random(n, dtype="float64").argsort()

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, device={str(self.device)!r})"


def _overwrite(array: Any, source: Any) -> None:
    """Copy a saved state to where the kernels find it."""
    if not is_array(source) or (source.shape, source.dtype) != (array.shape, array.dtype):
        found = f"{source.dtype} {source.shape}" if is_array(source) else type(source).__name__
        raise ValueError(f"expected {array.dtype} {array.shape}, got {found}")
    array[...] = move(source, device("cuda", array.device.id))


def _floating(dtype: Any, who: str) -> np.dtype:
    dtype = as_dtype(dtype)
    if dtype.kind != "f":
        raise TypeError(f"{who}: expected a floating dtype, got {dtype}; name one with dtype=")
    return dtype


_device = device  # the name is also that of arguments here
_defaults: dict[str, Generator] = {}  # the process's, one for each device
_generators: Default[dict[str, Generator]] = Default("default generators", _defaults)


def default_generator(device: str | None = None) -> Generator:
    """The generator that draws on a device where none is named; seeded from the system until manual_seed.

    Threads share the process's, number by number, until they have one of their own: see :func:`manual_seed`.
    """
    place = _device(get_default_device() if device is None else device)
    if place.type == "cuda" and place.index is None:
        # "cuda" is a GPU with a number: two generators of one seed would draw the same numbers twice.
        place = _device("cuda", module_for(place).cuda.Device().id)
    here = _generators.get()
    if place not in here:
        # setdefault: of two threads that come at once both get the same one.
        here.setdefault(place, Generator(here["cpu"].initial_seed() if "cpu" in here else None, place))
    return here[place]


def manual_seed(seed: int) -> Generator:
    """Seed the default generators of all devices, and return the default device's.

    In a thread other than the main one, or in an asyncio task, that thread or task gets generators of its own, which
    draw what they would have drawn in a program of its own; nobody else's stream is touched.

    Raises:
        ValueError: the seed is not a non-negative integer.

    Source: ``torch.manual_seed``.
    """
    if apart():
        _generators.set({"cpu": Generator(seed)})
        return default_generator()
    _defaults.setdefault("cpu", Generator(seed))
    for generator in _defaults.values():
        generator.manual_seed(seed)
    return default_generator()


def _stream(rng: Generator | None, place: str | None) -> Generator:
    if rng is None:
        return default_generator(place)
    if not isinstance(rng, Generator):
        raise TypeError(f"rng: expected a tinygen.Generator, got {type(rng).__name__}; make one with tg.Generator(0)")
    if place is not None and _device(place).type != rng.device.type:
        raise ValueError(f"rng draws on {rng.device}, but device={place!r} was asked for")
    return rng


def _size(size: tuple) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else tuple(size)


def rand(
    *size: Any,
    rng: Generator | None = None,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """u ~ U[0, 1), independent, of shape ``size``. Source: ``torch.rand``."""
    drawn = _stream(rng, device).uniform(_size(size), dtype or get_default_dtype())
    return wrap(drawn).requires_grad_(requires_grad)


def randn(
    *size: Any,
    rng: Generator | None = None,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """ε ~ N(0, 1), independent, of shape ``size``. Source: ``torch.randn``."""
    drawn = _stream(rng, device).standard_normal(_size(size), dtype or get_default_dtype())
    return wrap(drawn).requires_grad_(requires_grad)


def randint(
    low: int,
    high: Any = None,
    size: tuple[int, ...] | None = None,
    rng: Generator | None = None,
    dtype: Any = "int64",
    device: str | None = None,
) -> Tensor:
    """Integers from low to high − 1, equally likely, of shape ``size``; ``randint(high, size)`` starts at 0.

    Raises:
        ValueError: low ≥ high.
        TypeError: the size is not a tuple.

    Source: ``torch.randint``.
    """
    if size is None:
        high, size = None, high
    if high is None:
        low, high = 0, low
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"randint: expected the size as a tuple, got {size!r}")
    if low >= high:
        raise ValueError(f"randint: expected low < high, got low={low}, high={high}")
    return wrap(_stream(rng, device).integers(low, high, tuple(size), dtype))


def randperm(n: int, rng: Generator | None = None, device: str | None = None) -> Tensor:
    """The numbers 0 … n − 1 in random order, int64. Source: ``torch.randperm``."""
    return wrap(_stream(rng, device).permutation(n))


def rand_like(input: Tensor, rng: Generator | None = None, dtype: Any = None) -> Tensor:
    """u ~ U[0, 1) in the shape, dtype and device of ``input``. Source: ``torch.rand_like``."""
    return rand(input.shape, rng=rng, dtype=dtype or input.dtype, device=input.device)


def randn_like(input: Tensor, rng: Generator | None = None, dtype: Any = None) -> Tensor:
    """ε ~ N(0, 1) in the shape, dtype and device of ``input``. Source: ``torch.randn_like``."""
    return randn(input.shape, rng=rng, dtype=dtype or input.dtype, device=input.device)


def randint_like(input: Tensor, low: int, high: Any = None, rng: Generator | None = None, dtype: Any = None) -> Tensor:
    """Integers from low to high − 1 in the shape, dtype and device of ``input``. Source: ``torch.randint_like``."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.shape, rng=rng, dtype=dtype or input.dtype, device=input.device)
