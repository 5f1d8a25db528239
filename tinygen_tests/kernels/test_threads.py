"""The pool: every task once, errors come back, nobody waits for ever, a fork starts afresh."""

import os
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from tinygen.kernels import threads
from tinygen.kernels.threads import aligned, get_num_threads, run, scratch, set_num_threads


@pytest.fixture(params=[1, 2, 4])
def count(request):
    before = get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


def test_every_task_is_done_once(count):
    for n in (0, 1, 2, 5, 100):
        done = []
        run([partial(done.append, k) for k in range(n)])
        assert sorted(done) == list(range(n))


@pytest.mark.parametrize("count", [3], indirect=True)
def test_tasks_run_at_the_same_time(count):
    meeting = threading.Barrier(3)
    run([lambda: meeting.wait(30)] * 3)  # a barrier that fewer threads would never pass


def test_an_error_is_raised_in_the_callers_thread_and_the_pool_goes_on(count):
    done = []

    def fail():
        raise ZeroDivisionError("in a task")

    with pytest.raises(ZeroDivisionError, match="in a task"):
        run([fail, *[lambda: (time.sleep(0.001), done.append(1))] * 50])
    assert len(done) < 50
    run([lambda: done.append(2)] * 3)
    assert done.count(2) == 3


def test_runs_within_runs_and_from_many_threads_end(count):
    done = []

    def outer():
        run([lambda: done.append(1)] * 5)

    callers = [threading.Thread(target=run, args=([outer] * 5,)) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "a deadlock"
    assert len(done) == 125


@pytest.mark.parametrize("count", [2], indirect=True)
def test_nobody_waits_for_a_helper_that_is_busy_elsewhere(count):
    free, started = threading.Event(), threading.Event()

    def hold():
        started.set()
        free.wait(60)

    other = threading.Thread(target=run, args=([hold, hold],))
    other.start()  # keeps its own thread and, before long, the only helper
    started.wait(60)
    time.sleep(0.05)
    done = []
    run([lambda: done.append(1)] * 10)
    assert len(done) == 10
    free.set()
    other.join(60)
    assert not other.is_alive()


SCRIPT = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")  # Python warns of a fork while threads run: that is what is tried here
from tinygen.kernels.threads import run, set_num_threads
set_num_threads(3)
done = []
run([lambda: done.append(1)] * 20)
child = os.fork()
if child == 0:
    meeting = threading.Barrier(3)
    try:
        run([lambda: meeting.wait(20)] * 3)  # passed by three threads, not by fewer
    except BaseException:
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
run([lambda: done.append(1)] * 20)
sys.exit(os.waitstatus_to_exitcode(status) or len(done) != 40)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_pool_of_its_own():
    done = subprocess.run([sys.executable, "-c", SCRIPT], timeout=60)
    assert done.returncode == 0


def number_at_start(text):
    program = "from tinygen.kernels.threads import get_num_threads; print(get_num_threads())"
    environment = {**os.environ, "TINYGEN_NUM_THREADS": text}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)


def test_the_environment_decides_at_the_start():
    assert number_at_start("3").stdout.strip() == "3"
    refused = number_at_start("many")
    assert refused.returncode and "TINYGEN_NUM_THREADS: expected a number from 1 to 256, got 'many'" in refused.stderr
    assert int(number_at_start("").stdout) >= 1


@pytest.mark.parametrize("wrong", [0, -1, 1.0, "2", True, 1000, None])
def test_set_num_threads_refuses(wrong):
    before = get_num_threads()
    with pytest.raises(ValueError, match="set_num_threads: expected an integer from 1 to 256, got"):
        set_num_threads(wrong)
    assert get_num_threads() == before


def test_scratch_is_reused_aligned_and_each_threads_own():
    a = scratch("test", (3, 5), np.dtype("float32"))
    b = scratch("test", (15,), np.dtype("float32"))
    assert a.shape == (3, 5) and a.dtype == "float32" and np.shares_memory(a, b) and a.ctypes.data % 64 == 0
    assert not np.shares_memory(a, scratch("test2", (3, 5), np.dtype("float32")))
    assert scratch("test", (1000,), np.dtype("complex128")).shape == (1000,)
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(scratch("test", (3, 5), np.dtype("float32"))))
    thread.start()
    thread.join()
    assert not np.shares_memory(elsewhere[0], scratch("test", (3, 5), np.dtype("float32")))
    assert aligned((7, 3), np.dtype("int64")).ctypes.data % 64 == 0
    assert threads._local.test[0].nbytes >= 16000


def test_scratch_remembers_a_few_shapes(monkeypatch):
    monkeypatch.setattr(threads, "_SHAPES", 5)
    first = scratch("shapes", (40,), np.dtype("float32"))
    assert scratch("shapes", (40,), np.dtype("float32")) is first
    for n in range(1, 20):
        assert np.shares_memory(scratch("shapes", (n,), np.dtype("float32")), first)
        assert len(threads._local.shapes[1]) <= 5
    assert scratch("shapes", (40,), np.dtype("int32")).dtype == "int32"
    assert scratch("shapes", (40,), np.dtype(">f4")).dtype == ">f4"
    assert scratch("shapes", (40,), np.dtype("float32")).dtype == "float32"


def test_little_work_is_done_by_the_caller_alone():
    before, found = threads.get_num_threads(), []

    def task():
        time.sleep(0.002)  # long enough for a helper to come, if one were asked
        found.append(threading.current_thread())

    try:
        threads.set_num_threads(2)
        threads.run([task] * 20, False)
    finally:
        threads.set_num_threads(before)
    assert found == [threading.current_thread()] * 20
