"""Normalisation layers: numbers brought to mean 0 and variance 1, then scaled and shifted as learned.

    y = (x − μ)/√(σ² + ε) · γ + β

They differ in what μ and σ² are taken over: the batch and the picture (BatchNorm), all features of one example
(LayerNorm), the picture and a group of channels (GroupNorm), the picture alone (InstanceNorm). γ is called ``weight``,
β ``bias``. Formulas are in :mod:`tinygen.ops.normalization`, derivatives in :mod:`tinygen.ops.standardization`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygen.creation import ones, tensor, zeros
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.module import Module
from tinygen.nn.parameter import Parameter, empty_parameter
from tinygen.ops.collective import all_sum
from tinygen.ops.elementwise import rsqrt
from tinygen.ranks import parts_of
from tinygen.recording import no_grad
from tinygen.tensor import Tensor


class _Affine(Module):
    """γ and β: γ = 1 and β = 0 at first."""

    weight: Parameter | None
    bias: Parameter | None

    def _make_affine(self, shape: tuple[int, ...], affine: bool, bias: bool, dtype: Any, device: str | None) -> None:
        self.weight = empty_parameter(*shape, dtype=dtype, device=device) if affine else None
        self.bias = empty_parameter(*shape, dtype=dtype, device=device) if affine and bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to γ = 1, β = 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _Running(_Affine):
    """BatchNorm and InstanceNorm: one γ and β for each channel, and running statistics for ``eval()``."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: str | None,
        dtype: Any,
        bias: bool,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        tracked = track_running_stats
        self._make_affine((num_features,), affine, bias, dtype, device)
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype, device=device) if tracked else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype, device=device) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype="int64", device=device) if tracked else None)

    def reset_running_stats(self) -> None:
        """Back to mean 0, variance 1, no batches seen."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.copy_(0)
            self.running_var.copy_(1)
            self.num_batches_tracked.copy_(0)

    def _check(self, input: Tensor) -> None:
        raise NotImplementedError

    def _check_features(self, input: Tensor, axis: int, form: str) -> None:
        if input.shape[axis] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}({self.num_features}): expected {form} with C = {self.num_features}, got shape "
                f"{input.shape}"
            )

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Running):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        """x normalised by the batch's statistics while training, by the running ones in ``eval()``."""
        self._check(input)
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        use_batch = self.training or mean is None
        if not self.training:
            return F.batch_norm(input, mean, var, self.weight, self.bias, use_batch, 0.0, self.eps)
        momentum = self.momentum
        if momentum is None:
            # The mean of all batches so far: r ← (1 − 1/n) r + (1/n) x.
            momentum = 0.0 if count is None else 1.0 / (int(count.item()) + 1)
        if (shared := parts_of(input.shape[0])) is not None:
            y = self._together(input, *shared, momentum)
        else:
            y = F.batch_norm(input, mean, var, self.weight, self.bias, use_batch, momentum, self.eps)
        if count is not None:
            count.copy_(count.data + 1)
        return y

    def _together(self, x: Tensor, ranks: Any, parts: int, momentum: float) -> Tensor:
        """The same where the batch was dealt out: μ = Σ x/n and σ² = Σ (x − μ)²/n, over what all ranks have."""
        axes = (0, *range(2, x.ndim))
        along = (1, -1, *[1] * (x.ndim - 2))
        n = parts * x.numel() // self.num_features
        μ = all_sum(x.sum(axes), ranks) / n
        centred = x - μ.reshape(along)
        σ2 = all_sum((centred * centred).sum(axes), ranks) / n
        y = centred * rsqrt(σ2 + self.eps).reshape(along)
        if self.running_mean is not None and self.running_var is not None:
            with no_grad():
                self.running_mean.copy_((1 - momentum) * self.running_mean + momentum * μ)
                self.running_var.copy_((1 - momentum) * self.running_var + momentum * n / (n - 1) * σ2)
        if self.weight is not None:
            y = y * self.weight.reshape(along)
        return y if self.bias is None else y + self.bias.reshape(along)


class BatchNorm1d(_BatchNorm):
    """y = (x − μ)/√(σ² + ε)·γ + β, with μ and σ² of each feature over the batch (and over positions).

    While training, μ and σ² (dividing by n) are the batch's, and running averages are kept:

        running ← (1 − momentum)·running + momentum·batch's      (σ² dividing by n − 1 here, as in PyTorch)

    which ``eval()`` uses. ``momentum=None`` averages over all batches equally; ``track_running_stats=False`` keeps
    none, and ``eval()`` then uses the batch's too.

    Shapes: (N, C) → (N, C), or (N, C, L) → (N, C, L).

    Args:
        num_features: C.
        eps: ε. It is the second argument: ``BatchNorm1d(n, 0.8)`` sets ε = 0.8, not the momentum.
        momentum: how much the newest batch counts in the running averages.
        affine, bias: whether γ, and β with it, are there.
        track_running_stats: whether running averages are.
        device, dtype: of all of it.

    Attributes:
        weight, bias: γ, β, (C). running_mean, running_var: (C). num_batches_tracked: how many batches were seen.

    Raises:
        ValueError: (when called) the shape does not fit, or there is but one number per feature while training.

    Source: Ioffe & Szegedy 2015, Algorithm 1; ``torch.nn.BatchNorm1d``.
    """

    def _check(self, input: Tensor) -> None:
        if input.ndim not in (2, 3):
            raise ValueError(f"BatchNorm1d: expected (N, C) or (N, C, L), got shape {input.shape}")
        self._check_features(input, 1, "(N, C) or (N, C, L)")


class BatchNorm2d(_BatchNorm):
    """y = (x − μ)/√(σ² + ε)·γ + β, with μ and σ² of each channel over the batch and the picture.

    Shapes: (N, C, H, W) → (N, C, H, W). Everything else as :class:`BatchNorm1d`; here too the second argument is ε:
    ``BatchNorm2d(n, 0.8)`` sets ε = 0.8, a mistake often copied.

    Source: Ioffe & Szegedy 2015, section 3.2; ``torch.nn.BatchNorm2d``.
    """

    def _check(self, input: Tensor) -> None:
        if input.ndim != 4:
            raise ValueError(f"BatchNorm2d: expected (N, C, H, W), got shape {input.shape}")
        self._check_features(input, 1, "(N, C, H, W)")


class InstanceNorm2d(_Running):
    """y = (x − μ)/√(σ² + ε)·γ + β, with μ and σ² of each channel of each example over the picture.

    Shapes: (N, C, H, W) → (N, C, H, W), or both without N.

    Args:
        num_features: C.
        eps: ε.
        momentum: how much the newest batch counts in the running averages.
        affine, bias: whether γ, and β with it, are there; not by default.
        track_running_stats: whether running averages (over the batch, too) are kept and used in ``eval()``; not by
            default.
        device, dtype: of all of it.

    Raises:
        ValueError: (when called) the shape does not fit, or a picture has but one pixel.

    Source: Ulyanov, Vedaldi & Lempitsky 2016; ``torch.nn.InstanceNorm2d``.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in (3, 4):
            raise ValueError(f"InstanceNorm2d: expected (N, C, H, W) or (C, H, W), got shape {input.shape}")
        self._check_features(input, -3, "(N, C, H, W) or (C, H, W)")

    def forward(self, input: Tensor) -> Tensor:
        """x normalised picture by picture."""
        self._check(input)
        if input.ndim == 3:
            return self.forward(input.unsqueeze(0)).squeeze(0)
        own = self.training or self.running_mean is None
        momentum = 0.0 if self.momentum is None else self.momentum
        return F.instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, own, momentum, self.eps
        )


class LayerNorm(_Affine):
    """y = (x − μ)/√(σ² + ε)·γ + β, with μ and σ² over the last axes of each example.

    Shapes: (*, normalized_shape) → the same.

    Args:
        normalized_shape: the lengths of the axes to normalise over; an integer for the last one alone.
        eps: ε.
        elementwise_affine, bias: whether γ, and β with it, are there, of shape normalized_shape.
        device, dtype: of γ and β.

    Raises:
        ValueError: (when called) the last axes have other lengths.

    Source: Ba, Kiros & Hinton 2016; ``torch.nn.LayerNorm``.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self._make_affine(shape, elementwise_affine, bias, dtype, device)

    def forward(self, input: Tensor) -> Tensor:
        """x normalised over its last axes."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(_Affine):
    """y = (x − μ)/√(σ² + ε)·γ + β, with μ and σ² of each example over a group of C/G channels and the picture.

    Shapes: (N, C, *) → (N, C, *).

    Args:
        num_groups: G, which divides C.
        num_channels: C.
        eps: ε.
        affine, bias: whether γ, and β with it, are there: one of each for each channel.
        device, dtype: of γ and β.

    Raises:
        ValueError: num_groups does not divide num_channels, or (when called) the shape does not fit.

    Source: Wu & He 2018; ``torch.nn.GroupNorm``.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups={num_groups} must divide num_channels={num_channels}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self._make_affine((num_channels,), affine, bias, dtype, device)

    def forward(self, input: Tensor) -> Tensor:
        """x normalised group by group."""
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: expected (N, {self.num_channels}, *), got shape {input.shape}")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
