"""The graph of a computation: which ops made a tensor out of which tensors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tinygen.autograd import grad
from tinygen.tensor import Node, Tensor, wrap_recorded
from tinygen.viz.canvas import FAINT, INK, new_figure, optional, save_figure
from tinygen.viz.layout import layered_layout


class Vertex(NamedTuple):
    """One thing in the picture: an op, or a tensor that gradients flow to."""

    name: str
    detail: str
    is_op: bool
    more: tuple[str, ...] = ()


def trace(
    tensor: Tensor, names: Mapping[str, Tensor] | None = None, gradients: bool = False
) -> tuple[list[Vertex], list[tuple[int, int]]]:
    """The recorded graph behind a tensor, read without recursion: vertices, and edges (from input to op).

    Only what the backward sweep will visit is in it: constants have no gradient and are not recorded. Vertex
    0 is the op that made the tensor. An op that uses a tensor twice has two edges from it. With ``gradients`` each
    vertex says ∂(tensor)/∂(its result), by a sweep that keeps the graph.

    Raises:
        TypeError: not a Tensor.
        ValueError: the tensor was not computed from anything that requires grad.
        RuntimeError: its graph was freed by a backward sweep; or gradients are asked for of more numbers than one.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor: expected a Tensor, got {type(tensor).__name__}")
    if tensor.grad_fn is None:
        raise ValueError(
            "tensor: nothing was recorded, so there is no graph to draw; compute it from a tensor with "
            "requires_grad=True, outside no_grad()"
        )
    known = {id(value._node or value): (name, value) for name, value in (names or {}).items()}
    found: dict[int, int] = {id(tensor.grad_fn): 0}
    queue: list[Node | Tensor] = [tensor.grad_fn]
    vertices: list[Vertex] = []
    edges: list[tuple[int, int]] = []
    for current in queue:  # grows while it is read
        shape = "×".join(map(str, current.shape)) or "scalar"
        name, value = known.get(id(current), ("", None))
        one = (f"= {_short(value.item())}",) if gradients and value is not None and value.numel() == 1 else ()
        if isinstance(current, Tensor):
            vertices.append(Vertex(name or "tensor", f"{shape} {current.dtype}", False, one))
            continue
        vertices.append(Vertex(f"{name}: {current.op.name}" if name else current.op.name, shape, True, one))
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
    if gradients:
        # A tensor that nobody holds any more is made again for its place in the graph: only its node is asked for.
        places = [x if isinstance(x, Tensor) else wrap_recorded(tensor.data, x) for x in queue]
        for i, g in enumerate(grad(tensor, places, retain_graph=True)):
            assert g is not None
            size = f"grad {_short(g.item())}" if g.numel() == 1 else f"‖grad‖ {_short(g.norm().item())}"
            vertices[i] = vertices[i]._replace(more=(*vertices[i].more, size))
    return vertices, edges


def _short(value: Any) -> str:
    """Three digits and a proper minus sign."""
    return f"{value:.3g}".replace("-", "−")


def computation_graph(tensor: Tensor, names: Mapping[str, Tensor] | None = None, gradients: bool = False) -> str:
    """The graph behind a tensor as text in Graphviz's DOT language.

    Tensors that gradients flow to are boxes with their shape and dtype, ops are ellipses with the shape of
    their result. ``dot -Tsvg`` turns the text into a picture; :func:`save_graph` draws one without Graphviz.

    Args:
        tensor: what was computed, such as a loss.
        names: name → tensor, such as ``dict(model.named_parameters())``; a result on the way may have one too, which
            then stands before its op's. Other leaves are called "tensor".
        gradients: also write g = ∂(tensor)/∂(what the vertex stands for), the number itself or ‖g‖ = √(Σ g²); and the
            value of what is in ``names``, where that is one number. No ``.grad`` is touched, and the graph is kept.

    Returns:
        The text, one line for each vertex and edge.

    Raises:
        TypeError: not a Tensor.
        ValueError: the tensor was not computed from anything that requires grad.
        RuntimeError: its graph was freed by a backward sweep; or gradients are asked for of more numbers than one.
    """
    vertices, edges = trace(tensor, names, gradients)
    lines = ["digraph computation {", "  rankdir=TB;"]
    for i, vertex in enumerate(vertices):
        parts = (vertex.name, vertex.detail, *vertex.more)
        text = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in parts)
        lines.append(f'  v{i} [label="{text}", shape={"ellipse" if vertex.is_op else "box"}];')
    lines += [f"  v{start} -> v{end};" for start, end in edges]
    return "\n".join([*lines, "}"]) + "\n"


def save_graph(
    path: str | os.PathLike,
    tensor: Tensor,
    names: Mapping[str, Tensor] | None = None,
    title: str = "",
    max_vertices: int = 150,
    gradients: bool = False,
) -> Path:
    """Draw the graph behind a tensor, inputs above, result below; no Graphviz needed.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        tensor: what was computed, such as a loss.
        names: name → tensor, such as ``dict(model.named_parameters())``; a result on the way may have one too, which
            then stands before its op's. Other leaves are called "tensor".
        gradients: also write g = ∂(tensor)/∂(what the vertex stands for), the number itself or ‖g‖ = √(Σ g²); and the
            value of what is in ``names``, where that is one number. No ``.grad`` is touched, and the graph is kept.
        title: above the drawing.
        max_vertices: larger graphs are refused: their drawing could not be read.

    Returns:
        The path.

    Raises:
        TypeError: not a Tensor.
        ValueError: nothing was recorded, or the graph has more than ``max_vertices`` vertices.
        RuntimeError: its graph was freed by a backward sweep; or gradients are asked for of more numbers than one.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    vertices, edges = trace(tensor, names, gradients)
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

    # inches, by the font
    widths = [0.24 + 0.083 * max(len(v.name) * 1.15, len(v.detail), *map(len, v.more)) for v in vertices]
    weights = [8.0 if v.is_op else 1.0 for v in vertices]  # the ops make the straight lines, leaves stand aside
    times = Counter(edges)
    points, routes = layered_layout(layers, list(times), widths, weights)
    most = max(len(v.more) for v in vertices)
    row, margin, half = 0.95 + 0.17 * most, 0.3, 0.24 + 0.085 * most
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
        top = y * row + 0.085 * (1 + len(vertex.more))
        axes.text(x, top, vertex.name, ha="center", va="center", fontsize=9.5, color=INK)
        for k, text in enumerate((vertex.detail, *vertex.more)):
            colour = "#bd1f01" if "grad" in text else "#555555"
            axes.text(x, top - 0.18 - 0.16 * k, text, ha="center", va="center", fontsize=7.5, color=colour)
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
