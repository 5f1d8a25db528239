"""The public names of tinygen, each once: where it is read, where it is defined, what it states."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from docstrings import Docstring, formula, parse
from located import ROOT, Located, locate, tree_of

# Where users find names. A name of several faces belongs to the first.
FACES = (
    "tinygen",
    "tinygen.nn.functional",
    "tinygen.nn",
    "tinygen.nn.init",
    "tinygen.nn.utils",
    "tinygen.optim",
    "tinygen.optim.lr_scheduler",
    "tinygen.distributions",
    "tinygen.models",
    "tinygen.models.vae",
    "tinygen.models.gan",
    "tinygen.models.diffusion",
    "tinygen.metrics",
    "tinygen.data",
    "tinygen.training",
    "tinygen.viz",
    "tinygen.testing",
    "tinygen.cuda",
)


@dataclass(frozen=True)
class Symbol:
    """A public function or class, or an op of tinygen.ops that only its family calls.

    ``name`` is how it is imported; ``defined`` is where it stands: ``tinygen.ops.convolution.conv2d``.
    """

    name: str
    defined: str
    kind: str  # "function", "class", "method" or "op"

    @cached_property
    def object(self) -> Any:
        """The function or class itself, without what was put around it."""
        return inspect.unwrap(_get(self.defined))

    @cached_property
    def doc(self) -> Docstring:
        """Its own docstring in parts."""
        raw = self.object.__dict__.get("__doc__") if inspect.isclass(self.object) else self.object.__doc__
        return parse(inspect.cleandoc(raw) if raw else "")

    @cached_property
    def formula(self) -> list[str]:
        """The formula that it states."""
        return formula(self.doc)

    @cached_property
    def located(self) -> Located:
        """File and lines."""
        return locate(self.defined)

    @property
    def short(self) -> str:
        """The name by which tests call it."""
        return self.defined.rpartition(".")[2]


def _get(dotted: str) -> Any:
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            value = inspect.getattr_static(value, part)
            if isinstance(value, (classmethod, staticmethod)):
                value = value.__func__
            elif isinstance(value, property):
                value = value.fget
        return value
    raise LookupError(dotted)


def _defined(value: Any) -> str:
    value = inspect.unwrap(value)
    return f"{value.__module__}.{value.__qualname__}"


def _belongs(value: Any, face: str) -> bool:
    module = getattr(inspect.unwrap(value), "__module__", "") or ""
    if face in ("tinygen", "tinygen.nn.functional"):
        return module.startswith("tinygen")
    return module == face or module.startswith(face + ".")


def names_of(face: str) -> dict[str, Any]:
    """The functions and classes that a face offers, in the order in which it names them."""
    module = importlib.import_module(face)
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(inspect.unwrap(value)) or inspect.isclass(value))
        and not isinstance(value, types.ModuleType)
        and _belongs(value, face)
    }


@cache
def public() -> dict[str, Symbol]:
    """Every public function and class by the name under which it is imported."""
    found: dict[str, Symbol] = {}
    seen = set()
    for face in FACES:
        for name, value in names_of(face).items():
            defined = _defined(value)
            if defined not in seen:
                seen.add(defined)
                kind = "class" if inspect.isclass(value) else "function"
                found[f"{face}.{name}"] = Symbol(f"{face}.{name}", defined, kind)
    return found


@cache
def by_definition() -> dict[str, Symbol]:
    """The same by where it is defined."""
    return {symbol.defined: symbol for symbol in public().values()}


@cache
def ops() -> list[Symbol]:
    """Every op that tinygen.ops declares, private ones too."""
    from tinygen.op import registry

    found = []
    for op in registry.values():
        if op.module.startswith("tinygen.ops"):
            defined = f"{op.module}.{op.forward.__qualname__}"
            known = by_definition().get(defined)
            found.append(Symbol(known.name if known else defined, defined, "op"))
    return sorted(found, key=lambda s: (s.defined.rpartition(".")[0], s.located.first))


def methods(symbol: Symbol) -> Iterator[Symbol]:
    """A class's own public methods and properties, in the order of the file."""
    for name, value in vars(symbol.object).items():
        inner = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        inner = inner.fget if isinstance(inner, property) else inner
        own = inspect.isfunction(inner) and inner.__qualname__ == f"{symbol.object.__qualname__}.{name}"
        if not name.startswith("_") and own:
            yield Symbol(f"{symbol.name}.{name}", f"{symbol.defined}.{name}", "method")


def symbol_at(name: str) -> Symbol | None:
    """The symbol of a dotted name, by which it is imported or defined; private functions and methods too."""
    if not name.startswith("tinygen."):
        return None
    if name in public():
        return public()[name]
    if name in by_definition():
        return by_definition()[name]
    for op in ops():
        if name in (op.name, op.defined):
            return op
    base, _, last = name.rpartition(".")
    owner = public().get(base) or by_definition().get(base)
    if owner is not None and owner.kind == "class":
        return {method.short: method for method in methods(owner)}.get(last)
    try:
        locate(name)
        value = _get(name)
    except (LookupError, AttributeError):
        return None
    if inspect.isclass(value):
        return Symbol(name, name, "class")
    return Symbol(name, name, "function") if callable(value) else None


# ---------------------------------------------------------------------------------------------- groups

# Title → the modules whose public functions, classes and ops need a formula, a line and a test. The first that fits.
GROUPS = {
    "Elementwise": "ops.elementwise ops.comparison",
    "Activations": "ops.activations nn.activation",
    "Sums and other reductions": "ops.reduction",
    "Softmax and attention": "ops.softmax ops.attention nn.attention",
    "Matrix products and linear layers": "ops.matmul ops.linear nn.linear",
    "Convolution": "ops.convolution ops.unfold nn.convolution",
    "Pooling": "ops.pooling ops.axis_windows nn.pooling",
    "Resampling and padding": "ops.resampling ops.padding nn.resampling",
    "Shapes": "ops.shape ops.conversion nn.shape",
    "Indexing and embedding": "ops.indexing ops.embedding nn.sparse",
    "Normalisation": (
        "ops.standardization ops.layer_normalization ops.normalization nn.normalization nn.utils.spectral_norm"
    ),
    "Dropout": "ops.dropout nn.dropout",
    "Losses": "ops.losses ops.cross_entropy nn.loss",
    "Losses of GANs": "models.gan.losses models.gan.penalties models.gan.optimum models.gan.coverage",
    "Optimisers": "optim.adam optim.sgd optim.rmsprop optim.ema nn.utils.clip_grad",
    "Learning-rate schedules": "optim.lr_scheduler",
    "Initial weights": "nn.init",
    "Distributions": "distributions",
    "Autoencoders": "models.autoencoder models.corruption",
    "Variational autoencoders": "models.vae",
    "GANs": "models.gan",
    "Samplers of diffusion models": "models.diffusion.samplers models.diffusion.editing",
    "Diffusion": "models.diffusion",
    "Other models": "models",
    "Metrics": "metrics",
    "Other layers": "nn.containers",
    "Other operations": "ops",
}

# The chapter of docs/math that is about a group; a symbol that a chapter shows has that chapter.
CHAPTERS = {
    "Activations": "weighted_sum",
    "Softmax and attention": "softmax",
    "Matrix products and linear layers": "matrix_product",
    "Convolution": "convolution",
    "Pooling": "pooling",
    "Normalisation": "normalization",
    "Losses": "softmax",
    "Losses of GANs": "gan",
    "Optimisers": "adam",
    "Distributions": "vae",
    "Autoencoders": "autoencoder",
    "Variational autoencoders": "vae",
    "GANs": "gan",
    "Samplers of diffusion models": "ddpm",
    "Diffusion": "ddpm",
}

# What stands in these files and computes nothing that a formula could say.
NO_FORMULA = {
    "tinygen.nn.containers.ModuleDict": "a container",
    "tinygen.nn.containers.ModuleList": "a container",
    "tinygen.optim.lr_scheduler.LRScheduler": "what the schedules share",
    "tinygen.distributions.Distribution": "what the distributions share",
    "tinygen.models.autoencoder.Autoencoder": "what the autoencoders share",
    "tinygen.models.gan.losses.AdversarialLoss": "what the losses share",
    "tinygen.models.gan.losses.adversarial_loss": "looks a loss up by its name",
    "tinygen.metrics.classifier.about_classifier": "reads a file",
    "tinygen.metrics.classifier.digit_classifier": "reads a file",
    "tinygen.metrics.judge.judge_samples": "calls the other metrics",
}


def is_record(symbol: Symbol) -> bool:
    """Whether a class only holds what a function found."""
    value = symbol.object
    return symbol.kind == "class" and (issubclass(value, tuple) or hasattr(value, "__dataclass_fields__"))


def _place(module: str, order: list[str]) -> int:
    return next(i for i, name in enumerate(order) if module == name or module.startswith(name + "."))


@cache
def groups() -> dict[str, list[Symbol]]:
    """The index: every symbol that needs a formula, by group, in the order of the files."""
    found: dict[str, list[Symbol]] = {title: [] for title in GROUPS}
    known = {symbol.defined: symbol for symbol in [*public().values(), *ops()]}
    for symbol in known.values():
        module = symbol.object.__module__
        if symbol.defined in NO_FORMULA or is_record(symbol):
            continue
        fits = [
            (len(name), title)
            for title, names in GROUPS.items()
            for name in names.split()
            if module == f"tinygen.{name}" or module.startswith(f"tinygen.{name}.")
        ]
        if fits:
            found[max(fits)[1]].append(symbol)
    for title, symbols in found.items():
        order = [f"tinygen.{name}" for name in GROUPS[title].split()]
        symbols.sort(key=lambda s: (_place(s.object.__module__, order), s.object.__module__, s.located.first))
    return {title: symbols for title, symbols in found.items() if symbols}


def module_docstring(defined: str) -> str:
    """The docstring of the file in which something is defined."""
    return ast.get_docstring(tree_of(ROOT / locate(defined).path)) or ""
