"""Dataset: lengths, indexing, parts; the fixed stratified split."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data.dataset import Dataset, stratified_test_mask
from tinygen.random import Generator


def make(n=10, classes=("a", "b")):
    return Dataset(np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n) % 2, "pairs", classes)


def test_length_indexing_and_names():
    d = make()
    assert len(d) == 10
    x, y = d[3]
    np.testing.assert_array_equal(x, [6, 7])
    assert y == 1 and d.y.dtype == np.int64
    x, y = d[[1, 4]]
    np.testing.assert_array_equal(x, [[2, 3], [8, 9]])
    np.testing.assert_array_equal(y, [1, 0])
    assert d.points is d.x and d.labels is d.y
    assert repr(d) == "Dataset('pairs': 10 × (2,) float32, 2 classes)"
    assert len(list(d)) == 10  # IndexError ends the loop


def test_without_labels_the_second_is_none():
    d = Dataset(np.ones((4, 1, 8, 8), np.float32))
    assert d[0][1] is None
    assert d.subset([0, 1]).y is None
    assert d.images is d.x
    with pytest.raises(AttributeError, match="no labels"):
        _ = d.labels
    with pytest.raises(AttributeError, match=r"points \(N, D\).*\(4, 1, 8, 8\)"):
        _ = d.points


def test_nothing_can_be_changed():
    x, y = np.zeros((3, 2), np.float32), np.zeros(3, np.int64)
    d = Dataset(x, y)
    with pytest.raises(ValueError, match="read-only"):
        d.x[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        d.y[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        d.x = x
    x[0] = 1  # the caller's own array stays the caller's


@pytest.mark.parametrize(
    "x, y, classes, error, message",
    [
        ([[1.0]], None, (), TypeError, "x must be a floating NumPy array, got a list"),
        (np.zeros((3, 2), np.uint8), None, (), TypeError, r"uint8 array of shape \(3, 2\).*astype"),
        (np.ones((), np.float32), None, (), ValueError, "first axis"),
        (
            np.zeros((3, 2)),
            np.zeros(3),
            (),
            TypeError,
            "y must be an integer NumPy array or None, got a float64",
        ),
        (np.zeros((3, 2)), np.zeros(4, int), (), ValueError, r"3 examples.*shape \(3,\), got \(4,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), (), ValueError, r"shape \(3,\), got \(3, 1\)"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), ("a", "b"), ValueError, r"from 0 to 2.*2 classes.*0\.\.1"),
        (np.zeros((3, 2)), np.array([0, 1, -1]), ("a", "b"), ValueError, "from -1 to 1"),
    ],
)
def test_bad_fields_are_named(x, y, classes, error, message):
    with pytest.raises(error, match=message):
        Dataset(x, y, "bad", classes)


def test_subset_by_slice_index_and_mask():
    d = make()
    for index in (slice(2, 4), [2, 3], np.array([2, 3]), np.arange(10) // 2 == 1):
        part = d.subset(index)
        np.testing.assert_array_equal(part.x, d.x[2:4])
        np.testing.assert_array_equal(part.y, d.y[2:4])
        assert part.classes == d.classes
    assert len(d.subset([])) == 0
    with pytest.raises(TypeError, match=r"subset\(\[3\]\)"):
        d.subset(3)
    with pytest.raises(IndexError, match="10 examples"):
        d.subset([10])
    with pytest.raises(IndexError, match="10 examples"):
        d.subset(np.ones(9, bool))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(lambda v: sum(v) > 0), st.booleans())
def test_split_holds_every_example_once(lengths, shuffled):
    n = sum(lengths)
    d = Dataset(np.arange(n, dtype=np.float32)[:, None], np.arange(n))
    parts = d.split(lengths, Generator(0) if shuffled else None)
    assert [len(p) for p in parts] == lengths
    together = np.concatenate([p.y for p in parts])
    np.testing.assert_array_equal(np.sort(together) if shuffled else together, np.arange(n))
    for p in parts:
        np.testing.assert_array_equal(p.x[:, 0], p.y)


def test_split_with_an_rng_shuffles_by_its_seed():
    d = Dataset(np.zeros((50, 1)), np.arange(50, dtype=np.int32))
    assert d.y.dtype == np.int64
    (a, _), (b, _), (c, _) = (d.split([25, 25], Generator(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.y, b.y)
    assert a.y.tolist() != c.y.tolist() and a.y.tolist() != list(range(25))


def test_a_fraction_that_is_a_whole_number_but_for_rounding():
    assert [len(p) for p in make(100).split([0.71, 0.29])] == [71, 29]  # 0.29·100 = 28.999999999999996


def test_split_by_fractions_as_torch_does():
    random_split = pytest.importorskip("torch.utils.data", reason="torch is the judge").random_split
    for n, fractions in [
        (10, [0.8, 0.2]),
        (11, [0.5, 0.5]),
        (7, [1 / 3, 1 / 3, 1 / 3]),
        (100, [0.29, 0.71]),
        (5, [1.0]),
    ]:
        ours = [len(p) for p in make(n).split(fractions)]
        assert ours == [len(p) for p in random_split(range(n), fractions)]


@pytest.mark.parametrize("lengths", [[], [5, 4], [0.5, 0.4], [11, -1], [float("nan")], ["a"], [1]])
def test_split_refuses_lengths_that_do_not_fit(lengths):
    with pytest.raises(ValueError, match="split of 'pairs': lengths"):
        make().split(lengths)


@given(st.lists(st.integers(0, 4), max_size=200), st.data())
def test_stratified_mask_takes_every_class_share_to_within_one(labels, data):
    y = np.array(labels, np.int64)
    n_test = data.draw(st.integers(0, len(y)))
    mask = stratified_test_mask(y, n_test)
    assert mask.sum() == n_test
    for c in np.unique(y):
        share = (y == c).sum() * n_test / len(y)
        assert abs(mask[y == c].sum() - share) <= 1


def test_stratified_mask_refuses_more_than_there_are():
    with pytest.raises(ValueError, match=r"0\.\.3.*got 4"):
        stratified_test_mask(np.zeros(3, int), 4)
