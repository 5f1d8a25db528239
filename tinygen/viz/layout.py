"""A layered drawing of a directed graph without cycles: every edge points downwards and few of them cross.

The three steps of Sugiyama, Tagawa & Toda, *Methods for Visual Understanding of Hierarchical System
Structures* (1981): layers, order within the layers, coordinates. Small graphs only: nothing here is tuned.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def layered_layout(
    layers: Sequence[int],
    edges: Sequence[tuple[int, int]],
    widths: Sequence[float],
    weights: Sequence[float],
    gap: float = 0.3,
) -> tuple[list[Point], list[list[Point]]]:
    """Place vertices in rows, and route the edges between them.

    An edge that crosses rows passes each of them at a point of its own, placed as if it were a narrow vertex.
    The order within a row follows the average position of the neighbours in the row above, then below, a few
    times over; coordinates then move towards the weighted average of the neighbours', as far as the widths
    allow.

    Args:
        layers: the row of each vertex, 0 at the bottom.
        edges: (from, to) with layers[from] > layers[to].
        widths: of each vertex, in the unit of the result.
        weights: of each vertex: how strongly it is pulled straight, and pulls its neighbours.
        gap: between neighbours.

    Returns:
        The centre (x, y = layer) of each vertex, and for each edge its points from start to end.

    Raises:
        ValueError: an edge that does not point downwards.
    """
    rows: list[list[int]] = [[] for _ in range(max(layers, default=0) + 1)]
    for vertex, layer in enumerate(layers):
        rows[layer].append(vertex)
    row_of, width, weight = list(layers), list(widths), list(weights)
    straight = max(weights, default=1.0)
    routes: list[list[int]] = []
    for start, end in edges:
        if layers[start] <= layers[end]:
            raise ValueError(f"edge {start} → {end} does not point downwards: layer {layers[start]} → {layers[end]}")
        route = [start]
        for layer in range(layers[start] - 1, layers[end], -1):
            route.append(len(row_of))
            rows[layer].append(len(row_of))
            row_of.append(layer)
            width.append(0.05)
            weight.append(straight)
        routes.append([*route, end])

    above: list[list[int]] = [[] for _ in row_of]
    below: list[list[int]] = [[] for _ in row_of]
    for route in routes:
        for upper, lower in zip(route, route[1:]):
            above[lower].append(upper)
            below[upper].append(lower)

    place = [0.0] * len(row_of)
    for row in rows:
        _spread(row, place)
    for sweep in range(12):
        downwards = bool(sweep % 2)
        neighbours = above if downwards else below
        for row in reversed(rows) if downwards else rows:
            # A vertex without neighbours on that side keeps its place; sorting is stable, so ties do too.
            wish = {v: _mean(neighbours[v], place, weight, place[v]) for v in row}
            row.sort(key=wish.__getitem__)
            _spread(row, place)

    x = [0.0] * len(row_of)
    for sweep in range(32):
        downwards = bool(sweep % 2)
        for row in reversed(rows) if downwards else rows:
            if sweep < 16:  # first each side in turn, then both at once, which settles
                wishes = [_mean((above if downwards else below)[v], x, weight, x[v]) for v in row]
            else:
                wishes = [_mean(above[v] + below[v], x, weight, x[v]) for v in row]
            _pack(row, wishes, x, width, weight, gap)

    left = min((x[v] - width[v] / 2 for v in range(len(x))), default=0.0)
    points = [(x[v] - left, float(row_of[v])) for v in range(len(row_of))]
    return points[: len(layers)], [[points[v] for v in route] for route in routes]


def _mean(vertices: list[int], x: list[float], weight: list[float], otherwise: float) -> float:
    """The weighted average of the vertices' positions."""
    if not vertices:
        return otherwise
    return sum(weight[u] * x[u] for u in vertices) / sum(weight[u] for u in vertices)


def _spread(row: list[int], place: list[float]) -> None:
    """Number a row's vertices evenly from 0 to 1, so that rows of different lengths can be compared."""
    for i, v in enumerate(row):
        place[v] = i / (len(row) - 1) if len(row) > 1 else 0.5


def _pack(
    row: list[int], wishes: list[float], x: list[float], width: list[float], weight: list[float], gap: float
) -> None:
    """Put a row's vertices near where they want to be, in their order and without overlap.

    Neighbours that would overlap join into a block, which sits at the weighted mean of what its members want:
    the least-squares solution (isotonic regression by pooling adjacent violators).
    """
    blocks: list[tuple[float, float, list[tuple[int, float]]]] = []
    for v, wish in zip(row, wishes, strict=True):
        # of a block: Σ w·(wish − offset), Σ w, and its members with their offsets from its first one
        total, mass, members = weight[v] * wish, weight[v], [(v, 0.0)]
        while blocks:
            before_total, before_mass, before = blocks[-1]
            end, offset = before[-1]
            shift = offset + (width[end] + width[members[0][0]]) / 2 + gap
            if before_total / before_mass + shift <= total / mass:
                break
            blocks.pop()
            total, mass = before_total + total - shift * mass, before_mass + mass
            members = before + [(u, o + shift) for u, o in members]
        blocks.append((total, mass, members))
    for total, mass, members in blocks:
        for v, offset in members:
            x[v] = total / mass + offset
