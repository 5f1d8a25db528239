"""Spectral normalisation: a layer's weight divided by its largest singular value, so that the layer is 1-Lipschitz.

Source: Miyato, Kataoka, Koyama & Yoshida, *Spectral normalization for generative adversarial networks* (2018).
"""

from __future__ import annotations

from typing import Any

from tinygen.backend import array_module, capture
from tinygen.nn.convolution import ConvTranspose2d
from tinygen.nn.module import Module
from tinygen.nn.parameter import Parameter
from tinygen.ops.matmul import matrix_product
from tinygen.ops.shape import moveaxis
from tinygen.random import Generator, randn
from tinygen.tensor import Tensor, wrap


class SpectralNorm:
    """What ``spectral_norm`` keeps in a module: which parameter is normalised, and how."""

    def __init__(self, name: str, n_power_iterations: int, eps: float, dim: int) -> None:
        self.name, self.n_power_iterations, self.eps, self.dim = name, n_power_iterations, eps, dim

    def matrix(self, weight: Tensor) -> Tensor:
        """W as a matrix: the axis of outputs first, all others together."""
        return moveaxis(weight, self.dim, 0).reshape(weight.shape[self.dim], -1)

    def normalize(self, x: Any) -> Any:
        """x/max(‖x‖, ε) of an array."""
        xp = array_module(x)
        return x / xp.maximum(xp.sqrt((x * x).sum(keepdims=True)), self.eps)

    def iterate(self, module: Module) -> None:
        """Power iteration: v ← Wᵀu/‖Wᵀu‖, u ← Wv/‖Wv‖ turns u, v towards the first singular vectors of W.

        The buffers get new arrays: a graph recorded before keeps the u and v that it was recorded with.
        """
        W = self.matrix(getattr(module, self.name + "_orig").detach()).data
        u, v = getattr(module, self.name + "_u").data, getattr(module, self.name + "_v").data
        for _ in range(self.n_power_iterations):
            v = self.normalize(matrix_product(W.T, u[:, None])[:, 0])
            u = self.normalize(matrix_product(W, v[:, None])[:, 0])
        recorder = capture.get()
        if recorder is not None:  # the step's own u and v are copied to where the first ones lie, at its end
            recorder.keeps(module, self.name + "_u")
            recorder.keeps(module, self.name + "_v")
        setattr(module, self.name + "_u", wrap(u))
        setattr(module, self.name + "_v", wrap(v))

    def weight(self, module: Module) -> Tensor:
        """W/σ with σ = uᵀ W v, differentiable through both W; u and v are constants (Miyato et al., eq. 10)."""
        W = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        return W / (u @ (self.matrix(W) @ v))


_subclasses: dict[tuple[type, str], type] = {}


def _subclass(base: type, name: str) -> type:
    """The class of modules of class ``base`` whose parameter ``name`` is normalised."""
    if (base, name) not in _subclasses:
        key = f"_{name}_norm"

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.training:
                self.__dict__[key].iterate(self)
            return base.forward(self, *args, **kwargs)  # type: ignore[attr-defined]

        computed = property(lambda self: self.__dict__[key].weight(self), doc="The normalised weight, W/σ.")
        body = {"forward": forward, name: computed, "__doc__": base.__doc__, "__module__": base.__module__}
        _subclasses[base, name] = type(base.__name__, (base,), body)
    return _subclasses[base, name]


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    rng: Generator | None = None,
) -> Module:
    """Make ``module.weight`` the parameter W divided by its largest singular value σ, wherever the module uses it.

        σ = uᵀ W v,    with v ← Wᵀu/‖Wᵀu‖, u ← Wv/‖Wv‖ in every forward while training (not in ``eval()``).

    The gradient goes through W and through σ, with u and v held constant:

        ∂L/∂W = (1/σ)·(G − ⟨G, W/σ⟩·u vᵀ),    G = ∂L/∂(W/σ).

    The parameter itself becomes ``weight_orig``, and u and v the buffers ``weight_u`` and ``weight_v``: the keys of
    ``torch.nn.utils.spectral_norm``, whose state_dicts load. (PyTorch's newer
    ``torch.nn.utils.parametrizations.spectral_norm`` uses other keys and starts with 15 more iterations.)

    Shapes: W as a matrix (n_out, Π of the rest), u (n_out), v (Π of the rest).

    Args:
        module: whose forward uses the parameter; it is changed and returned.
        name: the parameter's.
        n_power_iterations: in every forward, ≥ 1.
        eps: ε, under ‖·‖, against division by 0.
        dim: the axis of outputs; 0 where omitted, or 1 for ConvTranspose2d.
        rng: draws u and v.

    Raises:
        AttributeError: the module has no parameter of that name.
        RuntimeError: it is normalised already.
        ValueError: n_power_iterations is not positive.

    Source: Miyato et al. 2018, Algorithm 1 and eq. 8 to 12.
    """
    if n_power_iterations < 1:
        raise ValueError(f"spectral_norm: n_power_iterations must be at least 1, got {n_power_iterations}")
    if f"_{name}_norm" in module.__dict__:
        raise RuntimeError(f"spectral_norm: {type(module).__name__}.{name} is normalised already")
    W = module.__dict__.get(name)
    if not isinstance(W, Parameter):
        raise AttributeError(f"spectral_norm: {type(module).__name__} has no parameter {name!r}")
    if dim is None:
        dim = 1 if isinstance(module, ConvTranspose2d) else 0
    norm = SpectralNorm(name, n_power_iterations, eps, dim)
    h, w = norm.matrix(W).shape
    u, v = (norm.normalize(randn(n, rng=rng, dtype=W.dtype, device=W.device).data) for n in (h, w))
    delattr(module, name)
    setattr(module, f"{name}_orig", W)
    module.register_buffer(f"{name}_u", wrap(u))
    module.register_buffer(f"{name}_v", wrap(v))
    setattr(module, f"_{name}_norm", norm)
    module.__class__ = _subclass(type(module), name)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """W ← W/σ, once and for all: undo :func:`spectral_norm`, which divides in every forward.

    Shapes: (*), as it was.

    Raises:
        ValueError: the module's parameter is not normalised.

    Source: ``torch.nn.utils.remove_spectral_norm``.
    """
    if f"_{name}_norm" not in module.__dict__:
        raise ValueError(f"remove_spectral_norm: {type(module).__name__}.{name} is not normalised")
    weight = getattr(module, name).detach()
    requires_grad = getattr(module, f"{name}_orig").requires_grad
    for attribute in (f"{name}_orig", f"{name}_u", f"{name}_v", f"_{name}_norm"):
        delattr(module, attribute)
    module.__class__ = type(module).__bases__[0]
    setattr(module, name, Parameter(weight, requires_grad))
    return module
