"""The recording flag: it nests, decorates, is put back after errors, and belongs to one thread or task."""

import asyncio
import threading

import pytest

import tinygen as tg


def test_no_grad_and_enable_grad_nest():
    x = tg.ones(2, requires_grad=True)
    assert tg.is_grad_enabled()
    with tg.no_grad():
        assert not tg.is_grad_enabled() and not (x * 2).requires_grad
        with tg.enable_grad():
            assert tg.is_grad_enabled() and (x * 2).requires_grad
            with tg.no_grad():
                assert not tg.is_grad_enabled()
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


def test_one_context_manager_may_be_entered_twice():
    off = tg.no_grad()
    with off, off:
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()
    with off:
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


def test_the_flag_is_put_back_when_the_block_raises():
    with pytest.raises(ZeroDivisionError), tg.no_grad():
        raise ZeroDivisionError
    assert tg.is_grad_enabled()


def test_as_a_decorator_it_holds_for_the_body():
    @tg.no_grad()
    def off(n):
        """Docstring."""
        assert not tg.is_grad_enabled()
        if n:
            off(n - 1)
        return n

    @tg.enable_grad()
    def on():
        return tg.is_grad_enabled()

    @tg.no_grad
    def bare(n):
        return tg.is_grad_enabled(), n

    assert bare(3) == (False, 3) and tg.is_grad_enabled() and bare.__name__ == "bare"
    assert off(2) == 2 and off.__doc__ == "Docstring." and tg.is_grad_enabled()
    with tg.no_grad():
        assert on()


def test_a_decorated_generator_does_not_record_and_its_consumer_does():
    x = tg.ones(1, requires_grad=True)
    closed = []

    @tg.no_grad()
    def steps(n):
        try:
            for k in range(n):
                yield x * k
        finally:
            closed.append(True)
        return "done"

    seen = []
    for y in steps(3):
        seen.append((y.requires_grad, tg.is_grad_enabled(), (x * 2).requires_grad))
    assert seen == [(False, True, True)] * 3 and closed == [True]
    iterator = steps(3)
    next(iterator)
    iterator.close()
    assert closed == [True, True] and tg.is_grad_enabled()

    def delegate():
        return (yield from steps(1))

    iterator = delegate()
    next(iterator)
    with pytest.raises(StopIteration) as stop:
        next(iterator)
    assert stop.value.value == "done"


def test_a_decorated_coroutine_does_not_record_and_others_do():
    @tg.no_grad()
    async def quiet():
        before = tg.is_grad_enabled()
        await asyncio.sleep(0)
        return before, tg.is_grad_enabled()

    async def loud():
        seen = []
        for _ in range(3):
            seen.append(tg.is_grad_enabled())
            await asyncio.sleep(0)
        return seen

    async def main():
        return await asyncio.gather(quiet(), loud(), quiet())

    assert asyncio.run(main()) == [(False, False), [True] * 3, (False, False)]
    assert tg.is_grad_enabled()


def test_an_asynchronous_generator_is_not_decorated_in_vain():
    async def steps():
        yield 1

    with pytest.raises(TypeError, match="steps is an asynchronous generator"):
        tg.no_grad()(steps)


def test_tasks_have_flags_of_their_own():
    async def off():
        with tg.no_grad():
            await asyncio.sleep(0)
            assert not tg.is_grad_enabled()
            await asyncio.sleep(0)
        return tg.is_grad_enabled()

    async def on():
        for _ in range(4):
            assert tg.is_grad_enabled()
            await asyncio.sleep(0)
        return tg.is_grad_enabled()

    async def main():
        return await asyncio.gather(off(), on(), off())

    assert asyncio.run(main()) == [True] * 3


def test_threads_have_flags_of_their_own():
    inside, done, seen = threading.Event(), threading.Event(), []

    def other():
        inside.wait(5)
        seen.append(tg.is_grad_enabled())
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with tg.no_grad():
        inside.set()
        assert done.wait(5)
    thread.join()
    assert seen == [True]
