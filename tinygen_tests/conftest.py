"""What every test shares: one deterministic Hypothesis profile, the same defaults at the start, and the backend.

``pytest --backend strict`` runs the tests with ``"cuda"`` as the default device, served by the strict stand-in for
CuPy; ``--backend cupy`` does so on a real GPU. Tensors made without a device (``tg.tensor``, ``tg.randn``, layers,
models), and the inputs of ``judge`` and ``check_grad``, are then made there. Tests that are about NumPy memory, files
or pictures are marked ``@pytest.mark.cpu_only("reason")`` and left out of such a run.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

import tinygen as tg
from tinygen.backend import cupy_problem
from tinygen.kernels.gpu.launch import set_enabled

# The same examples in every run, so that a red run is red for everybody; no deadline, because a slow
# machine is not a wrong gradient. HYPOTHESIS_PROFILE=search looks for new examples instead.
settings.register_profile("tinygen", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tinygen"))

# A program that a script starts in the background inherits a SIGINT that is ignored; the tests of Ctrl-C, and the
# processes that they start, need the one that a terminal gives.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_no_gpu = cupy_problem()  # asked before the stand-in makes it look as if there were one


def pytest_configure(config: pytest.Config) -> None:
    backend = config.getoption("--backend")
    if backend == "cupy" and _no_gpu is not None:
        raise pytest.UsageError(f"--backend cupy: {_no_gpu}")
    if backend == "strict":
        stack = ExitStack()
        stack.enter_context(tg.testing.strict_cupy())
        # Thread by thread the kernels take minutes for what trains a network: they have tests of their own, in every
        # run (tinygen_tests/kernels/gpu, tinygen_tests/cuda). Asked for by name they take part here too.
        set_enabled(os.environ.get("TINYGEN_GPU_KERNELS") == "1")
        config.add_cleanup(stack.close)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _no_gpu is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=_no_gpu))
    if config.getoption("--backend") != "numpy":
        left_out = [item for item in items if item.get_closest_marker("cpu_only")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("cpu_only")]


@pytest.fixture(autouse=True)
def the_same_defaults(request: pytest.FixtureRequest) -> Iterator[None]:
    """The default dtype, device and generator are tinygen's only global state: no test inherits another's."""
    dtype, device = tg.get_default_dtype(), tg.get_default_device()
    tg.manual_seed(0)
    if request.config.getoption("--backend") != "numpy":
        tg.set_default_device("cuda")
    yield
    tg.set_default_dtype(dtype)
    tg.set_default_device(device)
