"""Gradient flow: how large the gradient is that reaches each layer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.nn.module import Module
from tinygen.tensor import Tensor
from tinygen.viz.canvas import INK, PALETTE, as_array, new_figure, plain_axes, save_figure


def gradient_flow(module: Module | Iterable[tuple[str, Tensor]]) -> dict[str, float]:
    """The root mean square of each parameter's gradient, √(Σ g²/n), as it stands after ``backward()``.

    Compare it from layer to layer: where it falls by a factor in each, the first layers learn nothing (it vanishes);
    where it grows, they jump (it explodes).

    Args:
        module: a module, or its ``named_parameters()``; those that do not require a gradient are left out.

    Returns:
        name → number, in the order of the parameters, which is that of the layers; NaN where there is no gradient:
        nothing flowed to that parameter.

    Raises:
        ValueError: there is no parameter that requires a gradient.
        TypeError: something else than pairs of a name and a Tensor.

    Source: Glorot & Bengio, *Understanding the difficulty of training deep feedforward neural networks* (2010), §4.2.
    """
    pairs: Iterable[Any] = module.named_parameters() if isinstance(module, Module) else module
    flow = {}
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Tensor)):
            raise TypeError(f"module: expected a Module or pairs (name, Tensor), got {type(pair).__name__}")
        name, w = pair
        if w.requires_grad:
            if w.grad is None:
                flow[name] = math.nan
            else:
                g = as_array(w.grad, name).astype(np.float64)
                flow[name] = float(np.sqrt(np.square(g).mean())) if g.size else 0.0
    if not flow:
        raise ValueError("module: expected at least one parameter that requires a gradient, got none")
    return flow


def save_gradient_flow(
    path: str | os.PathLike, flows: Mapping[str, Any], title: str = "", ylabel: str = "√mean g²"
) -> Path:
    """Save the size of the gradient in each layer, first layer on the left, on a logarithmic axis.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        flows: label → what :func:`gradient_flow` gave, to compare networks of as many parameters, or one network
            before and after a change. Where the names differ, the axis counts the parameters instead.
        title, ylabel: texts.

    Returns:
        The path. A gradient of 0 and one that there is not are marked on the lower rim, one that is not finite on the
        upper.

    Raises:
        ValueError: no flow, an empty one, flows of different lengths, negative sizes, or no size above 0 anywhere.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not flows:
        raise ValueError("flows: expected at least one, got none")
    read: dict[str, tuple[list[str], np.ndarray]] = {}
    for label, flow in flows.items():
        if not isinstance(flow, Mapping) or not flow:
            raise ValueError(f"flows[{label!r}]: expected name → size, as gradient_flow gives, got {flow!r}")
        sizes = as_array(list(flow.values()), f"flows[{label!r}]").astype(np.float64)
        if sizes.ndim != 1 or (sizes < 0).any():
            raise ValueError(f"flows[{label!r}]: expected one size ≥ 0 for each parameter")
        read[label] = (list(flow), sizes)
    lengths = {label: len(names) for label, (names, _) in read.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{label!r} {n}" for label, n in lengths.items())
        raise ValueError(f"flows: expected as many parameters in each, got {found}")
    everything = np.concatenate([sizes for _, sizes in read.values()])
    drawable = everything[np.isfinite(everything) & (everything > 0)]
    if not drawable.size:
        raise ValueError("flows: no gradient is finite and above 0, there is nothing to draw")
    low, high = float(drawable.min()) / 3, float(drawable.max()) * 3

    names = next(iter(read.values()))[0]
    same = all(other == names for other, _ in read.values())
    n = len(names)
    figure = new_figure(float(np.clip(1.6 + 0.42 * n, 6.4, 16)), 4.4)
    axes = figure.add_subplot()
    plain_axes(axes, "input → loss" if same else "parameter, input → loss", ylabel, title)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    for i, (label, (_, sizes)) in enumerate(read.items()):
        colour, at = PALETTE[i % len(PALETTE)], np.arange(n)
        fine = np.isfinite(sizes) & (sizes > 0)
        axes.plot(at, np.where(fine, sizes, np.nan), color=colour, marker="o", markersize=5, linewidth=1.5, label=label)
        none, lost = np.isnan(sizes) | (sizes == 0), np.isinf(sizes)
        for where, level, marker, text in ((none, low, "v", "none"), (lost, high, "^", "not finite")):
            if where.any():
                axes.plot(at[where], np.full(where.sum(), level), marker, color=colour, markersize=9, clip_on=False,
                          linestyle="none", label=f"{label}: {text}")  # fmt: skip
    axes.set_xlim(-0.5, n - 0.5)
    if same:
        axes.set_xticks(np.arange(n), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.tick_params(which="minor", length=0)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return save_figure(path, figure)
