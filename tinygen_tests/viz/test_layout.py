"""The layered layout: rows, no overlap, routes, and few crossings."""

import numpy as np
import pytest

from tinygen.viz.layout import layered_layout


def random_graph(seed, n=40):
    rng = np.random.default_rng(seed)
    layers = sorted(rng.integers(0, 8, n).tolist(), reverse=True)
    edges = [
        (i, j)
        for i in range(n)
        for j in range(n)
        if layers[i] > layers[j] and rng.random() < 2 / (layers[i] - layers[j]) / n
    ]
    return layers, edges, rng.uniform(0.5, 2, n).tolist(), rng.choice([1.0, 8.0], n).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_vertices_keep_their_row_and_do_not_overlap(seed):
    layers, edges, widths, weights = random_graph(seed)
    points, routes = layered_layout(layers, edges, widths, weights, gap=0.3)
    assert [y for _, y in points] == layers
    for layer in set(layers):
        row = sorted((x, w) for (x, y), w in zip(points, widths, strict=True) if y == layer)
        for (x0, w0), (x1, w1) in zip(row, row[1:]):
            assert x1 - x0 >= (w0 + w1) / 2 + 0.3 - 1e-9
    assert min(x - w / 2 for (x, _), w in zip(points, widths, strict=True)) >= -1e-9


@pytest.mark.parametrize("seed", range(5))
def test_routes_go_down_row_by_row_from_end_to_end(seed):
    layers, edges, widths, weights = random_graph(seed)
    points, routes = layered_layout(layers, edges, widths, weights)
    for (start, end), route in zip(edges, routes, strict=True):
        assert route[0] == points[start] and route[-1] == points[end]
        assert [y for _, y in route] == list(range(layers[start], layers[end] - 1, -1))


def test_routes_pass_beside_the_vertices_of_a_row():
    layers, edges, widths, weights = random_graph(7)
    points, routes = layered_layout(layers, edges, widths, weights)
    for route in routes:
        for x, y in route[1:-1]:
            for (vx, vy), w in zip(points, widths, strict=True):
                assert vy != y or abs(vx - x) > w / 2


def test_a_chain_is_a_straight_line():
    points, _ = layered_layout([3, 2, 1, 0], [(0, 1), (1, 2), (2, 3)], [1, 2, 0.5, 1], [1, 1, 1, 1])
    assert {x for x, _ in points} == {1.0}


def test_a_tangled_order_is_untangled():
    """Upper vertices 0, 1, 2 lead to lower vertices 5, 4, 3: crossed as given, not crossed as drawn."""
    points, _ = layered_layout([1, 1, 1, 0, 0, 0], [(0, 5), (1, 4), (2, 3)], [1] * 6, [1] * 6)
    order = lambda vertices: sorted(vertices, key=lambda v: points[v][0])
    pairs = {0: 5, 1: 4, 2: 3}
    assert [pairs[v] for v in order([0, 1, 2])] == order([3, 4, 5])


def test_an_edge_that_points_up_is_refused():
    with pytest.raises(ValueError, match="edge 0 → 1 does not point downwards: layer 0 → 0"):
        layered_layout([0, 0], [(0, 1)], [1, 1], [1, 1])
