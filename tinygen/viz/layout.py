"""A layered drawing of a directed graph without cycles: every edge points downwards and few of them cross.

The three steps of Sugiyama, Tagawa & Toda, *Methods for Visual Understanding of Hierarchical System
Structures* (1981): layers, order within the layers, coordinates. Small graphs only: nothing here is tuned.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def layered_layout(
    layers: Sequence[int], edges: Sequence[tuple[int, int]], widths: Sequence[float], gap: float = 0.3
) -> tuple[list[Point], list[list[Point]]]:
    """Place vertices in rows, and route the edges between them.

    An edge that crosses rows passes each of them at a point of its own, placed as if it were a narrow vertex.
    The order within a row follows the average position of the neighbours in the row above, then below, a few
    times over; coordinates move towards the neighbours' average as far as the widths allow.

    Args:
        layers: the row of each vertex, 0 at the bottom.
        edges: (from, to) with layers[from] > layers[to].
        widths: of each vertex, in the unit of the result.
        gap: between neighbours.

    Returns:
        The centre (x, y = layer) of each vertex, and for each edge its points from start to end.

    Raises:
        ValueError: an edge that does not point downwards.
    """
    rows: list[list[int]] = [[] for _ in range(max(layers, default=0) + 1)]
    for vertex, layer in enumerate(layers):
        rows[layer].append(vertex)
    row_of, width_of = list(layers), list(widths)
    routes: list[list[int]] = []
    for start, end in edges:
        if layers[start] <= layers[end]:
            raise ValueError(
                f"edge {start} → {end} does not point downwards: {layers[start]} → {layers[end]}"
            )
        route = [start]
        for layer in range(layers[start] - 1, layers[end], -1):
            route.append(len(row_of))
            rows[layer].append(len(row_of))
            row_of.append(layer)
            width_of.append(0.05)
        routes.append([*route, end])

    above: list[list[int]] = [[] for _ in row_of]
    below: list[list[int]] = [[] for _ in row_of]
    for route in routes:
        for upper, lower in zip(route, route[1:]):
            above[lower].append(upper)
            below[upper].append(lower)

    for sweep in range(12):
        neighbours = above if sweep % 2 else below
        place = {
            v: i / max(1, len(row) - 1) if len(row) > 1 else 0.5 for row in rows for i, v in enumerate(row)
        }
        for row in rows if not sweep % 2 else reversed(rows):
            # A vertex without neighbours on that side keeps its place; sorting is stable, so ties do too.
            row.sort(key=lambda v: _mean([place[u] for u in neighbours[v]], place[v]))
            for i, v in enumerate(row):
                place[v] = i / max(1, len(row) - 1) if len(row) > 1 else 0.5

    x = [0.0] * len(row_of)
    for row in rows:
        _pack(row, [0.0] * len(row), x, width_of, gap)
    for sweep in range(24):
        both = sweep >= 16
        neighbours = above if sweep % 2 else below
        for row in rows if not sweep % 2 else reversed(rows):
            wanted = [
                _mean([x[u] for u in (above[v] + below[v] if both else neighbours[v])], x[v]) for v in row
            ]
            _pack(row, wanted, x, width_of, gap)

    left = min((x[v] - width_of[v] / 2 for v in range(len(x))), default=0.0)
    points = [(x[v] - left, float(row_of[v])) for v in range(len(row_of))]
    return points[: len(layers)], [[points[v] for v in route] for route in routes]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _pack(row: list[int], wanted: list[float], x: list[float], widths: list[float], gap: float) -> None:
    """Put a row's vertices near where they want to be, in their order and without overlap.

    Neighbours that would overlap join into a block, which sits at the mean of what its members want: the
    least-squares solution (isotonic regression by pooling adjacent violators).
    """
    blocks: list[tuple[float, list[tuple[int, float]]]] = []  # (sum of wishes for the block's start, members)
    for v, wish in zip(row, wanted, strict=True):
        total, members, length = wish, [(v, 0.0)], 0.0
        while blocks:
            last_total, last_members = blocks[-1]
            end, offset = last_members[-1]
            length = offset + (widths[end] + widths[members[0][0]]) / 2 + gap
            if last_total / len(last_members) + length <= total / len(members):
                break
            blocks.pop()
            total = last_total + total - length * len(members)
            members = last_members + [(u, o + length) for u, o in members]
        blocks.append((total, members))
    for total, members in blocks:
        for v, offset in members:
            x[v] = total / len(members) + offset
