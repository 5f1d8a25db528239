"""Declared cases: what is drawn, what is passed on, what is named."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import Case, booleans, declare, derived, distinct, integers, positive, real
from tinygen_tests.judge import host


@tg.op
def scaled(x, factor, index=None):
    return x * factor


@scaled.vjp("x")
def _(g, factor):
    return g * factor


def test_a_case_says_what_it_is():
    case = Case(real(2, 3), [integers(2), 4], np.zeros((0, 2)), derived(lambda x, y: x), mask=booleans(3), dim=-1)
    assert repr(case) == (
        "Case(real (2, 3), [integer (2,), 4], float64 (0, 2), derived from x, y, mask=boolean (3,), dim=-1)"
    )
    assert repr(declare(scaled, case)) == "<cases of scaled>"


def test_what_is_drawn_is_the_same_every_time_and_differs_between_cases():
    first, second = (declare(scaled, Case(real(5), 2.0), Case(real(5), 2.0)).calls for _ in range(2))
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a.arrays()[0], b.arrays()[0])
    assert not np.array_equal(first[0].arrays()[0], first[1].arrays()[0])
    other = declare(scaled, Case(real(5), 2.0), seed=1).calls[0]
    assert not np.array_equal(first[0].arrays()[0], other.arrays()[0])


def test_arrays_tensors_and_numbers_are_arguments():
    x = np.float32([1, 2])
    (call,) = declare(scaled, Case(tg.tensor(x), np.float64(3)), constants="factor index").calls
    assert [slot.name for slot in call.slots] == ["x", "factor"]
    assert [a.dtype for a in call.arrays()] == ["float64", "float64"] and call.active == [0]
    assert call.fixed == {"index": None}
    np.testing.assert_array_equal(host(call(*(tg.Tensor(a) for a in call.arrays()))), [3, 6])
    call.arrays()[0][...] = 0
    np.testing.assert_array_equal(call.arrays()[0], x)


def test_nested_arrays_are_drawn_and_placed_with_the_rest():
    (call,) = declare(scaled, Case(real(2), 2.0, index=(slice(None), [integers(3), tg.tensor([1])]))).calls
    piece, (drawn, given) = call.fixed["index"]
    assert piece == slice(None) and drawn.shape == (3,) and type(drawn) is type(given) is np.ndarray


def test_the_values_of_every_kind():
    (call,) = declare(scaled, Case(distinct(6), positive(6), integers(6))).calls
    x, factor, index = call.arrays()
    assert len(set(x)) == 6 and (factor > 0).all() and index.dtype == "int64"


def test_repeated_arrays_are_those_of_a_broadcast_view():
    (call,) = declare(scaled, Case(real(2, 3), 2.0)).calls
    (plain,), (repeated,) = call.arrays(), call.arrays(repeat=True)
    np.testing.assert_array_equal(repeated, np.broadcast_to(plain[:, :1], (2, 3)))


def test_cotangents_are_uneven_and_the_same_every_time():
    (call,) = declare(scaled, Case(real(2, 3), 2.0)).calls
    g = call.cotangent((2, 3), 1)
    assert len(set(g.reshape(-1))) == 6
    np.testing.assert_array_equal(g, declare(scaled, Case(real(2, 3), 2.0)).calls[0].cotangent((2, 3), 1))
    assert not np.array_equal(g, call.cotangent((2, 3), 2))


def test_derived_arguments_follow_the_others():
    seen = []

    def shortcut(x, factor):
        seen.append((type(x), factor))
        return x.sum()

    (call,) = declare(scaled, Case(real(3), 2.0, derived(shortcut))).calls
    call(tg.Tensor(np.ones(3)))
    assert seen == [(np.ndarray, 2.0)]
    assert declare(scaled, Case(real(3), 2.0, derived(shortcut))).wanted == ("x", "factor")


def test_wrong_calls_are_refused_when_they_are_drawn():
    with pytest.raises(TypeError, match="misses the argument 'factor'"):
        declare(scaled, Case(real(2))).problems()
    with pytest.raises(TypeError, match="unknown"):
        declare(scaled, Case(real(2), 2.0, size=3)).problems()
    with pytest.raises(TypeError):
        declare(lambda x: x, Case(real(2), real(2))).problems()
