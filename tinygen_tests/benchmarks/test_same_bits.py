"""A training step gives the same bits again: in another process, with another number of threads."""

import hashlib
import subprocess
import sys

import pytest

from benchmarks import nets, peers, works
from tinygen.kernels.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.cpu_only("threads of the CPU")


def bits(family, threads, batch=64, size=16):
    """A digest of the loss after two steps and of all weights: large enough that the work is shared by the threads."""
    import numpy as np

    import tinygen as tg

    before = get_num_threads()
    try:
        set_num_threads(threads)
        tg.manual_seed(0)
        step = peers.load(["tinygen"])[0]["tinygen"]
        training = step.training(family, nets.weights(family, size), works.images(batch, size))
        tg.manual_seed(1)
        losses = [training().item() for _ in range(2)]
    finally:
        set_num_threads(before)
    digest = hashlib.sha256(np.float64(losses).tobytes())
    for _, w in sorted(training.net.state_dict().items()):
        digest.update(np.ascontiguousarray(w.numpy()).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def elsewhere():
    """The digests in a fresh process with two threads."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_same_bits import bits, nets\n"
    code += "print(*[bits(family, 2) for family in nets.FAMILIES])"
    done = subprocess.run([sys.executable, "-c", code, __file__.rpartition("test_same_bits")[0]],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(nets.FAMILIES, done.stdout.split(), strict=True))


@pytest.mark.parametrize("family", nets.FAMILIES)
def test_one_thread_two_threads_and_another_process_give_the_same_bits(family, elsewhere):
    assert bits(family, 1) == bits(family, 2) == elsewhere[family]
