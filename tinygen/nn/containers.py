"""Modules made of modules: Sequential, ModuleList, ModuleDict.

A plain list or dict of modules hides them from ``parameters()``; these three do not. Parts are attributes named by
their position ("0", "1", …) or key. Source: ``torch.nn.NAME``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from tinygen.nn.module import Module


def _module(value: Any, who: str) -> Module:
    if not isinstance(value, Module):
        hint = f"; did you mean {value.__name__}()?" if isinstance(value, type) and issubclass(value, Module) else ""
        raise TypeError(f"{who}: expected a Module, got {type(value).__name__}: {value!r}{hint}")
    return value


class _Parts(Module):
    """What Sequential and ModuleList share: parts in a row."""

    def _parts(self) -> dict[str, Module]:
        return {name: value for name, value in self.__dict__.items() if isinstance(value, Module)}

    def _name(self, index: int) -> str:
        """The name of the part at a position.

        Raises:
            IndexError: there are not so many.
        """
        names = list(self._parts())
        at = operator.index(index)
        if not -len(names) <= at < len(names):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range, it has {len(names)} modules")
        return names[at]

    def _replace(self, modules: Iterable[Module]) -> None:
        """New parts, numbered from 0, in place of the old."""
        new = [_module(module, type(self).__name__) for module in modules]
        for name in self._parts():
            delattr(self, name)
        for i, module in enumerate(new):
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return len(self._parts())

    def __bool__(self) -> bool:
        return True  # `if module:` asks whether there is one, not whether it has parts

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._parts().values()))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), _module(module, type(self).__name__))

    def __delitem__(self, index: int | slice) -> None:
        parts = list(self)
        if not isinstance(index, slice):
            self._name(index)
        del parts[index]
        self._replace(parts)

    def append(self, module: Module) -> Self:
        """Put a part at the end.

        Raises:
            TypeError: it is not a Module.
        """
        setattr(self, str(len(self)), _module(module, f"{type(self).__name__}.append"))
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Put several parts at the end.

        Raises:
            TypeError: one of them is not a Module; then none was put.
        """
        for module in [_module(module, f"{type(self).__name__}.extend") for module in modules]:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a part before the one at ``index``.

        Raises:
            TypeError: it is not a Module.
        """
        parts: list[Module] = list(self)
        parts.insert(index, _module(module, f"{type(self).__name__}.insert"))
        self._replace(parts)
        return self

    def pop(self, index: int | slice) -> Module:
        """Take a part out and return it.

        Raises:
            IndexError: there is none.
        """
        module = self[index]
        del self[index]
        return module

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(*list(self)[index])
        return getattr(self, self._name(index))


class Sequential(_Parts):
    """y = fₙ(… f₂(f₁(x))): each part takes what the one before it returns.

    Args:
        args: the parts in order; or one dict of names and parts.

    ``net[0]``, ``net[-1]``, ``net[1:3]``, ``len(net)``, loops, ``append``, ``insert``, ``extend``, ``pop`` work as on a
    list; a slice is a Sequential of the same parts, not of copies.

    Raises:
        TypeError: a part is not a Module.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, _module(module, "Sequential"))
        else:
            self.extend(args)

    def forward(self, input: Any) -> Any:
        """fₙ(… f₂(f₁(input)))."""
        for module in self._parts().values():
            input = module(input)
        return input

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(list(self._parts().items())[index]))
        return super().__getitem__(index)


class ModuleList(_Parts):
    """A list of modules, for a ``forward`` that says how they are used.

    Args:
        modules: any iterable of Modules.

    Raises:
        TypeError: one of them is not a Module.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            if isinstance(modules, Module) and not hasattr(modules, "__iter__"):
                raise TypeError(f"ModuleList: expected a list of Modules, got one {type(modules).__name__}")
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return super().__getitem__(index)

    def __repr__(self) -> str:
        """As PyTorch: neighbours that print the same are printed once, ``(0-2): 3 x Linear(...)``."""
        runs: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        if not runs:
            return f"{type(self).__name__}()"
        lines = [f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in runs]
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"


class ModuleDict(Module):
    """A dict of modules, for a ``forward`` that says how they are used.

    Args:
        modules: a dict of names and Modules, or pairs of them.

    Raises:
        TypeError: a value is not a Module.
        KeyError: a key is no name for a part: empty, with a dot in it, or taken by a method.
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        value = self.__dict__.get(key)
        if not isinstance(value, Module):
            raise KeyError(f"ModuleDict has {', '.join(map(repr, self.keys())) or 'no modules'}, not {key!r}")
        return value

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, _module(module, "ModuleDict"))

    def __delitem__(self, key: str) -> None:
        self[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self.keys())

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def keys(self) -> list[str]:
        """The names, in the order in which they were put in."""
        return [name for name, value in self.__dict__.items() if isinstance(value, Module)]

    def values(self) -> list[Module]:
        """The modules."""
        return [self[name] for name in self.keys()]

    def items(self) -> list[tuple[str, Module]]:
        """Names and modules."""
        return [(name, self[name]) for name in self.keys()]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Put in, or replace, several.

        Raises:
            TypeError: a value is not a Module; then none was put in.
        """
        new = dict(modules)
        for module in new.values():
            _module(module, "ModuleDict.update")
        for name, module in new.items():
            self[name] = module

    def pop(self, key: str) -> Module:
        """Take one out and return it.

        Raises:
            KeyError: there is none of that name.
        """
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Take all out."""
        for name in self.keys():
            delattr(self, name)
