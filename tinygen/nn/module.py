"""Module: a part of a network, which owns parameters, buffers and smaller modules.

Everything a Module owns is an ordinary attribute. A :class:`Parameter` among its attributes is learned, a Module is
a part, and a Tensor announced by ``register_buffer`` is state that is saved but not learned. Whoever asks for
``parameters()`` or ``state_dict()`` walks over the attributes in the order of their assignment, own ones first,
parts after them; there is no second list to keep in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Self

import numpy as np

from tinygen.backend import array_module, as_dtype, device, device_of, move
from tinygen.nn.parameter import Parameter
from tinygen.random import Generator
from tinygen.tensor import Tensor, next_number, wrap


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` did not find, and what it had no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A part of a network: subclass it, assign the parts in ``__init__``, compute in ``forward``.

    ::

        class Block(nn.Module):
            def __init__(self, n):
                super().__init__()
                self.linear = nn.Linear(n, n)

            def forward(self, x):
                return x + F.relu(self.linear(x))

    Attributes:
        training: True after ``train()``, False after ``eval()``; Dropout and BatchNorm look at it.

    Raises (when used):
        AttributeError: a parameter or part is assigned before ``super().__init__()``.
        TypeError: something that is no Parameter, Module or Tensor takes the place of one.
        NotImplementedError: it is called, and defines no ``forward``.

    Hooks are left out: call what you need in ``forward``.

    Source: ``torch.nn.Module``.
    """

    training: bool
    _buffers: dict[str, bool]  # the names of the buffers → whether state_dict has them

    def __init__(self) -> None:
        object.__setattr__(self, "training", True)
        object.__setattr__(self, "_buffers", {})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines its own."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be called: it does not define forward(self, ...)"
            + ("; index it, or loop over it" if hasattr(self, "__iter__") else "")
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # -- assigning

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, (Parameter, Module)):
            if "_buffers" not in own:
                raise AttributeError(
                    f"{type(self).__name__}.__init__ must call super().__init__() before it assigns self.{name}"
                )
            if "." in name or not name:
                raise KeyError(f"a {type(value).__name__} cannot be called {name!r}: names are joined by dots")
        old = own.get(name)
        if value is not None and isinstance(old, (Parameter, Module)):
            kind = Parameter if isinstance(old, Parameter) else Module
            if not isinstance(value, kind):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a {type(old).__name__}, and a {type(value).__name__} cannot take "
                    f"its place: expected a {kind.__name__} or None"
                    + ("; wrap it as nn.Parameter(...)" if kind is Parameter else "")
                )
        if name in own.get("_buffers", ()) and not (value is None or type(value) is Tensor):
            if not isinstance(value, (Parameter, Module)):
                raise TypeError(
                    f"{type(self).__name__}.{name} is a buffer, and a {type(value).__name__} cannot take its place: "
                    "expected a Tensor or None"
                )
            del own["_buffers"][name]
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._buffers.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        # Python asks only for what it did not find in the ordinary way.
        if "_buffers" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() first (it needs {name})")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __deepcopy__(self, memo: dict) -> Self:
        """A twin with numbers of its own; random generators are shared, so that the two draw from one stream."""
        twin = memo[id(self)] = type(self).__new__(type(self))
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value if isinstance(value, Generator) else deepcopy(value, memo)
        return twin

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make ``self.name`` a tensor that is state but is not learned: it moves with ``to`` and is saved.

        Args:
            name: an attribute that does not exist yet.
            tensor: its value; None leaves the place empty, and unsaved.
            persistent: whether ``state_dict`` has it.

        Raises:
            AttributeError: ``super().__init__()`` was not called.
            KeyError: the name is taken, empty, or has a dot in it.
            TypeError: it is not a Tensor.
        """
        buffers = self._buffers
        if not isinstance(name, str) or "." in name or not name:
            raise KeyError(f"register_buffer: a name is a string without dots, got {name!r}")
        if hasattr(self, name) and name not in buffers:
            raise KeyError(f"register_buffer: {type(self).__name__} has an attribute {name!r} already")
        if tensor is not None and (not isinstance(tensor, Tensor) or isinstance(tensor, Parameter)):
            raise TypeError(f"register_buffer: {name} must be a Tensor or None, got {type(tensor).__name__}")
        buffers[name] = bool(persistent)
        object.__setattr__(self, name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """``self.name = param``, for names made by a program. None marks a place that is not used.

        Raises:
            KeyError: the name is taken, empty, or has a dot in it.
            TypeError: param is neither.
        """
        self._register(name, param, Parameter, "register_parameter")

    def add_module(self, name: str, module: Module | None) -> None:
        """``self.name = module``, for names made by a program.

        Raises:
            KeyError: the name is taken, empty, or has a dot in it.
            TypeError: module is neither a Module nor None.
        """
        self._register(name, module, Module, "add_module")

    register_module = add_module

    def _register(self, name: str, value: Any, kind: type, who: str) -> None:
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{who}: {name!r} must be a {kind.__name__} or None, got {type(value).__name__}")
        if not isinstance(name, str) or "." in name or not name:
            raise KeyError(f"{who}: a name is a string without dots, got {name!r}")
        if hasattr(self, name) and not isinstance(self.__dict__.get(name, ...), (kind, type(None))):
            raise KeyError(f"{who}: {type(self).__name__} has an attribute {name!r} already")
        setattr(self, name, value)

    # -- walking

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Its direct parts with their names, each part once."""
        seen: set[Module] = set()
        for name, value in self.__dict__.items():
            if isinstance(value, Module) and value not in seen:
                seen.add(value)
                yield name, value

    def children(self) -> Iterator[Module]:
        """Its direct parts."""
        return (part for _, part in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Itself, its parts, their parts, …, with dotted names; a part reached twice comes once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, value in list(self.__dict__.items()):
            if isinstance(value, Module):
                yield from value.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Itself, its parts, their parts, …"""
        return (module for _, module in self.named_modules())

    def _named(
        self, own: Callable[[Module], Iterator[tuple[str, Any]]], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(None, prefix, remove_duplicate) if recurse else iter([(prefix, self)])
        for place, module in modules:
            for name, tensor in own(module):
                if id(tensor) not in seen:
                    if remove_duplicate:
                        seen.add(id(tensor))
                    yield (f"{place}.{name}" if place else name), tensor

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, value) for name, value in list(self.__dict__.items()) if isinstance(value, Parameter))

    def _own_buffers(self) -> Iterator[tuple[str, Tensor]]:
        own = self.__dict__
        return ((name, own[name]) for name in self._buffers if own[name] is not None)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Its parameters with dotted names; one that is used in two places comes once, under its first name."""
        return self._named(Module._own_parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Its parameters: what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Its buffers with dotted names."""
        return self._named(Module._own_buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Its buffers: state that is not learned, such as running means."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The part with a dotted name, such as ``"encoder.0"``.

        Raises:
            AttributeError: there is no such part.
        """
        module = self
        for name in target.split(".") if target else []:
            part = module.__dict__.get(name)
            if not isinstance(part, Module):
                known = ", ".join(n for n, _ in module.named_children()) or "no parts"
                raise AttributeError(f"get_submodule({target!r}): {type(module).__name__} has {known}, not {name!r}")
            module = part
        return module

    # -- saving and loading

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Every parameter and persistent buffer by its dotted name: what :meth:`load_state_dict` takes.

        The tensors share their numbers with the module, as in PyTorch: save or copy them before training goes on.

        Args:
            destination: a dict to fill, instead of a new one.
            prefix: put before every name.
            keep_vars: the Parameters themselves, instead of detached tensors.
        """
        state = {} if destination is None else destination
        for place, module in self.named_modules(None, "", remove_duplicate=False):
            at = f"{prefix}{place}." if place else prefix
            saved = [(name, buffer) for name, buffer in module._own_buffers() if module._buffers[name]]
            for name, tensor in [*module._own_parameters(), *saved]:
                state[at + name] = tensor if keep_vars else tensor.detach()
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy the numbers of a state_dict into the parameters and buffers, if and only if everything fits.

        Args:
            state_dict: name → Tensor, array, or anything that ``numpy.asarray`` takes (a PyTorch tensor).
            strict: every name here must be there, and the other way round.
            assign: refused: numbers are copied, so that optimizers keep hold of their parameters.

        Returns: the names ``(missing_keys, unexpected_keys)``, both empty where strict.

        Raises:
            RuntimeError: names, shapes or dtypes differ; every difference is listed and nothing was written.
            TypeError: state_dict is not a mapping.
            NotImplementedError: assign.
        """
        if assign:
            raise NotImplementedError(
                "load_state_dict(assign=True) is not supported: numbers are copied into the parameters"
            )
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: expected a state_dict, got {type(state_dict).__name__}")
        here = self.state_dict(keep_vars=True)
        missing = [name for name in here if name not in state_dict]
        unexpected = [name for name in state_dict if name not in here]
        problems = []
        if strict:
            problems += [f"missing: {name}, {_describe(here[name])}" for name in missing]
            problems += [f"unexpected: {name}, {_describe(state_dict[name])}" for name in unexpected]
        values = {}
        for name, tensor in here.items():
            if name in state_dict:
                try:
                    array = values[name] = _as_array(state_dict[name])
                except (TypeError, ValueError, RuntimeError) as error:
                    problems.append(f"{name}: cannot be read as an array: {error}")
                    continue
                if tuple(array.shape) != tensor.shape or array.dtype != tensor.dtype:
                    problems.append(f"{name}: expected {_describe(tensor)}, got {_describe(array)}")
        if problems:
            lines = "".join(f"\n  {line}" for line in problems)
            raise RuntimeError(
                f"load_state_dict: the state does not fit this {type(self).__name__}, and nothing was loaded:{lines}"
            )
        for name, array in values.items():
            tensor = here[name]
            tensor.data[...] = move(array, tensor.device)
            tensor._written = next_number()
        return IncompatibleKeys(missing, unexpected)

    # -- changing all of it at once

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` on every part, innermost first, then on itself; for initialisations of one's own."""
        for part in self.children():
            part.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` here and in all parts: Dropout drops, BatchNorm uses the batch.

        Raises:
            ValueError: mode is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"train: expected True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """``train(False)``: Dropout does nothing, BatchNorm uses its running statistics."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Learn all parameters, or (False) none: gradients still pass through to the input."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters: None, or zeros where ``set_to_none`` is False."""
        for parameter in self.parameters():
            zero_grad(parameter, set_to_none)

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Self:
        """Move parameters, gradients and buffers to a device, floating ones to a dtype: ``to("cuda")``,
        ``to(tg.float64)``, ``to(other_tensor)``. The module itself changes, and is returned.

        Raises:
            TypeError: the dtype is not floating (integer buffers keep theirs).
            DeviceError: the device cannot be used.
        """
        for value in args:
            if isinstance(value, Tensor):
                dtype, device = value.dtype, value.device
            elif isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda"):
                device = value
            else:
                dtype = value
        if dtype is not None:
            dtype = as_dtype(dtype)
            if dtype.kind != "f":
                raise TypeError(f"Module.to: expected a floating dtype such as tg.float32, got {dtype}")
        tensors = {id(t): t for t in [*self.parameters(), *self.buffers()]}
        # All of it is computed before any of it is set: a device that is full leaves the module as it was.
        moved = [(t, _moved(t.data, dtype, device)) for t in tensors.values()]
        moved += [(t.grad, _moved(t.grad.data, dtype, device)) for t in tensors.values() if t.grad is not None]
        for tensor, array in moved:
            if array is not tensor.data:
                tensor.data = array
                tensor._written = next_number()
        return self

    def float(self) -> Self:
        """``to(tg.float32)``."""
        return self.to(dtype="float32")

    def double(self) -> Self:
        """``to(tg.float64)``."""
        return self.to(dtype="float64")

    def half(self) -> Self:
        """``to(tg.float16)``."""
        return self.to(dtype="float16")

    def cpu(self) -> Self:
        """``to("cpu")``."""
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> Self:
        """``to("cuda")``, or to the GPU of that number."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    # -- printing

    def extra_repr(self) -> str:
        """What stands between the brackets of ``repr``: the settings."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {value!r}" for name, value in self._shown()]
        settings = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({settings})"
        body = "\n".join([settings, *lines] if settings else lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"

    def _shown(self) -> Iterator[tuple[str, Module | None]]:
        return ((name, value) for name, value in self.__dict__.items() if isinstance(value, Module))


def zero_grad(tensor: Tensor, set_to_none: bool) -> None:
    """Forget a gradient. A new array of zeros, not a write: somebody may have kept the old gradient."""
    if tensor.grad is not None:
        grad = tensor.grad.data
        tensor.grad = None if set_to_none else wrap(array_module(grad).zeros_like(grad))


def _moved(array: Any, dtype: np.dtype | None, place: str | None) -> Any:
    if place is not None:
        array = move(array, device(place))
    return array.astype(dtype, copy=False) if dtype is not None and array.dtype.kind == "f" else array


def _as_array(value: Any) -> Any:
    """The array in a Tensor, an array, or a tensor of another library."""
    if isinstance(value, Tensor):
        return value.data
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
    try:
        device_of(value)
        return value
    except TypeError:
        pass
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"it is a {type(value).__name__}, not an array of numbers")
    return array


def _describe(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"a {type(value).__name__}" if shape is None or dtype is None else f"{dtype} {tuple(shape)}"
