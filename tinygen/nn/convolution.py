"""Conv2d and ConvTranspose2d: filters that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygen.arguments import refuse
from tinygen.nn import functional as F
from tinygen.nn.linear import draw_weight_and_bias
from tinygen.nn.module import Module
from tinygen.nn.parameter import empty_parameter
from tinygen.ops.unfold import pair
from tinygen.random import Generator
from tinygen.tensor import Tensor

Lengths = int | Sequence[int]


class _Conv(Module):
    """What both directions share: the settings, the parameters and how they are printed."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Lengths,
        stride: Lengths,
        padding: Lengths | str,
        dilation: Lengths,
        output_padding: Lengths,
        groups: int,
        bias: bool,
        padding_mode: str,
        weight_channels: tuple[int, int],
        device: str | None,
        dtype: Any,
        rng: Generator | None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        refuse(who, "pad with F.pad first", padding_mode=(padding_mode, "zeros"))
        if not isinstance(groups, int) or groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{who}: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(kernel_size, who, "kernel_size", 1)
        self.stride = pair(stride, who, "stride", 1)
        self.padding = padding if isinstance(padding, str) else pair(padding, who, "padding")
        self.dilation = pair(dilation, who, "dilation", 1)
        self.output_padding = pair(output_padding, who, "output_padding")
        first, second = weight_channels
        self.weight = empty_parameter(first, second // groups, *self.kernel_size, dtype=dtype, device=device)
        self.bias = empty_parameter(out_channels, dtype=dtype, device=device) if bias else None
        self.reset_parameters(rng)

    def reset_parameters(self, rng: Generator | None = None) -> None:
        """Draw the parameters anew."""
        draw_weight_and_bias(self.weight, self.bias, rng)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them: those that are not the default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.output_padding != (0, 0):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        return text if self.bias is not None else text + ", bias=False"


class Conv2d(_Conv):
    """y[o] = b[o] + Σ_c w[o, c] ⋆ x[c]: every filter w[o] slides over the picture; no flip. See ``F.conv2d``.

    Shapes: (N, C, H, W) → (N, O, Ho, Wo), or both without N; Ho = ⌊(H + 2p − d(k − 1) − 1)/s⌋ + 1.

    Args:
        in_channels, out_channels: C, O.
        kernel_size, stride, padding, dilation: k, s, p, d: an integer or (vertical, horizontal); padding also
            ``"same"`` or ``"valid"``.
        groups: divides C and O; the filters of one group see the channels of that group alone.
        bias: whether b is there.
        padding_mode: only ``"zeros"``; others are refused.
        device, dtype: of the parameters.
        rng: draws their first values, U[−1/√n, 1/√n] with n = C/groups·kh·kw.

    Attributes:
        weight: w, (O, C/groups, kh, kw). bias: b, (O), or None.

    Raises:
        ValueError, TypeError: a setting is out of range, or (when called) the input does not fit.
        NotImplementedError: padding_mode.

    Source: LeCun et al. 1989; ``torch.nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Lengths,
        stride: Lengths = 1,
        padding: Lengths | str = 0,
        dilation: Lengths = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode,
            (out_channels, in_channels), device, dtype, rng,
        )  # fmt: skip
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f'Conv2d: padding must be "same", "valid", an integer or a pair, got {padding!r}')
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f'Conv2d: padding="same" keeps the size only with stride=1, got stride={self.stride}')

    def forward(self, input: Tensor) -> Tensor:
        """Slide the filters over the input."""
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Conv):
    """y[o, s·i + d·u − p, …] += Σ_c w[c, o, u, …] · x[c, i, …]: every number of the input paints a filter.

    The adjoint of a convolution. See ``F.conv_transpose2d``, also for how the lectures' zero insertion relates to it.

    Shapes: (N, C, H, W) → (N, O, Ho, Wo), or both without N; Ho = (H − 1)s − 2p + d(k − 1) + q + 1.

    Args:
        in_channels, out_channels: C, O.
        kernel_size, stride, padding, output_padding, dilation: k, s, p, q, d: an integer or (vertical, horizontal).
        groups: divides C and O.
        bias: whether b is there.
        padding_mode: only ``"zeros"``; others are refused.
        device, dtype: of the parameters.
        rng: draws their first values, U[−1/√n, 1/√n] with n = O/groups·kh·kw (as PyTorch, which counts the filter's
            second axis).

    Attributes:
        weight: w, (C, O/groups, kh, kw). bias: b, (O), or None.

    Raises:
        ValueError, TypeError: a setting is out of range, or (when called) the input does not fit.
        NotImplementedError: padding_mode, or ``output_size`` when called.

    Source: ``torch.nn.ConvTranspose2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Lengths,
        stride: Lengths = 1,
        padding: Lengths = 0,
        output_padding: Lengths = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Lengths = 1,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
        rng: Generator | None = None,
    ) -> None:
        if isinstance(padding, str):
            raise TypeError(f"ConvTranspose2d: padding must be an integer or a pair, got {padding!r}")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, (in_channels, out_channels), device, dtype, rng,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: None = None) -> Tensor:
        """Paint the filters."""
        refuse("ConvTranspose2d", "set output_padding", output_size=(output_size, None))
        stride, padding, dilation = self.stride, self.padding, self.dilation
        assert not isinstance(padding, str)
        return F.conv_transpose2d(
            input, self.weight, self.bias, stride, padding, self.output_padding, self.groups, dilation
        )
