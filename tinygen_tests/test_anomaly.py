"""detect_anomaly: the first nan is named with its op, its inputs and its line; nothing is looked at outside of it."""

import asyncio
import inspect
import threading
import weakref

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import anomaly, nn
from tinygen.anomaly import AnomalyError, detect_anomaly
from tinygen_tests.draws import stream


def leaf(*values):
    return tg.tensor(list(values), requires_grad=True)


def line_of(function, text):
    """Where a text stands in a function: FILE:LINE."""
    lines, first = inspect.getsourcelines(function)
    return f"test_anomaly.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def message(call, *args):
    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        call(*args)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- forward


def roots(x):
    y = x * 2
    return y.sqrt() + 1


def test_a_result_is_named_with_its_inputs_and_the_users_line():
    said = message(roots, tg.tensor([[4.0, -1.0, -3.0]]))
    assert said.splitlines()[0] == "sqrt: its result holds 2 nan among 3 numbers, the first at [0, 1]"
    assert "  input: float32 (1, 3)" in said and ", from -6 to 8, mean 0" in said
    last = said.splitlines()[-1]
    assert last.endswith(", in roots:  return y.sqrt() + 1") and line_of(roots, "sqrt") in last


def test_infinity_out_of_finite_numbers_is_an_anomaly_and_infinity_out_of_infinity_is_not():
    assert "exp: its result holds 1 inf among 2 numbers, the first at [1]" in message(tg.exp, tg.tensor([0.0, 1000.0]))
    said = message(lambda x: 1 / x, tg.tensor(0.0))
    assert said.startswith("div: its result holds 1 inf among 1 number\n  input: 1\n  other: float32 ()")
    with detect_anomaly():
        scores = tg.tensor([[1.0, 2.0, 3.0]]).masked_fill(tg.tensor([[False, False, True]]), -np.inf)
        assert F.softmax(scores, -1)[0, 2].item() == 0
        assert (tg.tensor([np.inf]) * 2).item() == np.inf
    assert "sub: its result holds 1 nan" in message(lambda x: x - x, tg.tensor([np.inf]))


def test_nan_that_came_from_outside_is_said_to():
    said = message(F.relu, tg.tensor([1.0, np.nan]))
    assert "  input: float32 (2,)" in said and "1 nan" in said
    assert "input held nan before: it comes from data" in said


def test_an_op_of_many_tensors_names_each():
    said = message(lambda: tg.cat([tg.tensor([1.0]), tg.tensor([np.nan])]))
    assert said.startswith("cat: ") and "[0]: float32 (1,)" in said and "[1] held nan before" in said


def test_the_way_through_a_model_is_shown():
    net = nn.Sequential(nn.Linear(3, 4), nn.Softplus())
    with tg.no_grad():
        net[0].weight[1, 2] = np.nan
    said = message(lambda: net(tg.ones(2, 3)))
    assert "weight held nan before" in said
    where = said.splitlines()[said.splitlines().index("linear was called here:") + 1 :]
    assert "net(tg.ones(2, 3))" in where[0] and "containers.py" in where[1] and "linear.py" in where[2]


# --------------------------------------------------------------------------------------------- backward


def length(x):
    return (x * x).sum().sqrt()


def test_a_derivative_is_named_with_the_line_of_its_forward():
    x = leaf(0.0, 0.0)
    said = message(lambda: length(x).backward())
    assert said.splitlines()[0] == "sqrt: its derivative with respect to 'input' holds 1 inf among 1 number"
    assert "  g = ∂L/∂(result): float32 ()" in said and "  result: float32 ()" in said
    assert line_of(length, "sqrt") in said.splitlines()[-1] and said.splitlines()[-1].endswith("(x * x).sum().sqrt()")
    assert x.grad is None


def test_what_a_vjp_meets_on_its_way_is_not_looked_at():
    @tg.op
    def magnitude(a):
        return abs(a)

    @magnitude.vjp("a")
    def _(g, a):
        return g * tg.where(tg.eq(a, 0), 1.0, a.abs() / a)  # 0/0 on the way, where it is not used

    x = leaf(0.0, -2.0)
    with detect_anomaly():
        magnitude(x).sum().backward()
    assert x.grad.tolist() == [1, -1]


def test_a_second_derivative_belongs_to_the_line_of_the_first():
    x = leaf(0.0)

    def twice():
        (g,) = tg.grad((x**1.5).sum(), x, create_graph=True)
        g.sum().backward()

    said = message(twice)
    assert "derivative" in said.splitlines()[0] and "inf" in said.splitlines()[0]
    assert line_of(twice, "1.5") in said


def test_a_graph_from_before_says_that_its_line_is_not_known():
    x = leaf(0.0)
    y = x.sqrt()
    assert message(y.backward).endswith("sqrt was recorded outside of detect_anomaly, so that its line is not known")


def test_an_error_in_a_derivative_is_told_with_the_line():
    @tg.op
    def raising(a):
        return a * 1

    @raising.vjp("a")
    def _(g):
        raise ZeroDivisionError("no")

    x = leaf(1.0, 2.0)
    with detect_anomaly(check_nan=False), pytest.raises(ZeroDivisionError) as caught:
        raising(x).sum().backward()
    assert "raising was called here:" in caught.value.__notes__[0] and "raising(x).sum()" in caught.value.__notes__[0]


# ------------------------------------------------------------------------------------------- what it costs


def test_nothing_is_looked_at_outside_and_switches_are_put_back():
    x = tg.tensor([-1.0])
    with np.errstate(all="ignore"):
        assert np.isnan(tg.sqrt(x).item())
        with detect_anomaly(check_inf=False):
            assert tg.exp(tg.tensor(1000.0)).item() == np.inf
            with pytest.raises(AnomalyError):
                tg.sqrt(x)
        with detect_anomaly(check_nan=False):
            assert np.isnan(tg.sqrt(x).item())
        with detect_anomaly():
            with detect_anomaly(check_nan=False):
                tg.sqrt(x)
            with pytest.raises(AnomalyError):
                tg.sqrt(x)
        assert anomaly.watching == [] and anomaly.current() is None
        y = leaf(2.0).sqrt()
    assert not hasattr(y.grad_fn, "place")


def test_another_thread_and_another_task_are_left_alone():
    x = tg.tensor([-1.0])
    seen = []

    def elsewhere():
        with np.errstate(all="ignore"):
            seen.append(tg.sqrt(x).item())

    with detect_anomaly():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert np.isnan(seen[0])

    async def main():
        inside, done = asyncio.Event(), asyncio.Event()

        async def watched():
            with detect_anomaly():
                inside.set()
                await done.wait()

        async def free():
            await inside.wait()
            elsewhere()
            done.set()

        await asyncio.gather(watched(), free())

    asyncio.run(main())
    assert len(seen) == 2


def test_no_frame_and_no_tensor_is_kept_alive():
    with detect_anomaly():
        x = leaf(1.0, 2.0)
        y = length(x)
        gone = [weakref.ref(x), weakref.ref(y.grad_fn)]
        del x, y
    assert [r() for r in gone] == [None, None]


def test_training_steps_raise_no_false_alarm():
    """Each model of the demos for two steps; their own tests hold with everything watched, too."""
    rng = stream(0)
    x, y = tg.rand(4, 1, 8, 8, rng=rng), tg.tensor([0, 1, 2, 3])
    gan = tg.models.GAN(
        tg.models.ConvGenerator((1, 8, 8), latent=4, widths=(4,), classes=10, rng=rng),
        tg.models.ConvDiscriminator((1, 8, 8), widths=(4,), classes=10, rng=rng),
        r1=1.0,
    )
    sides = [tg.optim.Adam(side.parameters()) for side in (gan.discriminator, gan.generator)]
    unet = tg.models.UNet(channels=1, widths=(8,), num_classes=10, rng=rng)
    nets = [
        tg.models.ConvVAE((1, 8, 8), (4,), latent=2, rng=rng),
        tg.models.ConvVQVAE((1, 8, 8), (4,), rng=rng),
        tg.models.ConvAutoencoder((1, 8, 8), widths=(4,), latent=2, rng=rng),
        tg.models.DDPM(unet, (1, 8, 8), tg.models.NoiseSchedule.cosine(10), drop_class=0.2),
    ]
    with detect_anomaly():
        for _ in range(2):
            gan.training_step(x, y, *sides, rng=rng)
            for net in nets:
                labels = (y,) if net is nets[-1] else ()
                net.training_step(x, *labels, rng=rng)["loss"].backward()
