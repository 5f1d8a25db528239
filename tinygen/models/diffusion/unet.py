"""The U-Net of diffusion models: from a noisy image and the time, an image of the same shape.

    x ─ 3×3 ─ [block, block] ──────────────── skip ─────────────────→ [block, block] ─ GN ─ SiLU ─ 3×3 → output
                    └ halve ─ [block, block] ─── skip ──→ [block, block] ─ double ┘
                                    └ … ─ block, attention, block ─ … ┘

On the way down the picture gets smaller and the channels more, so that what is far apart comes together; on the way up
each stage is given what the stage of its size saw on the way down, because the noise is to be found in every pixel.
The time (and the class) reaches every block as a vector that is added to its channels.

Any height and width: halving rounds up, and doubling is cut to the size that was halved.

Source: Ronneberger, Fischer & Brox, *U-Net* (2015); Ho, Jain & Abbeel (2020), appendix B; Dhariwal & Nichol (2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinygen import nn
from tinygen.backend import array_module
from tinygen.nn import functional as F
from tinygen.ops.elementwise import cos, sin
from tinygen.ops.shape import cat
from tinygen.random import Generator
from tinygen.tensor import Tensor, wrap


def time_features(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """τ(t) = [cos ω₁t, …, cos ω_h t, sin ω₁t, …, sin ω_h t],  ω_k = max_period^(−(k−1)/h),  h = dim/2.

    A network cannot tell 431 from 432 in one number; waves of all lengths tell it both about when and exactly when. The
    longest wave is meant for times up to about 1000: pass t on the scale of 0 to 1000 whatever T is
    (:meth:`NoiseSchedule.time` does).

    Shapes: t (N) of floating numbers → (N, dim), of t's dtype.

    Raises:
        ValueError: dim is odd or less than 2.

    Source: Vaswani et al. (2017), section 3.5; Ho et al. (2020), appendix B.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"time_features: expected an even dim ≥ 2, got {dim}")
    h = dim // 2
    k = array_module(t.data).arange(h, dtype=t.dtype)
    ω = wrap(array_module(t.data).exp(k * (-math.log(max_period) / h)))
    angle = t.unsqueeze(1) * ω
    return cat([cos(angle), sin(angle)], 1)


class Conditioning(nn.Module):
    """e = W₂ SiLU(W₁ τ(t) + b₁) + b₂ + E[y]: what every block is told of the time and, where there are classes, of y.

    E has a row more than there are classes, the *null class*: what a network that knows no class is told. Training
    with it now and then is what classifier-free guidance needs.

    Shapes: t (N) on the scale of 0 to 1000, y (N) of integers or None → (N, dim).

    Args:
        dim: the length of e.
        num_classes: K; None for a model without classes. The null class has the number K.
        rng: draws the first weights.

    Raises (when called):
        ValueError: y is given to a model without classes.

    Source: Ho et al. (2020), appendix B; Ho & Salimans, *Classifier-Free Diffusion Guidance* (2022).
    """

    def __init__(self, dim: int, num_classes: int | None = None, rng: Generator | None = None) -> None:
        super().__init__()
        self.dim, self.num_classes = dim, num_classes
        self.first, self.second = nn.Linear(dim, dim, rng=rng), nn.Linear(dim, dim, rng=rng)
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, dim, rng=rng)

    def forward(self, t: Tensor, y: Tensor | None = None) -> Tensor:
        """e for each example; the null class where y is None."""
        e = self.second(F.silu(self.first(time_features(t, self.dim))))
        if self.classes is None:
            if y is not None:
                raise ValueError("the network was made without classes (num_classes=None), but labels y were given")
            return e
        if y is None:
            return e + self.classes.weight[-1]
        return e + self.classes(y)


class ResidualBlock(nn.Module):
    """y = skip(x) + W₂ ∗ SiLU(GN(h)),   h = W₁ ∗ SiLU(GN(x)) + V SiLU(e).

    ``skip`` is the identity, or a 1×1 convolution where the channels change. W₂ begins at 0: at first the block passes
    its input on, and deep networks start as shallow ones.

    Shapes: x (N, C, H, W), e (N, dim) → (N, C', H, W).

    Source: He et al. (2016); Ho et al. (2020), appendix B.
    """

    def __init__(self, c: int, out: int, dim: int, groups: int, dropout: float, rng: Generator | None) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(_groups(groups, c), c), nn.Conv2d(c, out, 3, padding=1, rng=rng)
        self.tell = nn.Linear(dim, out, rng=rng)
        self.norm2, self.conv2 = nn.GroupNorm(_groups(groups, out), out), nn.Conv2d(out, out, 3, padding=1, rng=rng)
        self.dropout = nn.Dropout(dropout, rng=rng) if dropout else nn.Identity()
        self.skip = nn.Identity() if c == out else nn.Conv2d(c, out, 1, rng=rng)
        _begin_at_zero(self.conv2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """The block's output; e is SiLU'd already, once for all blocks."""
        h = self.conv1(F.silu(self.norm1(x))) + self.tell(e)[:, :, None, None]
        return self.skip(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))


class SelfAttention(nn.Module):
    """y = x + W_o A(Q, K, V): every pixel looks at all pixels, [Q, K, V] = W_qkv GN(x), in heads of d channels.

    A(Q, K, V) = softmax(Q Kᵀ/√d) V. The cost grows with (HW)², so it belongs where the picture is small. W_o begins
    at 0.

    Shapes: (N, C, H, W) → the same.

    Source: Vaswani et al. (2017); Ho et al. (2020), appendix B.
    """

    def __init__(self, c: int, heads: int, groups: int, rng: Generator | None) -> None:
        super().__init__()
        if c % heads:
            raise ValueError(f"SelfAttention: heads={heads} must divide the {c} channels")
        self.heads = heads
        self.norm = nn.GroupNorm(_groups(groups, c), c)
        self.qkv, self.out = nn.Linear(c, 3 * c, rng=rng), nn.Linear(c, c, rng=rng)
        _begin_at_zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """x with what each pixel found."""
        n, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (N, HW, C)
        qkv = self.qkv(tokens).reshape(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # (N, heads, HW, d)
        found = self.out(found.transpose(1, 2).reshape(n, h * w, c))
        return x + found.transpose(1, 2).reshape(n, c, h, w)


class Stage(nn.Module):
    """Residual blocks of one size of picture, each followed by attention where the stage has it."""

    def __init__(
        self,
        channels: Sequence[tuple[int, int]],
        dim: int,
        groups: int,
        heads: int | None,
        dropout: float,
        rng: Generator | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(c, out, dim, groups, dropout, rng) for c, out in channels])
        self.attention = nn.ModuleList(
            [SelfAttention(out, heads, groups, rng) if heads else nn.Identity() for _, out in channels]
        )

    def forward(self, x: Tensor, e: Tensor, skips: list[Tensor] | None = None, given: bool = False) -> Tensor:
        """Down: append every block's output to ``skips``. Up (``given``): take one from it before every block."""
        for block, attend in zip(self.blocks, self.attention, strict=True):
            if given and skips is not None:
                x = cat([x, skips.pop()], 1)
            x = attend(block(x, e))
            if not given and skips is not None:
                skips.append(x)
        return x


class UNet(nn.Module):
    """output = UNet(x_t, t, y): residual blocks down, in the middle and up again, with skips between equal sizes.

    Shapes: x (N, C, H, W), any H and W; t (N), floating, on the scale of 0 to 1000; y (N) of integers in 0 … K, where K
    is the null class, or None for the null class → (N, C, H, W).

    Args:
        channels: C, of the image and of the output.
        widths: channels at each size of picture, the largest picture's first; every next one is half as high and wide.
        blocks: residual blocks at each size, on either way.
        attention: for each size, whether every block is followed by self-attention; the smallest size alone where
            omitted. The middle always has it, unless this is all False.
        num_classes: K; None for a model without classes.
        groups: of GroupNorm, at most: fewer where they would not divide the channels or have less than four of them.
        heads: of attention.
        dropout: between the convolutions of a block, while training.
        patch: p; each square of p×p pixels becomes one pixel of p²·C channels first, and is spread out again at the
            end: p² times less work in each layer for the same channels.
        rng: draws the first weights.

    Raises:
        ValueError: no widths, a number that is not positive, attention of another length than widths, or
            (when called) an image of other channels.

    Source: Ronneberger et al. (2015); Ho et al. (2020), appendix B; for patches Hoogeboom, Heek & Salimans, *Simple
    Diffusion* (2023), section 3.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (32, 64),
        blocks: int = 1,
        attention: Sequence[bool] | None = None,
        num_classes: int | None = None,
        groups: int = 8,
        heads: int = 4,
        dropout: float = 0.0,
        patch: int = 1,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        widths = tuple(widths)
        if not widths or min(*widths, channels, blocks, patch) < 1:
            raise ValueError(
                "UNet: expected positive channels, widths, blocks and patch, got "
                f"channels={channels}, widths={widths}, blocks={blocks}, patch={patch}"
            )
        looks = tuple(attention) if attention is not None else (*[False] * (len(widths) - 1), True)
        if len(looks) != len(widths):
            raise ValueError(f"UNet: expected attention for each of {len(widths)} widths, got {looks}")
        self.channels, self.widths, self.patch, self.num_classes = channels, widths, patch, num_classes
        dim = 4 * widths[0]
        pixels = channels * patch**2
        self.condition = Conditioning(dim, num_classes, rng)
        self.enter = nn.Conv2d(pixels, widths[0], 3, padding=1, rng=rng)
        down: list[Stage] = []
        up: list[Stage] = []
        shrink: list[nn.Conv2d] = []
        grow: list[nn.Conv2d] = []
        for k, w in enumerate(widths):
            first = widths[max(k - 1, 0)]
            settings = (dim, groups, heads if looks[k] else None, dropout, rng)
            down.append(Stage([(first, w), *[(w, w)] * (blocks - 1)], *settings))
            # Up: what comes from below and the skip lie one behind the other.
            up.insert(0, Stage([(2 * w, w)] * blocks, *settings))
            if k + 1 < len(widths):
                shrink.append(nn.Conv2d(w, w, 3, stride=2, padding=1, rng=rng))
                grow.insert(0, nn.Conv2d(widths[k + 1], w, 3, padding=1, rng=rng))
        self.down, self.shrink = nn.ModuleList(down), nn.ModuleList(shrink)
        self.up, self.grow = nn.ModuleList(up), nn.ModuleList(grow)
        w = widths[-1]
        self.middle = Stage([(w, w)], dim, groups, heads if any(looks) else None, dropout, rng)
        self.norm = nn.GroupNorm(_groups(groups, widths[0]), widths[0])
        self.leave = nn.Conv2d(widths[0], pixels, 3, padding=1, rng=rng)
        _begin_at_zero(self.leave)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output for the images x_t at the times t, of the classes y."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"UNet: expected images of shape (N, {self.channels}, H, W), got {x.shape}")
        e = F.silu(self.condition(t, y))
        height, width = x.shape[2:]
        p = self.patch
        if p > 1:
            x = F.pixel_unshuffle(F.pad(x, (0, -width % p, 0, -height % p)), p)
        x = self.enter(x)
        skips: list[Tensor] = []
        sizes = []
        for k, stage in enumerate(self.down):
            x = stage(x, e, skips)
            if k < len(self.shrink):
                sizes.append(x.shape[2:])
                x = self.shrink[k](x)
        x = self.middle(x, e)
        for k, stage in enumerate(self.up):
            if k:
                h, w = sizes.pop()
                x = self.grow[k - 1](F.interpolate(x, scale_factor=2)[:, :, :h, :w])
            x = stage(x, e, skips, given=True)
        x = self.leave(F.silu(self.norm(x)))
        return F.pixel_shuffle(x, p)[:, :, :height, :width] if p > 1 else x


def _begin_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _groups(groups: int, channels: int) -> int:
    """The largest number up to ``groups`` that divides the channels and leaves four or more to a group.

    A group of one channel would take the time away again: what is added to a whole channel is its mean, and the
    normalisation subtracts that.
    """
    return next(g for g in range(max(1, min(groups, channels // 4)), 0, -1) if channels % g == 0)
