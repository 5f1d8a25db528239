"""Threads that play the processes of one training, so that its arithmetic is tested where there is no MPI."""

import threading
from functools import reduce

import numpy as np

from tinygen.ranks import Ranks


class Barrier:
    """A link between threads."""

    def __init__(self, size):
        self.barrier, self.slots = threading.Barrier(size, timeout=60), [None] * size

    def of(self, rank):
        return Link(self, rank)


class Link:
    def __init__(self, shared, rank):
        self.shared, self.rank = shared, rank

    def gather(self, array):
        return np.stack(self.exchange(np.array(array)))

    def exchange(self, value):
        self.shared.slots[self.rank] = value
        self.shared.barrier.wait()
        every = list(self.shared.slots)
        self.shared.barrier.wait()
        return every

    def sum(self, array):
        return np.asarray(reduce(np.add, self.exchange(np.array(array))), array.dtype)

    def max(self, array):
        return np.asarray(reduce(np.maximum, self.exchange(np.array(array))), array.dtype)

    def broadcast(self, data):
        return self.exchange(data)[0]

    def wait(self):
        self.shared.barrier.wait()

    def abort(self, code):
        self.shared.barrier.abort()


def on_ranks(size, f):
    """What f(ranks) returns on each of ``size`` ranks; f(None) for one."""
    if size == 1:
        return [f(None)]
    shared, results = Barrier(size), [None] * size

    def call(rank):
        try:
            results[rank] = f(Ranks(rank, size, shared.of(rank)))
        except SystemExit as error:
            results[rank] = error
        except BaseException as error:  # the others must not wait for ever
            results[rank] = error
            shared.barrier.abort()

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    errors = [r for r in results if isinstance(r, BaseException) and not isinstance(r, SystemExit)]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return results
