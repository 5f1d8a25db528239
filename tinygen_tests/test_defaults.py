"""Defaults set by the main program hold everywhere; set in a thread or a task they hold there alone."""

import asyncio
import os
import subprocess
import sys
import threading
from contextvars import copy_context

import numpy as np
import pytest

import tinygen as tg
from tinygen import defaults
from tinygen.defaults import Default


def in_thread(f):
    """What f returns in a thread of its own."""
    found = []

    def call():
        try:
            found.append(f())
        except BaseException as error:  # raised again where the test sees it
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert found, "the thread did not end"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def test_the_main_programs_defaults_hold_in_threads_and_tasks():
    tg.set_default_dtype(tg.float64)
    assert in_thread(tg.get_default_dtype) == in_thread(lambda: tg.zeros(1).dtype) == tg.float64

    async def asked():
        return tg.get_default_dtype()

    assert asyncio.run(asked()) == tg.float64
    assert copy_context().run(tg.get_default_dtype) == tg.float64


def test_a_threads_own_defaults_end_with_it():
    def own():
        tg.set_default_dtype(tg.float64)
        return tg.rand(2).dtype, in_thread(tg.get_default_dtype)

    before = tg.get_default_dtype(), tg.get_default_device()
    assert in_thread(own) == (tg.float64, before[0])  # a thread begins with the process's, whoever starts it
    assert (tg.get_default_dtype(), tg.get_default_device()) == before


def test_a_device_is_a_threads_own_too():
    def own():
        with tg.testing.strict_cupy():
            tg.set_default_device("cuda")
            return str(tg.zeros(1).device), in_thread(lambda: str(tg.get_default_device()))

    here = str(tg.get_default_device())
    assert in_thread(own) == ("cuda:0", here)
    assert str(tg.get_default_device()) == here


def test_tasks_do_not_see_each_others_defaults_while_they_take_turns():
    async def main():
        first, second = asyncio.Event(), asyncio.Event()

        async def doubled():
            tg.set_default_dtype(tg.float64)
            tg.manual_seed(1)
            with tg.no_grad():
                first.set()
                await second.wait()
                return tg.zeros(1).dtype, tg.rand(1).item(), tg.is_grad_enabled()

        async def plain():
            tg.manual_seed(2)
            await first.wait()
            found = tg.zeros(1).dtype, tg.rand(1).item(), tg.is_grad_enabled()
            second.set()
            return found

        return await asyncio.gather(doubled(), plain())

    (a, x, recorded), (b, y, recorded_too) = asyncio.run(main())
    assert (a, b, recorded, recorded_too) == (tg.float64, tg.float32, False, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinygen.backend._default_dtype", Default("float64", tg.float64))
        tg.manual_seed(1)
        assert x == tg.rand(1).item()
    tg.manual_seed(2)
    assert y == tg.rand(1).item()


def test_a_seed_in_a_thread_gives_it_a_stream_of_its_own():
    def seeded():
        tg.manual_seed(7)
        return [tg.rand(3).tolist() for _ in range(20)]

    alone = seeded()
    meeting = threading.Barrier(2)

    def beside(seed):
        tg.manual_seed(seed)
        meeting.wait(30)
        return [tg.rand(3).tolist() for _ in range(20)]

    tg.manual_seed(3)
    before = tg.rand(1).item()
    found = {}
    threads = [threading.Thread(target=lambda s=s: found.update({s: beside(s)})) for s in (7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found[7] == alone and found[8] != alone
    after = tg.rand(1).item()
    tg.manual_seed(3)
    assert [before, after] == [tg.rand(1).item(), tg.rand(1).item()], "a thread's seed moved the main program's stream"


@pytest.mark.cpu_only("a GPU draws 400 numbers at once otherwise than one by one")
def test_threads_without_a_seed_share_one_stream_and_no_number_is_drawn_twice():
    tg.manual_seed(0)
    whole = set(tg.rand(400, dtype="float64").tolist())
    tg.manual_seed(0)
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(tg.rand(1, dtype="float64").item() for _ in range(100)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(found) == whole and len(found) == 400


def test_a_notebooks_cell_counts_as_the_main_program(monkeypatch):
    async def cell():
        return defaults.apart()

    assert asyncio.run(cell())
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert not asyncio.run(cell())
    assert in_thread(defaults.apart)
    assert not defaults.apart()


FORK = """
import os, sys, warnings
import numpy as np
warnings.simplefilter("ignore")  # Python warns of a fork while threads run: that is what is tried here
import tinygen as tg
import tinygen.nn.functional as F
tg.manual_seed(0)
x, w = tg.rand(64, 16, 16, 16), tg.rand(32, 16, 3, 3, requires_grad=True)

def step():
    w.grad = None
    F.conv2d(x, w, padding=1).square().mean().backward()
    return w.grad.numpy().tobytes()

parent = step()
child = os.fork()
if child == 0:
    try:
        os._exit(0 if step() == parent and tg.rand(1).item() >= 0 else 3)
    except BaseException:
        os._exit(4)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status) or step() != parent)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.cpu_only("CUDA does not work in a forked process, which the next test is about")
def test_a_forked_process_computes_the_same():
    assert subprocess.run([sys.executable, "-c", FORK], timeout=120).returncode == 0


FORK_WITH_CUDA = """
import os, sys, types
import tinygen as tg
cupy = types.ModuleType("cupy")
class ndarray: pass
tg.backend.register_library(ndarray, cupy, "cuda")
child = os.fork()
if child == 0:
    try:
        tg.zeros(1, device="cuda")
    except tg.DeviceError as error:
        os._exit(0 if "forked process" in str(error) and 'get_context("spawn")' in str(error) else 3)
    os._exit(4)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_says_why_there_is_no_cuda():
    assert subprocess.run([sys.executable, "-c", FORK_WITH_CUDA], timeout=60).returncode == 0


def test_a_default_of_a_thread_is_not_the_processs():
    setting = Default("setting", 1)
    assert in_thread(lambda: (setting.set(2), setting.get())) == (None, 2) and setting.get() == 1
    setting.set(3)
    assert in_thread(setting.get) == 3 == copy_context().run(setting.get) and np.isscalar(setting.value)
