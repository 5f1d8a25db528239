"""Each mistake has its hint, and what is no known mistake has none."""

import numpy as np
import pytest

from tinygen.testing.hints import hint

RNG = np.random.default_rng(0)
N = RNG.standard_normal((3, 3))  # the true gradient


def hinted(claimed, number=N, result=(3, 3), unsummed=lambda: None, small=True):
    return hint(np.asarray(claimed), np.ravel(claimed), np.ravel(number), small, result, unsummed)


@pytest.mark.parametrize(
    "claimed, text",
    [
        (-N, "Every sign is wrong."),
        (N / 2, "A factor of 2 is missing."),
        (N * 3, "A factor of 0.333333 is missing."),
        (-N / 2, "A factor of -2 is missing."),
        (N.T, "It is transposed."),
        (N * 0, "The vjp gives zeros"),
        (np.where(N > 1, np.inf, N), "not finite"),
        (np.where(N > 1, np.nan, N), "not finite"),
        (N + 1, ""),
        (np.where(N > 0, N, 0), ""),  # the right numbers, but not all of them: no factor
    ],
)
def test_each_mistake_has_its_hint(claimed, text):
    found = hinted(claimed)
    assert found.startswith(text) if text not in ("", "not finite") else text in found
    assert bool(found) == bool(text)


def test_one_summand_of_a_sum_over_repetitions():
    whole = RNG.standard_normal((2, 4, 3))  # the gradient of an argument (4, 1) broadcast to the result (2, 4, 3)
    summed = whole.sum((0, 2)).reshape(4, 1)
    one = whole[1, :, 2].reshape(4, 1)
    found = hinted(one, summed, (2, 4, 3), lambda: whole)
    assert found == (
        "The sum over the repetitions is missing (unbroadcast): the argument of shape (4, 1) is repeated 6 times in "
        "the result of shape (2, 4, 3), and the vjp gives one summand of 6."
    )
    assert hinted(one + 1, summed, (2, 4, 3), lambda: whole) == ""
    assert hinted(one, summed, (2, 4, 3), lambda: None) == ""
    assert hinted(one, summed, (4, 3, 2), lambda: whole) == ""  # it does not broadcast to that


def test_a_mean_over_repetitions():
    number = RNG.standard_normal(3)
    assert "not the mean" in hinted(number / 5, number, (5, 3))
    assert hinted(number / 4, number, (5, 3)) == "A factor of 4 is missing."


def test_directions_of_a_large_input_know_signs_and_factors_alone():
    assert hinted(-N, small=False) == "Every sign is wrong."
    assert hinted(N.T, small=False) == ""
