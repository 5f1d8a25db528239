"""Pooling layers: a window's maximum or mean stands for the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygen.nn import functional as F
from tinygen.nn.module import Module
from tinygen.tensor import Tensor

Lengths = int | Sequence[int]


class MaxPool2d(Module):
    """y[i, j] = max over k, l of x[s·i + d·k − p, s·j + d·l − p]: the maximum of every window. See ``F.max_pool2d``.

    Shapes: (N, C, H, W) → (N, C, Ho, Wo), or both without N; Ho = ⌊(H + 2p − d(k − 1) − 1)/s⌋ + 1, or ⌈…⌉ for
    ceil_mode.

    Args:
        kernel_size, stride, padding, dilation: k, s (k where omitted), p, d: an integer or (vertical, horizontal).
        return_indices: return also where each maximum stood in its H·W picture.
        ceil_mode: allow a last window that hangs over the edge.

    Raises:
        ValueError, TypeError: the settings or the input do not fit together (when called).

    Source: ``torch.nn.MaxPool2d``.
    """

    def __init__(
        self,
        kernel_size: Lengths,
        stride: Lengths | None = None,
        padding: Lengths = 0,
        dilation: Lengths = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Tensor) -> Any:
        """The maxima; and their places, where asked for."""
        return F.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """y[i, j] = mean over k, l of x[s·i + k − p, s·j + l − p]: the mean of every window. See ``F.avg_pool2d``.

    Shapes: (N, C, H, W) → (N, C, Ho, Wo), or both without N; Ho = ⌊(H + 2p − k)/s⌋ + 1, or ⌈…⌉ for ceil_mode.

    Args:
        kernel_size, stride, padding: k, s (k where omitted), p: an integer or (vertical, horizontal).
        ceil_mode: allow a last window that hangs over the edge.
        count_include_pad: whether the padding's zeros count in the mean.
        divisor_override: divide by this number instead of by the window's.

    Raises:
        ValueError, TypeError: the settings or the input do not fit together (when called).

    Source: ``torch.nn.AvgPool2d``.
    """

    def __init__(
        self,
        kernel_size: Lengths,
        stride: Lengths | None = None,
        padding: Lengths = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        """The means."""
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """y = the means of H' × W' windows that cover x, whatever its size. See ``F.adaptive_avg_pool2d``.

    Shapes: (N, C, H, W) → (N, C, H', W'), or both without N.

    Args:
        output_size: an integer or (H', W'); None keeps the input's.

    Raises:
        ValueError, TypeError: the size or the input is malformed (when called).

    Source: ``torch.nn.AdaptiveAvgPool2d``.
    """

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """The means."""
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"output_size={self.output_size}"
