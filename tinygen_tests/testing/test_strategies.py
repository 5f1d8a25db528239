"""Hypothesis strategies: everything drawn is legal, every kind is drawn, and failures shrink to something readable."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import tinygen as tg
import tinygen.nn.functional as F
from tinygen.backend import move
from tinygen.testing import booleans, distinct, integers, positive, real
from tinygen.testing import strategies as draw
from tinygen_tests.judge import host, same, torch

few = settings(max_examples=40)


def shrunk(strategy, wanted, examples=2000):
    """The simplest example that Hypothesis finds."""
    return find(strategy, wanted, settings=settings(max_examples=examples, database=None))


def drawn(strategy, wanted):
    """Assert that such an example is drawn."""
    find(strategy, wanted, settings=settings(max_examples=2000, database=None, phases=[Phase.generate]))


def filled(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def here(array):
    return tg.Tensor(move(array, tg.get_default_device()))


# ---------------------------------------------------------------------------------------- arrays and tensors


@few
@given(st.data())
def test_arrays_hold_the_values_that_were_asked_for(data):
    kind = data.draw(st.sampled_from([real(kinks=[0], gap=0.25), positive(), distinct(), integers(high=3), booleans()]))
    dtype = data.draw(draw.dtypes("float16")) if kind.kind in ("real", "distinct") else None
    layout = data.draw(draw.layouts())
    x = data.draw(draw.arrays(draw.shapes(0, 3, 0, 3), kind, dtype, layout))
    assert x.dtype == (dtype or {"boolean": "bool", "integer": "int64"}[kind.kind])
    if kind.kind == "real":
        assert ((kind.low <= x) & (x <= kind.high)).all() and (abs(x) >= 0.25 * bool(kind.kinks)).all()
    if kind.kind == "distinct":
        assert len(np.unique(x)) == x.size


@few
@given(draw.tensors(draw.shapes(0, 4, 0, 3), real(), draw.dtypes(), draw.layouts(repeats=True)))
def test_tensors_live_on_the_default_device_and_require_grad(x):
    assert x.requires_grad and x.device.type == tg.get_default_device().type
    (g,) = tg.grad((x * x).sum(), x)
    np.testing.assert_allclose(host(g), 2 * host(x))


@given(draw.tensors((3,), integers()))
@settings(max_examples=3)
def test_integer_tensors_require_no_grad(t):
    assert t.dtype == "int64" and not t.requires_grad


# ------------------------------------------------------------------------------------------------ shapes


@few
@given(st.integers(1, 4).flatmap(lambda n: draw.broadcastable(n, min_side=0)))
def test_broadcastable_shapes_broadcast(shapes):
    np.broadcast_shapes(*shapes)


@few
@given(draw.matmul_shapes(min_side=0))
def test_matmul_shapes_multiply(shapes):
    a, b = (filled(shape) for shape in shapes)
    y = tg.matmul(here(a), here(b))
    np.testing.assert_allclose(host(y), a @ b, atol=1e-12)


@settings(max_examples=80)
@given(st.data())
def test_dims_are_what_a_reduction_takes(data):
    shape = data.draw(draw.shapes(0, 4))
    d = data.draw(draw.dims(len(shape)))
    x = filled(shape)
    same(here(x).sum(d), torch.from_numpy(x).sum(d) if d is not None else torch.from_numpy(x).sum())


@settings(max_examples=150)
@given(st.data())
def test_indices_index_as_pytorch_does(data):
    shape = data.draw(draw.shapes(0, 4, 0, 3))
    index = data.draw(draw.indices(shape, negative_steps=False))
    x = filled(shape)

    def converted(to):
        parts = index if isinstance(index, tuple) else (index,)
        return tuple(to(part) if isinstance(part, np.ndarray) else part for part in parts)

    same(here(x)[converted(here)], torch.from_numpy(x)[converted(lambda a: torch.from_numpy(a))])


@settings(max_examples=80)
@given(st.data())
def test_indices_without_arrays_index_as_numpy_does(data):
    shape = data.draw(draw.shapes(0, 4, 0, 3))
    x = filled(shape)
    index = data.draw(draw.indices(shape, arrays=False, masks=False))
    np.testing.assert_array_equal(host(here(x)[index]), x[index])


@pytest.mark.parametrize(
    "wanted",
    [
        lambda i: None in i,
        lambda i: Ellipsis in i and i.index(Ellipsis) == 1 and len(i) == 3,
        lambda i: any(isinstance(p, slice) and p.step == -2 for p in i),
        lambda i: any(type(p) is int and p < 0 for p in i),
        lambda i: any(getattr(p, "dtype", None) == "bool" and p.ndim == 2 for p in i),
        lambda i: any(getattr(p, "dtype", None) == "int64" and len(np.unique(p)) < p.size for p in i),
        lambda i: sum(getattr(p, "dtype", None) == "int64" for p in i) == 2,
        lambda i: any(type(p) is int for p in i) and any(hasattr(p, "dtype") for p in i),
    ],
    ids=["None", "…", "backwards", "from the end", "2-D mask", "places twice", "two arrays", "array and integer"],
)
def test_every_kind_of_index_is_drawn(wanted):
    def found(index):
        parts = index if isinstance(index, tuple) else (index,)
        if any(hasattr(p, "dtype") for p in parts):
            with contextlib.suppress(ValueError):  # `None in parts` compares arrays
                return wanted(list(parts))
            return False
        return wanted(list(parts))

    drawn(draw.indices((3, 4, 2)), found)


# ---------------------------------------------------------------------------------- convolution, pooling


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@settings(max_examples=60)
@given(draw.conv2d_cases())
def test_conv2d_cases_are_legal_here_and_in_pytorch(case):
    x, w = filled(case.input), filled(case.weight, 1)
    b = None if case.bias is None else filled(case.bias, 2)
    ours = F.conv2d(here(x), here(w), None if b is None else here(b), **case.options)
    assert ours.shape == case.output
    theirs = torch.nn.functional.conv2d(
        *(None if a is None else torch.from_numpy(a) for a in (x, w, b)), **case.options
    )
    same(ours, theirs)


@settings(max_examples=60)
@given(draw.conv_transpose2d_cases())
def test_conv_transpose2d_cases_are_legal_here_and_in_pytorch(case):
    x, w = filled(case.input), filled(case.weight, 1)
    b = None if case.bias is None else filled(case.bias, 2)
    ours = F.conv_transpose2d(here(x), here(w), None if b is None else here(b), **case.options)
    assert ours.shape == case.output
    theirs = torch.nn.functional.conv_transpose2d(
        *(None if a is None else torch.from_numpy(a) for a in (x, w, b)), **case.options
    )
    same(ours, theirs)


@settings(max_examples=60)
@given(draw.max_pool2d_cases())
def test_max_pool2d_cases_are_legal_here_and_in_pytorch(case):
    x = filled(case.input)
    ours = F.max_pool2d(here(x), **case.options)
    assert ours.shape == case.output
    same(ours, torch.nn.functional.max_pool2d(torch.from_numpy(x), **case.options))


@settings(max_examples=60)
@given(draw.avg_pool2d_cases())
def test_avg_pool2d_cases_are_legal_here_and_in_pytorch(case):
    x = filled(case.input)
    ours = F.avg_pool2d(here(x), **case.options)
    assert ours.shape == case.output
    same(ours, torch.nn.functional.avg_pool2d(torch.from_numpy(x), **case.options))


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (draw.conv2d_cases(), lambda c: c.options["padding"] == "same" and pair(c.options["dilation"]) == (2, 3)),
        (draw.conv2d_cases(), lambda c: c.options["padding"] == "valid" and c.bias is None),
        (draw.conv2d_cases(), lambda c: c.options["groups"] == 3 and len(c.input) == 3),
        (draw.conv2d_cases(), lambda c: type(c.options["stride"]) is tuple and c.options["stride"][0] == 3),
        (draw.conv2d_cases(), lambda c: pair(c.options["stride"])[1] == 3 and (c.input[-1] - c.weight[-1]) % 3 == 2),
        (draw.conv_transpose2d_cases(), lambda c: pair(c.options["output_padding"]) == (1, 2)),
        (
            draw.conv_transpose2d_cases(),
            lambda c: pair(c.options["output_padding"])[0] >= pair(c.options["stride"])[0],
        ),
        (draw.conv_transpose2d_cases(), lambda c: pair(c.options["padding"])[0] == 3),
        (draw.max_pool2d_cases(), lambda c: c.options["ceil_mode"] and pair(c.options["dilation"])[0] == 2),
        (draw.max_pool2d_cases(), lambda c: "stride" not in c.options and pair(c.options["padding"]) == (1, 1)),
        (draw.avg_pool2d_cases(), lambda c: c.options["divisor_override"] == -3 and len(c.input) == 3),
        (draw.avg_pool2d_cases(), lambda c: not c.options["count_include_pad"] and c.options["ceil_mode"]),
    ],
)
def test_every_legal_choice_is_drawn(strategy, wanted):
    drawn(strategy, wanted)


# ------------------------------------------------------------------------------------------------ shrinking


def test_a_tensor_shrinks_to_one_whole_number():
    """Planted failure: a function that is wrong above 1."""
    x = shrunk(draw.arrays(draw.shapes(0, 4), real(low=-5, high=5)), lambda x: (x > 1).any())
    assert x.shape == () and x == 2.0


def test_a_shape_that_fails_shrinks_to_the_axis_that_matters():
    """Planted failure: gradients of operands that were repeated are not summed."""
    a, b = shrunk(draw.broadcastable(2), lambda s: np.broadcast_shapes(*s) != s[0])
    assert (a, b) in [((), (1,)), ((1,), (2,)), ((), (2,))]


def test_a_matrix_product_shrinks_to_two_vectors_of_one():
    assert shrunk(draw.matmul_shapes(), lambda s: True) in [((1, 1), (1, 1)), ((1,), (1,))]
    assert shrunk(draw.matmul_shapes(), lambda s: len(s[0]) > 2) == ((1, 1, 1), (1, 1))


def test_a_convolution_that_fails_shrinks_to_what_it_fails_for():
    """Planted failure: a kernel that forgets the dilation wherever there is a stride too."""

    def fails(case):
        s, d = (case.options[k] if isinstance(case.options[k], tuple) else (case.options[k],) * 2 for k in names)
        return any(a > 1 and b > 1 and k > 1 for a, b, k in zip(s, d, case.weight[2:]))

    names = ("stride", "dilation")
    case = shrunk(draw.conv2d_cases(), fails)
    assert case.input in [(1, 1, 3, 1), (1, 1, 1, 3)] and case.weight in [(1, 1, 2, 1), (1, 1, 1, 2)]
    assert case.bias is None and case.output == (1, 1, 1, 1)
    assert case.options["padding"] == 0 and case.options["groups"] == 1
    assert sorted(case.options["stride"]) == sorted(case.options["dilation"]) == [1, 2]


def test_a_pooling_that_fails_shrinks_to_what_it_fails_for():
    """Planted failure: the last window of ceil_mode is left out."""
    case = shrunk(draw.max_pool2d_cases(), lambda c: c.options["ceil_mode"] and max(c.output[-2:]) > 1)
    assert case.input[:2] == (1, 1) and sorted(case.input[2:]) in ([1, 2], [1, 3])
    assert case.options["dilation"] == 1


def test_an_index_that_fails_shrinks_to_one_place_twice():
    """Planted failure: scatter overwrites where it should add."""

    def fails(index):
        parts = index if isinstance(index, tuple) else (index,)
        arrays = [p for p in parts if getattr(p, "dtype", None) == "int64"]
        return any(len(np.unique(p % 3)) < p.size for p in arrays)

    index = shrunk(draw.indices((3,)), fails)
    assert isinstance(index, tuple) and len(index) == 1
    np.testing.assert_array_equal(index[0], [0, 0])


@pytest.mark.cpu_only("the message is compared")
def test_a_failing_property_is_reported_with_the_small_example():
    """What a person sees: the planted failure, and nothing that does not belong to it."""

    @settings(max_examples=300, database=None, derandomize=True, print_blob=False)
    @given(draw.arrays(draw.shapes(1, 3), real(low=-5, high=5)))
    def property_of_softplus(x):
        naive = np.log(1 + np.exp(100 * x)) / 100  # overflows for x > 7.1
        assert np.isfinite(naive).all()

    with np.errstate(over="ignore"):
        property_of_softplus()  # |x| ≤ 5: nothing to find

        @settings(max_examples=300, database=None, derandomize=True, print_blob=False)
        @given(draw.arrays(draw.shapes(1, 3), real(low=-9, high=9)))
        def wider(x):
            assert np.isfinite(np.log(1 + np.exp(100 * x)) / 100).all()

        with pytest.raises(AssertionError) as caught:
            wider()
    assert "x=array([8.])" in "".join(caught.value.__notes__)


# ----------------------------------------------------------------------------------------------- on import


@pytest.mark.cpu_only("imports in another process")
def test_hypothesis_is_imported_by_the_strategies_alone():
    code = (
        "import sys, tinygen as tg; assert 'hypothesis' not in sys.modules; "
        "tg.testing.strategies.shapes(); assert 'hypothesis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    without = (
        "import sys; sys.modules['hypothesis'] = None; import tinygen as tg\n"
        "try: tg.testing.strategies\n"
        "except ImportError as e: assert 'pip install hypothesis' in str(e), e\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", without], check=True)
