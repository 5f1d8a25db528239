"""The graph of a computation: which ops made a tensor out of which tensors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tinygen.tensor import Node, Tensor
from tinygen.viz.canvas import FAINT, INK, new_figure, optional, save_figure
from tinygen.viz.layout import layered_layout


class Vertex(NamedTuple):
    """One thing in the picture: an op, or a tensor that gradients flow to."""

    name: str
    detail: str
    is_op: bool


def trace(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> tuple[list[Vertex], list[tuple[int, int]]]:
    """The recorded graph behind a tensor, read without recursion: vertices, and edges (from input to op).

    Only what the backward sweep will visit is in it: constants have no gradient and are not recorded. Vertex
    0 is the op that made the tensor. An op that uses a tensor twice has two edges from it.

    Raises:
        TypeError: not a Tensor.
        ValueError: the tensor was not computed from anything that requires grad.
        RuntimeError: its graph was freed by a backward sweep.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor: expected a Tensor, got {type(tensor).__name__}")
    if tensor.grad_fn is None:
        raise ValueError(
            "tensor: nothing was recorded, so there is no graph to draw; compute it from a tensor with "
            "requires_grad=True, outside no_grad()"
        )
    name_of = {id(value): name for name, value in (names or {}).items()}
    found: dict[int, int] = {id(tensor.grad_fn): 0}
    queue: list[Node | Tensor] = [tensor.grad_fn]
    vertices: list[Vertex] = []
    edges: list[tuple[int, int]] = []
    for current in queue:  # grows while it is read
        shape = "×".join(map(str, current.shape)) or "scalar"
        if isinstance(current, Tensor):
            vertices.append(Vertex(name_of.get(id(current), "tensor"), f"{shape} {current.dtype}", False))
            continue
        vertices.append(Vertex(current.op.name, shape, True))
        if current.edges is None:
            raise RuntimeError(
                f"tensor: the graph was freed by a backward sweep (at {current.op.name}); draw it before "
                "backward(), or pass retain_graph=True"
            )
        for source in current.edges:
            if id(source) not in found:
                found[id(source)] = len(queue)
                queue.append(source)
            edges.append((found[id(source)], found[id(current)]))
    return vertices, edges


def computation_graph(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """The graph behind a tensor as text in Graphviz's DOT language.

    Tensors that gradients flow to are boxes with their shape and dtype, ops are ellipses with the shape of
    their result. ``dot -Tsvg`` turns the text into a picture; :func:`save_graph` draws one without Graphviz.

    Args:
        tensor: what was computed, such as a loss.
        names: name → leaf tensor, such as ``dict(model.named_parameters())``; others are called "tensor".

    Returns:
        The text, one line for each vertex and edge.

    Raises:
        TypeError: not a Tensor.
        ValueError: the tensor was not computed from anything that requires grad.
        RuntimeError: its graph was freed by a backward sweep.
    """
    vertices, edges = trace(tensor, names)
    lines = ["digraph computation {", "  rankdir=TB;"]
    for i, vertex in enumerate(vertices):
        text = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in (vertex.name, vertex.detail))
        lines.append(f'  v{i} [label="{text}", shape={"ellipse" if vertex.is_op else "box"}];')
    lines += [f"  v{start} -> v{end};" for start, end in edges]
    return "\n".join([*lines, "}"]) + "\n"


def save_graph(
    path: str | os.PathLike,
    tensor: Tensor,
    names: Mapping[str, Tensor] | None = None,
    title: str = "",
    max_vertices: int = 150,
) -> Path:
    """Draw the graph behind a tensor, inputs above, result below; no Graphviz needed.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        tensor: what was computed, such as a loss.
        names: name → leaf tensor, such as ``dict(model.named_parameters())``; others are called "tensor".
        title: above the drawing.
        max_vertices: larger graphs are refused: their drawing could not be read.

    Returns:
        The path.

    Raises:
        TypeError: not a Tensor.
        ValueError: nothing was recorded, or the graph has more than ``max_vertices`` vertices.
        RuntimeError: its graph was freed by a backward sweep.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    vertices, edges = trace(tensor, names)
    if len(vertices) > max_vertices:
        raise ValueError(
            f"tensor: its graph has {len(vertices)} vertices, more than max_vertices={max_vertices}; draw a "
            "smaller part, or write computation_graph(tensor) to a file for Graphviz"
        )
    # A layer is the longest way to the result: every edge points down, and leaves sit by their use.
    layers = [0] * len(vertices)
    inputs: list[list[int]] = [[] for _ in vertices]
    waiting = [0] * len(vertices)
    for start, end in edges:
        inputs[end].append(start)
        waiting[start] += 1
    ready = [0]
    while ready:
        end = ready.pop()
        for start in inputs[end]:
            layers[start] = max(layers[start], layers[end] + 1)
            waiting[start] -= 1
            if not waiting[start]:
                ready.append(start)

    widths = [0.24 + 0.083 * max(len(v.name) * 1.15, len(v.detail)) for v in vertices]  # inches, by the font
    weights = [8.0 if v.is_op else 1.0 for v in vertices]  # the ops make the straight lines, leaves stand aside
    times = Counter(edges)
    points, routes = layered_layout(layers, list(times), widths, weights)
    row, margin, half = 0.95, 0.3, 0.24
    right = max(x + w / 2 for (x, _), w in zip(points, widths, strict=True))
    right = max([right, 0.11 * len(title), *(x for route in routes for x, _ in route)])
    width, height = right + 2 * margin, row * max(layers) + 2 * (margin + half) + (0.3 if title else 0)

    figure = new_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-margin, width - margin)
    axes.set_ylim(-margin - half, height - margin - half)
    patches = optional("matplotlib.patches", "matplotlib")
    curve = optional("matplotlib.path", "matplotlib").Path
    for route, count in zip(routes, times.values(), strict=True):
        _draw_edge(axes, patches, curve, [(x, y * row) for x, y in route], half)
        if count > 1:
            (x0, y0), (x1, y1) = route[0], route[1]
            axes.text((x0 + x1) / 2 + 0.06, (y0 + y1) / 2 * row, f"×{count}", fontsize=8, color=INK, va="center")
    for vertex, (x, y), w in zip(vertices, points, widths, strict=True):
        style = "round,pad=0,rounding_size=0.22" if vertex.is_op else "square,pad=0"
        face, edge = ("#e3effb", "#3f90da") if vertex.is_op else ("#fff3dc", "#d98d00")
        axes.add_patch(
            patches.FancyBboxPatch(
                (x - w / 2, y * row - half),
                w,
                2 * half,
                boxstyle=style,
                facecolor=face,
                edgecolor=edge,
                linewidth=1,
            )
        )
        axes.text(x, y * row + 0.085, vertex.name, ha="center", va="center", fontsize=9.5, color=INK)
        axes.text(x, y * row - 0.095, vertex.detail, ha="center", va="center", fontsize=7.5, color="#555555")
    if title:
        axes.text(0, height - 2 * margin - half + 0.08, title, fontsize=12, color=INK, va="center")
    return save_figure(path, figure)


def _draw_edge(axes: Any, patches: Any, curve: Any, route: list[tuple[float, float]], half: float) -> None:
    """An arrow from the first box's lower rim to the last one's upper rim, through the points between."""
    points = [(route[0][0], route[0][1] - half), *route[1:-1], (route[-1][0], route[-1][1] + half)]
    vertices, codes = [points[0]], [curve.MOVETO]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        bend = (y0 - y1) * 0.45  # leaves and arrives straight down
        vertices += [(x0, y0 - bend), (x1, y1 + bend), (x1, y1)]
        codes += [curve.CURVE4] * 3
    axes.add_patch(
        patches.FancyArrowPatch(
            path=curve(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=9,
            color=FAINT,
            linewidth=1,
            shrinkA=0,
            shrinkB=0,
        )
    )
