"""Every library of the benchmark that is installed computes the same: training steps, samples, gradients, Adam."""

import numpy as np
import pytest

from benchmarks import functional, nets, ops, peers, works
from benchmarks.peers.base import NotPossible
from tinygen.kernels.threads import get_num_threads

pytestmark = [
    pytest.mark.cpu_only("the peers compute on the CPU"),
    pytest.mark.filterwarnings("ignore"),  # what the peers say of their own use of NumPy and Python is theirs
]

OTHERS = [name for name in peers.MAKERS if name != "tinygen"]
# What a library cannot do; everything else has to agree.
LACKING = {
    "dezero": {"DDPM U-Net", "attention", "layer_norm", "upsample", "groups"},
    "mygrad": {"groups", "adam"}, "autograd": {"groups", "adam"},
}


@pytest.fixture(scope="module")
def library():
    made = {}

    def get(name):
        if name not in made:
            made[name] = peers.load([name])
        found, why_not = made[name]
        if name not in found:
            pytest.skip(f"{name}: {why_not[name]}")
        return found[name]

    return get


OURS = peers.load(["tinygen"])[0]["tinygen"]


def numpy(result):
    """Any library's tensor as a NumPy array."""
    if type(result).__module__.startswith(("mygrad", "dezero")):
        return np.array(result.data)
    for name in ("detach", "numpy"):
        result = getattr(result, name)() if hasattr(result, name) else result
    return np.array(result)


def channels_second(name, images):
    return np.moveaxis(images, -1, 1) if name == "jax" and images.ndim == 4 else images


def noise(family, shape, r):
    draw = {"normal": r.standard_normal, "uniform": r.random}
    return [draw[kind](s, dtype=np.float32) for kind, s in functional.noise(family, shape)]


@pytest.mark.parametrize("family", nets.FAMILIES)
@pytest.mark.parametrize("name", OTHERS)
def test_three_training_steps_from_the_same_weights_have_the_same_losses(library, name, family):
    peer, r, x = library(name), np.random.default_rng(0), works.images(4, 8)
    weights, given = nets.weights(family, 8, 16), [noise(family, x.shape, r) for _ in range(3)]
    if family in LACKING.get(name, ()):
        with pytest.raises(NotPossible):
            peer.train(family, weights, x)
        return
    ours, theirs = (p.train(family, weights, x) for p in (OURS, peer))
    expected, found = ([float(numpy(step(*arrays))) for arrays in given] for step in (ours, theirs))
    assert found == pytest.approx(expected, rel=2e-4)
    assert len(set(np.round(found, 6))) == 3, "nothing was learnt"
    assert np.isfinite(float(numpy(theirs()))), "with noise of its own"


@pytest.mark.parametrize("family", [family for family in nets.FAMILIES if family != "dense autoencoder"])
@pytest.mark.parametrize("name", OTHERS)
def test_samples_from_the_same_weights_are_the_same(library, name, family):
    peer, r, weights = library(name), np.random.default_rng(0), nets.weights(family, 28, 16)
    if family in LACKING.get(name, ()):
        with pytest.raises(NotPossible):
            peer.sample(family, weights, [])
        return
    for key in weights:
        if "running" in key:  # as after training
            weights[key] = r.uniform(0.5, 1.5, weights[key].shape).astype(np.float32)
    latent = {"convolutional VAE": (2, 20), "DCGAN": (2, 64)}.get(family, (2, 1, 28, 28))
    inputs = [r.standard_normal(latent, dtype=np.float32)]
    if family == "DDPM U-Net":
        inputs.append(np.float32([500, 500]))
    images = [numpy(p.sample(family, weights, inputs, 2 if len(inputs) > 1 else 1)()) for p in (OURS, peer)]
    images[1] = channels_second(name, images[1])
    assert images[0].shape == (2, 1, 28, 28)
    np.testing.assert_allclose(images[1], images[0], rtol=1e-3, atol=1e-4)


def smaller(kind, shapes):
    return [(2, *shape[1:]) if i == 0 or kind == "attention" else shape for i, shape in enumerate(shapes)]


SMALLER = {name: (kind, smaller(kind, shapes), options) for name, kind, shapes, options in ops.TABLE}


@pytest.mark.parametrize("row", SMALLER)
@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_single_operations_are_the_same(library, name, row):
    peer, (kind, shapes, options) = library(name), SMALLER[row]
    arrays, g = ops.arguments(kind, shapes, options)
    if kind in LACKING.get(name, ()) or ("groups" in options and "groups" in LACKING.get(name, ())):
        with pytest.raises(NotPossible):
            peer.op(kind, arrays, options, g)()
        return
    expected, found = ([numpy(a) for a in p.op(kind, arrays, options, g)()] for p in (OURS, peer))
    assert len(expected) == len(found) == len(arrays)
    if kind not in ("softmax", "attention"):
        found[0] = channels_second(name, found[0])
    for a, b in zip(expected, found):
        assert b.dtype == np.float32, "twice the bytes are not the same work"
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-3 * np.abs(a).max())


@pytest.mark.parametrize("kind", ops.TINY)
@pytest.mark.parametrize("name", OTHERS)
def test_tiny_works_run(library, name, kind):
    arrays = [np.ones(shape, np.float32) for shape in ops.TINY[kind]]
    peer = library(name)
    result = [p.small(kind, arrays)() for p in (OURS, peer)]
    if kind in ("add", "matmul"):
        first = result[1][0] if isinstance(result[1], list) else result[1]
        np.testing.assert_allclose(numpy(first), numpy(result[0]))


@pytest.mark.parametrize("name", OTHERS)
def test_adam_of_its_own(library, name):
    peer, arrays = library(name), [np.ones(5, np.float32)]
    if "adam" in LACKING.get(name, ()):
        with pytest.raises(NotPossible):
            peer.adam(arrays, arrays)
    else:
        peer.adam(arrays, arrays)()


def test_a_library_that_is_missing_or_broken_is_named_and_hinders_nobody(monkeypatch):
    monkeypatch.setitem(peers.MAKERS, "absent", "no_such_library:peer")
    monkeypatch.setitem(peers.MAKERS, "broken", "benchmarks.peers.base:no_such_function")
    found, why_not = peers.load(["tinygen", "absent", "broken"])
    assert list(found) == ["tinygen"]
    assert "not installed" in why_not["absent"] and "AttributeError" in why_not["broken"]


def test_numpys_blas_has_the_peers_threads_in_their_turns_and_one_in_tinygens():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="sets the threads of NumPy's BLAS for the peers")
    found, _ = peers.load(["tinygen"])
    found["other"] = type(OURS).__mro__[1]()  # a Peer that computes with NumPy's products

    def threads():
        pools = threadpoolctl.ThreadpoolController().select(user_api="blas", internal_api="openblas").info()
        return {pool["num_threads"] for pool in pools}

    if not threads():
        pytest.skip("NumPy was built with another BLAS than OpenBLAS")
    enter = peers.entering(found, 2)
    enter("other")
    assert threads() == {2}
    enter("tinygen")
    assert threads() == {1}
    assert get_num_threads() >= 1
