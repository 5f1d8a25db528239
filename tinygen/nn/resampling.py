"""Upsample and PixelShuffle: larger pictures without learned filters."""

from __future__ import annotations

from typing import Any

from tinygen.nn import functional as F
from tinygen.nn.module import Module
from tinygen.tensor import Tensor


class Upsample(Module):
    """y_o = x[⌊o·n/m⌋], or x at (o + ½)·n/m − ½: the picture at another resolution. See ``F.interpolate``.

    Shapes: (N, C, H, W) → (N, C, H', W').

    Args:
        size: H', W': an integer or a pair; or
        scale_factor: H'/H, W'/W: a number or a pair.
        mode: ``"nearest"`` or ``"bilinear"``.
        align_corners: for bilinear: whether the middles of the corner pixels stay where they are.
        recompute_scale_factor: use the whole-number sizes in the formula though a scale_factor was given.

    Raises:
        ValueError, TypeError, NotImplementedError: the settings or the input do not fit together (when called).

    Source: ``torch.nn.Upsample``.
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        if isinstance(scale_factor, (tuple, list)):
            self.scale_factor: Any = tuple(float(s) for s in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode, self.align_corners, self.recompute_scale_factor = mode, align_corners, recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The picture at its new size."""
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        size = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{size}, mode={self.mode!r}"


class PixelShuffle(Module):
    """y[c, r·i + u, r·j + v] = x[c·r² + r·u + v, i, j]: r² channels become one channel of r times the size.

    Shapes: (*, C·r², H, W) → (*, C, r·H, r·W).

    Args:
        upscale_factor: r.

    Raises:
        ValueError: r² does not divide the input's channels (when called).

    Source: Shi et al. 2016; ``torch.nn.PixelShuffle``.
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        """The larger picture."""
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"upscale_factor={self.upscale_factor}"
