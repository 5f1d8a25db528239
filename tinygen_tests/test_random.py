"""Random numbers: one stream for each seed, states that survive JSON, shapes, dtypes, moments, errors."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen import random as random_module
from tinygen_tests.draws import examples

pytestmark = pytest.mark.cpu_only("about the CPU's generator; testing/strict/test_strict.py is about a GPU's")

DRAWS = {
    "rand": lambda rng: tg.rand(5, rng=rng),
    "randn": lambda rng: tg.randn(5, rng=rng),
    "randint": lambda rng: tg.randint(0, 1000, (5,), rng=rng),
    "randperm": lambda rng: tg.randperm(50, rng=rng),
    "rand_like": lambda rng: tg.rand_like(tg.zeros(5), rng=rng),
    "randn_like": lambda rng: tg.randn_like(tg.zeros(5), rng=rng),
    "randint_like": lambda rng: tg.randint_like(tg.zeros(5), 1000, rng=rng),
}
draws = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


# --------------------------------------------------------------------------------------------- streams


@draws
def test_one_seed_is_one_stream(draw):
    a, b = tg.Generator(7), tg.Generator(7)
    first = [draw(a).tolist() for _ in range(3)]
    assert first == [draw(b).tolist() for _ in range(3)]
    assert first[0] != first[1]
    assert draw(tg.Generator(8)).tolist() != first[0]
    assert draw(a.manual_seed(7)).tolist() == first[0]


@draws
def test_manual_seed_seeds_what_is_drawn_without_a_generator(draw):
    assert tg.manual_seed(3) is tg.default_generator()
    first = draw(None).tolist()
    assert draw(None).tolist() != first
    tg.manual_seed(3)
    assert draw(None).tolist() == first
    assert draw(tg.Generator(3)).tolist() == first


@draws
def test_an_own_generator_leaves_the_default_one_alone(draw):
    tg.manual_seed(3)
    before = tg.default_generator().state_dict()
    draw(tg.Generator(0))
    assert tg.default_generator().state_dict() == before


@examples(30)
@given(seed=st.integers(0, 2**130), steps=st.lists(st.sampled_from(list(DRAWS)), max_size=5))
def test_a_state_survives_json_at_any_point(seed, steps):
    rng = tg.Generator(seed)
    for name in steps:
        DRAWS[name](rng)
    state = json.loads(json.dumps(rng.state_dict()))
    expected = [draw(rng).tolist() for draw in DRAWS.values()]
    twin = tg.Generator(12345)
    twin.load_state_dict(state)
    assert [draw(twin).tolist() for draw in DRAWS.values()] == expected
    assert twin.initial_seed() == rng.initial_seed() == seed


def test_a_state_is_a_snapshot():
    rng = tg.Generator(0)
    state = rng.state_dict()
    copy = json.dumps(state)
    tg.rand(3, rng=rng)
    assert json.dumps(state) == copy


def broken(change):
    state = tg.Generator(1).state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        [],
        broken(lambda s: s.pop("seed")),
        broken(lambda s: s.update(more=1)),
        broken(lambda s: s.update(device="cuda:0")),
        broken(lambda s: s.update(state=None)),
        broken(lambda s: s.update(state={})),
        broken(lambda s: s.update(seed="x")),
        broken(lambda s: s.update(seed=None)),
        broken(lambda s: s["state"].update(bit_generator="MT19937")),
        broken(lambda s: s["state"].pop("has_uint32")),
        broken(lambda s: s["state"]["state"].pop("inc")),
        broken(lambda s: s["state"]["state"].update(state=-1)),
        broken(lambda s: s["state"]["state"].update(state=2**200)),
        broken(lambda s: s["state"]["state"].update(state="x")),
        broken(lambda s: s["state"].update(uinteger=2**80)),
    ],
)
def test_states_that_are_none_are_refused_and_change_nothing(state):
    rng = tg.Generator(5)
    tg.rand(3, rng=rng)
    before = rng.state_dict()
    with pytest.raises(ValueError, match="load_state_dict: "):
        rng.load_state_dict(state)
    assert rng.state_dict() == before


@pytest.mark.parametrize("wrong", [-1, 1.5, "x", None, [1]])
def test_seeds_are_non_negative_integers(wrong):
    before = tg.manual_seed(1).state_dict()
    with pytest.raises(ValueError, match="expected a non-negative integer"):
        tg.manual_seed(wrong)
    assert tg.default_generator().state_dict() == before
    if wrong is not None:
        with pytest.raises(ValueError, match="expected a non-negative integer"):
            tg.Generator(wrong)


def test_unseeded_generators_differ_and_know_their_seed():
    a, b = tg.Generator(), tg.Generator()
    assert a.initial_seed() != b.initial_seed()
    assert tg.rand(3, rng=a).tolist() == tg.rand(3, rng=tg.Generator(a.initial_seed())).tolist()
    assert repr(tg.Generator(4)) == "Generator(seed=4, device='cpu')"
    assert tg.Generator(np.int64(4)).initial_seed() == 4


# ----------------------------------------------------------------------------------- shapes and dtypes


@pytest.mark.parametrize("f", [tg.rand, tg.randn])
def test_sizes_and_dtypes(f):
    rng = tg.Generator(0)
    for x in (f(2, 3, rng=rng), f((2, 3), rng=rng), f([2, 3], rng=rng), f(tg.zeros(2, 3).shape, rng=rng)):
        assert x.shape == (2, 3) and x.dtype == tg.float32 and x.is_leaf and not x.requires_grad
    assert f((), rng=rng).shape == () and isinstance(f((), rng=rng).data, np.ndarray) and f(0, rng=rng).shape == (0,)
    for dtype in ("float16", "float32", "float64"):
        assert f(2, rng=rng, dtype=dtype).dtype == np.dtype(dtype)
        like = (tg.rand_like if f is tg.rand else tg.randn_like)(tg.zeros(2, dtype=dtype), rng=rng)
        assert like.dtype == np.dtype(dtype) and like.shape == (2,)
    assert f(2, rng=rng, requires_grad=True).requires_grad
    tg.set_default_dtype("float64")
    try:
        assert f(2, rng=rng).dtype == tg.float64
    finally:
        tg.set_default_dtype("float32")


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_floating_draws_of_integers_are_refused(dtype):
    for f in (tg.rand, tg.randn):
        with pytest.raises(TypeError, match=f"{f.__name__}: expected a floating dtype, got {dtype}"):
            f(2, dtype=dtype)
    for f in (tg.rand_like, tg.randn_like):
        with pytest.raises(TypeError, match="expected a floating dtype"):
            f(tg.zeros(2, dtype=dtype))


def test_randint_spells_its_size_as_pytorch_does():
    rng = tg.Generator(0)
    for x in (
        tg.randint(10, (2, 3), rng=rng),
        tg.randint(10, size=(2, 3), rng=rng),
        tg.randint(0, 10, (2, 3), rng=rng),
        tg.randint(low=0, high=10, size=[2, 3], rng=rng),
        tg.randint_like(tg.zeros(2, 3, dtype="int64"), 10, rng=rng),
        tg.randint_like(tg.zeros(2, 3, dtype="int64"), 0, 10, rng=rng),
    ):
        assert x.shape == (2, 3) and x.dtype == tg.int64 and ((x >= 0) & (x < 10)).all()
    assert tg.randint(3, (2,), dtype="int32").dtype == tg.int32
    assert tg.randint_like(tg.zeros(2), 3).dtype == tg.float32
    assert set(tg.randint_like(tg.zeros(200), 3).tolist()) == {0, 1, 2} == set(tg.randint(3, (200,)).tolist())
    assert tg.randint(-3, -2, (4,)).tolist() == [-3] * 4 and tg.randint(5, (0,)).shape == (0,)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: tg.randint(3, 3, (2,)), ValueError, "expected low < high, got low=3, high=3"),
        (lambda: tg.randint(0, (2,)), ValueError, "low=0, high=0"),
        (lambda: tg.randint(0, 3, 2), TypeError, "expected the size as a tuple, got 2"),
        (lambda: tg.randint(3), TypeError, "expected the size as a tuple"),
        (lambda: tg.rand(-1), ValueError, "negative"),
        (lambda: tg.rand(2.5), TypeError, "float"),
        (lambda: tg.randperm(-1), ValueError, "negative"),
        (lambda: tg.rand(2, generator=1), TypeError, "generator"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("wrong", [0, np.random.default_rng(0), "x", tg.rand])
def test_rng_is_a_generator(wrong):
    for draw in DRAWS.values():
        with pytest.raises(TypeError, match="rng: expected a tinygen.Generator, got .*tg.Generator"):
            draw(wrong)


def test_rng_and_device_agree():
    with pytest.raises(ValueError, match="rng draws on cpu, but device='cuda' was asked for"):
        tg.rand(2, rng=tg.Generator(0), device="cuda")
    assert tg.rand(2, rng=tg.Generator(0), device="cpu").device == "cpu"


# --------------------------------------------------------------------------------------------- moments

N = 200_000


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_numbers_lie_in_the_half_open_interval_with_its_moments(dtype):
    x = tg.rand(N, rng=tg.Generator(0), dtype=dtype).numpy()
    assert x.min() >= 0 and x.max() < 1
    x = x.astype("float64")
    assert x.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / N) + 3e-4)
    assert x.var() == pytest.approx(1 / 12, rel=0.02)
    # As many bits as the dtype holds below 1: fewer would be coarse, more would round up to 1.
    bits = {"float16": 11, "float32": 24, "float64": 53}[dtype]
    whole = x * 2.0**bits
    assert (whole == np.floor(whole)).all() and (whole % 2 == 1).any()
    counts, _ = np.histogram(x, 20, (0, 1))
    assert abs(counts - N / 20).max() < 6 * math.sqrt(N / 20)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_normal_numbers_have_the_moments_of_the_normal_distribution(dtype):
    x = tg.randn(N, rng=tg.Generator(0), dtype=dtype).numpy().astype("float64")
    moments = [(x**k).mean() for k in range(1, 5)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.06)
    assert (np.abs(x) < 1).mean() == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.005)


def test_integers_are_equally_likely():
    x = tg.randint(-2, 5, (N,), rng=tg.Generator(0)).numpy()
    values, counts = np.unique(x, return_counts=True)
    assert values.tolist() == list(range(-2, 5))
    assert abs(counts - N / 7).max() < 6 * math.sqrt(N / 7)


def test_permutations_are_permutations_and_equally_likely():
    rng = tg.Generator(0)
    assert sorted(tg.randperm(100, rng=rng).tolist()) == list(range(100)) and tg.randperm(0).shape == (0,)
    assert tg.randperm(3).dtype == tg.int64
    seen = [tuple(tg.randperm(3, rng=rng).tolist()) for _ in range(6000)]
    counts = [seen.count(p) for p in set(seen)]
    assert len(counts) == 6 and max(abs(c - 1000) for c in counts) < 6 * math.sqrt(1000)


def test_arrays_drawn_by_a_generator_have_their_bounds():
    rng = tg.Generator(0)
    x = rng.uniform((1000,), "float32", -2.0, 3.0)
    assert x.dtype == np.float32 and -2 <= x.min() < -1.9 and 2.9 < x.max() <= 3
    assert rng.standard_normal((2,), "float16").dtype == np.float16
    assert rng.integers(0, 2, (3,), "bool").dtype == np.bool_
    assert sorted(rng.permutation(4).tolist()) == [0, 1, 2, 3]


def test_default_generators_of_other_devices_take_the_seed_of_the_cpus():
    tg.manual_seed(11)
    assert random_module.default_generator("cpu").initial_seed() == 11
    assert random_module.default_generator() is random_module.default_generator("cpu")
