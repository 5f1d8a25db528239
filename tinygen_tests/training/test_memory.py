"""Nothing is kept from step to step: memory does not grow, and what a step made dies without the garbage collector.

The long runs, 20,000 steps of every demo, are ``python -m benchmarks.reliability.memory``.
"""

import gc
import sys
import weakref

import numpy as np
import pytest

import tinygen as tg
from benchmarks.reliability import memory
from tinygen import data, models, nn, optim
from tinygen.nn.utils import clip_grad_norm_
from tinygen.tensor import Node, Tensor
from tinygen.training import Run

pytestmark = pytest.mark.cpu_only("measures NumPy's memory")
SHAPE = (1, 8, 8)


def vae(rng):
    model = models.ConvVAE(SHAPE, (4,), latent=2, rng=rng)
    adam = optim.Adam(model.parameters())
    return [model, adam], lambda x, y: step(model.training_step(x, rng=rng)["loss"], model, adam)


def vqvae(rng):
    model = models.ConvVQVAE(SHAPE, (4,), codes=8, dim=4, rng=rng)
    adam = optim.AdamW(model.parameters())
    return [model, adam], lambda x, y: step(model.training_step(x, rng=rng)["loss"], model, adam)


def autoencoder(rng):
    model = models.ConvAutoencoder(SHAPE, widths=(4,), latent=4, noise=("gaussian", 0.3), rng=rng)
    sgd = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    return [model, sgd], lambda x, y: step(model.training_step(x, rng=rng)["loss"], model, sgd)


def gan(rng):
    model = models.GAN(
        models.ConvGenerator(SHAPE, latent=4, widths=(4,), classes=10, rng=rng),
        models.ConvDiscriminator(SHAPE, widths=(4,), classes=10, rng=rng),
        loss="wasserstein", gradient_penalty=10.0,
    )  # fmt: skip
    adams = [optim.Adam(side.parameters(), betas=(0.5, 0.9)) for side in (model.discriminator, model.generator)]
    return [model, *adams], lambda x, y: model.training_step(x, y, *adams, rng=rng)


def ddpm(rng):
    unet = models.UNet(channels=1, widths=(8,), num_classes=10, rng=rng)
    model = models.DDPM(unet, SHAPE, models.NoiseSchedule.cosine(10), drop_class=0.2)
    rms = optim.RMSprop(model.parameters(), lr=1e-4, momentum=0.5)

    def train(x, y):
        terms = step(model.training_step(x, y, rng=rng)["loss"], model, rms)
        model.update_average()
        return terms

    return [model, rms], train


def mixture(rng):
    """Layers that no demo's model has."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Dropout(0.2, rng=rng),
        nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Flatten(), nn.Linear(256, 8), nn.LayerNorm(8),
        nn.utils.spectral_norm(nn.Linear(8, 10)),
    )  # fmt: skip
    sgd = optim.SGD(model.parameters(), lr=0.01, weight_decay=0.01)
    slower = optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=100)
    average = optim.EMA(model)

    def train(x, y):
        step(nn.functional.cross_entropy(model(x), y), model, sgd)
        average.update()
        slower.step()

    return [model, sgd, average], train


def step(loss, model, optimizer):
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


SYSTEMS = (vae, vqvae, autoencoder, gan, ddpm, mixture)


def run_of(system, folder, steps):
    rng = tg.Generator(0)
    things, train = system(rng)
    images = data.digits("train")
    loader = data.DataLoader(images, batch_size=8, shuffle=True, rng=rng)
    objects = {str(i): thing for i, thing in enumerate([*things, loader, rng])}
    run = Run(folder, steps, objects, checkpoint_every=20, progress=False, skip_non_finite=1)
    batches = loader.forever()
    for number in run:
        x, y = next(batches)
        terms = train(x, y)
        run.log(step_loss=terms if isinstance(terms, Tensor) else 0.0)
        yield number


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda f: f.__name__)
def test_what_a_step_made_dies_without_the_garbage_collector(system, tmp_path):
    """Whatever the collector finds after a run with it switched off was in a cycle; no Tensor or Node may be."""
    gc.collect()
    gc.disable()
    before = gc.get_debug()
    try:
        steps = run_of(system, tmp_path, 6)
        for number in steps:
            if number == 2:  # the first steps make modules' and optimizers' own
                gc.collect()
                gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        lost = [thing for thing in gc.garbage if isinstance(thing, (Tensor, Node, np.ndarray))]
    finally:
        gc.set_debug(before)
        gc.garbage.clear()
        gc.enable()
    assert lost == [], f"{len(lost)} tensors or steps were left to the garbage collector"


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda f: f.__name__)
def test_nothing_piles_up_from_step_to_step(system, tmp_path):
    """As many Tensors, lists, dicts and other containers after 41 steps as after 21, each time just after a checkpoint.

    (Blocks of memory are a coarser measure: NumPy's and Python's lists of spare ones fill for hundreds of steps.)
    """
    objects, blocks = {}, {}
    for number in run_of(system, tmp_path, 42):
        if number in (21, 41):
            gc.collect()
            objects[number], blocks[number] = len(gc.get_objects()), sys.getallocatedblocks()
    assert objects[41] - objects[21] < 10, f"{objects} containers after so many steps"
    assert blocks[41] - blocks[21] < 20 * 15, f"{blocks} blocks after so many steps"


def test_the_long_measurement_sees_a_leak_and_only_that():
    flat = [(step, 10**8 + 1000 * (step % 3)) for step in range(0, 2001, 10)]
    assert memory.growth(flat, 2000)[2] < 0.01
    leaking = [(step, size + 1000 * step) for step, size in flat]
    assert memory.growth(leaking, 2000)[2] > memory.LIMIT
    with pytest.raises(ValueError, match="over too soon"):
        memory.growth(flat[:5], 2000)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda f: f.__name__)
def test_a_trained_system_dies_with_its_last_reference(system, tmp_path):
    gc.collect()
    gc.disable()
    try:
        rng = tg.Generator(0)
        things, train = system(rng)
        run = Run(tmp_path, 2, {str(i): thing for i, thing in enumerate(things)}, progress=False, skip_non_finite=1)
        for _ in run:
            train(tg.rand(8, *SHAPE, rng=rng), tg.randint(10, (8,), rng=rng))
        gone = [weakref.ref(p) for thing in things if isinstance(thing, nn.Module) for p in thing.parameters()]
        run.close()
        del things, train, run
        assert gone and not [r for r in gone if r() is not None]
    finally:
        gc.enable()
