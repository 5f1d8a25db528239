"""The list of CuPy's names, and that the stand-in has nothing besides: no name, no parameter."""

import inspect

import numpy as np
import pytest

from tinygen.testing.strict import arithmetic, array, cuda, functions, library, random
from tinygen.testing.strict.names import listed, members
from tinygen_tests.tools import cupy_names

pytestmark = pytest.mark.cpu_only("about the stand-in itself, in every run")

PARTS = ["cupy", "cupy.ndarray", "cupy.linalg", "cupy.random", "cupy.random.Generator", "cupy.cuda", "cupy.cuda.Device"]


@pytest.fixture(scope="module")
def cupy():
    found = pytest.importorskip("cupy", reason="CuPy is not installed here; its names need no GPU to be read")
    if found.__version__ != cupy_names.VERSION:
        pytest.skip(f"CuPy {found.__version__} is installed, the list is of {cupy_names.VERSION}")
    return found


def test_the_list_is_what_the_installed_cupy_has(cupy):
    written = [line for line in cupy_names.TARGET.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert written == cupy_names.names(), "run python -m tinygen_tests.tools.cupy_names"


def test_ufuncs_give_the_dtypes_that_cupys_own_tables_give(cupy):
    """CuPy goes down a ufunc's table for the first row that all operands can be cast to; NumPy has its own ways."""
    wrong, checked = [], 0
    for name, entry in members("cupy").items():
        ours = getattr(library.build(), name) if entry.kind == "ufunc" else None
        if not isinstance(ours, functions.ufunc) or ours.nout > 1:
            continue
        for types in np.ndindex(*[len("?bBhHiIlLefdFD")] * ours.nin):
            dtypes = [np.dtype("?bBhHiIlLefdFD"[t]) for t in types]
            rows = (row.split("->") for row in getattr(cupy, name).types)
            row = next((o for i, o in rows if all(np.can_cast(d, c) for d, c in zip(dtypes, i))), None)
            try:
                got = ours(*(functions.ones(2, d) for d in dtypes)).dtype
            except (TypeError, ValueError):
                continue  # stricter than CuPy is allowed
            checked += 1
            if row is None or np.dtype(row) != got:
                wrong.append((name, *dtypes, row, got))
    assert checked > 5000
    assert not wrong


def test_the_list_reads_as_it_is_written():
    entries = listed()
    assert len(entries) > 900 and entries["cupy.add"].at and not entries["cupy.multiply"].at
    assert entries["cupy.sum"].kind == "function" and entries["cupy.float32"].kind == "class"
    signature = entries["cupy.array"].signature()
    assert list(signature.parameters) == ["obj", "dtype", "copy", "order", "subok", "ndmin", "blocking"]
    assert signature.parameters["blocking"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [p.default for p in signature.parameters.values()][:3] == [inspect.Parameter.empty, "None", "True"]
    assert str(entries["cupy.meshgrid"].signature()) == "(*xi, **kwargs)"
    with pytest.raises(TypeError, match="where"):
        entries["cupy.sum"].signature().bind(1, where=2)


def test_every_listed_signature_can_be_read():
    for name, entry in listed().items():
        if entry.parameters:
            assert entry.signature() is not None, name


@pytest.mark.parametrize(
    "name", "errstate bmat nditer block insert geomspace asmatrix object_ str_ vecdot matrix".split()
)
def test_what_numpy_has_and_cupy_has_not_is_missing(name):
    assert hasattr(np, name)
    with pytest.raises(AttributeError, match=f"{name}.*CuPy 14.2 does not have it"):
        getattr(library.build(), name)


def test_no_name_of_numpys_is_there_unless_cupy_has_it():
    cp = library.build()
    extra = [name for name in dir(np) if not name.startswith("_") and name not in members("cupy") and hasattr(cp, name)]
    assert not extra


def test_what_cupy_has_and_the_stand_in_has_not_yet_says_so():
    cp = library.build()
    for read in (lambda: cp.loadtxt, lambda: cp.random.randn, lambda: cp.ones(2).choose, lambda: cp.cuda.graph):
        with pytest.raises(NotImplementedError, match="CuPy has .* does not have it yet"):
            read()


def test_arrays_have_no_method_that_cupys_have_not():
    for cls in (array.ndarray, arithmetic.Reductions, arithmetic.Operators):
        for name in vars(cls):
            if not name.startswith("_"):
                assert name in members("cupy.ndarray"), name
    own = {name for name in dir(array.ndarray) if name.startswith("__") and not hasattr(object, name)}
    assert own - set(members("cupy.ndarray")) <= {"__getattr__", "__slots__", "__annotations__", "__weakref__"}


@pytest.mark.parametrize(
    "name", "__index__ __contains__ __imatmul__ __array_interface__ ctypes setflags resize itemset to_device".split()
)
def test_what_numpys_arrays_have_and_cupys_have_not_is_missing(name):
    assert not hasattr(functions.ones(2), name)


@pytest.mark.parametrize("name", "normal permutation shuffle choice permuted multivariate_normal bytes".split())
def test_what_numpys_generator_has_and_cupys_has_not_is_missing(name):
    assert hasattr(np.random.default_rng(), name)
    with pytest.raises(AttributeError):
        getattr(random.default_rng(0), name)


def _written_out():
    """Everything that the stand-in defines by hand and CuPy gives parameters of: (full name, the thing)."""
    for path, owner in [
        ("cupy", functions),
        ("cupy.ndarray", array.ndarray),
        ("cupy.random", random),
        ("cupy.random.Generator", random.Generator),
        ("cupy.cuda", cuda),
        ("cupy.cuda.Device", cuda.Device),
        ("cupy.cuda.Stream", cuda.Stream),
        ("cupy.cuda.Event", cuda.Event),
        ("cupy.cuda.MemoryPool", cuda.MemoryPool),
        ("cupy.lib.stride_tricks", functions),
    ]:
        for name, entry in members(path).items():
            if entry.parameters and inspect.isfunction(vars_of(owner).get(name)):
                yield f"{path}.{name}", vars_of(owner)[name]


def vars_of(owner):
    found = {}
    for base in reversed(getattr(owner, "__mro__", [owner])):
        found.update(vars(base))
    return found


WRITTEN_OUT = dict(_written_out())


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_parameters_are_cupys(name):
    """Names, order, kinds, and which have defaults. (``matmul`` refuses what it does not take.)"""
    ours, theirs = inspect.signature(WRITTEN_OUT[name]).parameters, listed()[name].signature().parameters
    if name == "cupy.matmul":
        assert list(ours)[:2] == ["a", "b"]
        return
    assert list(ours) == list(theirs)
    for p, q in zip(ours.values(), theirs.values()):
        assert p.kind == q.kind, p
        assert (p.default is p.empty) == (q.default is q.empty), p


def test_most_of_what_is_written_out_was_looked_at():
    assert len(WRITTEN_OUT) > 100
