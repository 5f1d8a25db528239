"""Ranks: each has its rows of a batch and of its draws, and all have one gradient."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.ranks import alone, places, together, whole
from tinygen_tests.ranks import on_ranks

pytestmark = pytest.mark.cpu_only("the ranks compare NumPy arrays")


def test_examples_are_dealt_out_and_put_together_again():
    def f(ranks):
        together.set(ranks)
        rows = np.arange(12)[ranks.rows(12)]
        left = np.arange(7)[ranks.rows(7)]
        first, step, n = places(6)
        return (
            rows,
            left,
            first + step * np.arange(6),
            n,
            whole(rows),
            whole(np.stack([rows, rows + 0.5], 1)),
            places(5),
        )

    for rank, (rows, left, here, n, back, pairs, unknown) in enumerate(on_ranks(2, f)):
        assert rows.tolist() == here.tolist() == list(range(rank, 12, 2)) and n == 12
        assert left.tolist() == list(range(7)) and back.tolist() == list(range(12)) and unknown == (0, 1, 5)
        assert pairs.tolist() == [[i, i + 0.5] for i in range(12)]


def test_draws_are_rows_of_the_whole_batchs():
    def f(ranks):
        rng, other = tg.Generator(3), tg.Generator(3)
        size = 12
        if ranks is not None:
            ranks.include([rng], [])
            size = len(range(12)[ranks.rows(12)])
            together.set(ranks)
        parts = [
            tg.randn(size, 2, rng=rng),
            tg.randn(3, size, rng=rng),
            tg.randint(9, (size,), rng=rng),
            tg.rand(size, rng=rng),
            tg.rand(4, 5, rng=rng),
            tg.randperm(12, rng=rng),
        ]
        with alone():
            parts.append(tg.rand(6, rng=rng))
        return [p.numpy() for p in parts], other.state_dict() != rng.state_dict(), tg.rand(6, rng=other).numpy()

    ((one, _, _),) = on_ranks(1, f)
    for rank, (parts, moved, plain) in enumerate(on_ranks(2, f)):
        assert moved and np.array_equal(plain, tg.rand(6, rng=tg.Generator(3)).numpy())
        for k, axis in ((0, 0), (1, 1), (2, 0), (3, 0)):
            assert np.array_equal(parts[k], one[k].take(range(rank, 12, 2), axis)), k
        assert np.array_equal(parts[4], one[4]) and np.array_equal(parts[6], one[6])


def test_gradients_are_averaged_and_a_missing_one_counts_as_zero():
    def f(ranks):
        a, b, c = (tg.tensor([1.0, 2.0], dtype=d, requires_grad=True) for d in ("float64", "float32", "float64"))
        ranks.include([], [a, b])
        together.set(ranks)
        loss = (a * (ranks.rank + 1.0)).sum() + c.sum() * (ranks.rank + 5.0)
        if ranks.rank == 1:
            loss = loss + (b * 3).sum()
        loss.backward()
        (a * 2).sum().backward()  # is added, as ever
        return [x.grad.numpy() for x in (a, b, c)], b.grad.dtype

    for rank, (grads, dtype) in enumerate(on_ranks(2, f)):
        assert [g.tolist() for g in grads] == [[3.5, 3.5], [1.5, 1.5], [rank + 5.0] * 2] and dtype == tg.float32
