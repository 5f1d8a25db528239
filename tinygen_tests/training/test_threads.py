"""Trainings beside each other give what each gives alone; at length: ``python -m benchmarks.reliability.threads``."""

import os

import pytest

from benchmarks.reliability import threads as trainings
from tinygen.kernels.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.cpu_only("the default generators of the CPU")
JOBS = [(trainings.gan, 0, 4, "float32"), (trainings.vae, 1, 4, "float64")]


@pytest.fixture(scope="module")
def alone():
    before = get_num_threads()
    set_num_threads(2)
    yield [trainings.by_itself(job) for job in JOBS]
    set_num_threads(before)


def test_seeds_and_dtypes_matter(alone):
    make, seed, steps, dtype = JOBS[1]
    others = [(make, 2, steps, dtype), (make, seed, steps, "float32")]
    assert len({*alone, *map(trainings.by_itself, others)}) == 4
    assert trainings.by_itself(JOBS[1]) == alone[1]


def test_two_threads(alone):
    assert trainings.in_threads(JOBS) == alone


def test_two_asyncio_tasks(alone):
    assert trainings.in_tasks(JOBS) == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_both_processes_after_a_fork(alone):
    assert trainings.after_a_fork(JOBS[0]) == [alone[0]] * 2
