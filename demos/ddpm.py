"""Diffusion: digits out of pure noise, of any class you ask for, by taking the noise out step by step."""

# %% [markdown]
# # Denoising diffusion
#
# Add a little noise to an image, T times, and nothing of it is left. Each of these steps is so small that its way back
# is a small step too, and a network can learn it:
#
#     x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε,   ε ~ N(0, I),        L = E ‖target − network(x_t, t, y)‖²
#
# The target is the noise ε, the image x₀, or v = √ᾱ_t·ε − √(1 − ᾱ_t)·x₀, which is both: the noise while there is little
# of it, the image (with a minus) when there is little else. From pure noise x_T the steps back lead to a new image.

# %%
import numpy as np

import tinygen as tg
from demos import common
from tinygen.models import diffusion


def add(parser):
    parser.add_argument("--class", dest="wanted", type=int, choices=range(10), metavar="0-9",
                        help="also draw a page of this digit")
    parser.add_argument("--guidance", type=float, default=1.0, metavar="W",
                        help="how far --class goes beyond the class, W ≥ 0 (default 1)")


args = common.options("ddpm", steps=1500, batch_size=64, add=add)
if not args.guidance >= 0:
    raise common.UserError(f"--guidance {args.guidance}: must be 0 or more")
train, test = common.load_data(args)
rng = tg.Generator(args.seed)
noise = tg.Generator(args.seed, device=args.device)  # drawn where the images are


def fresh(offset: int) -> tg.Generator:
    """A generator for drawing pictures, which leaves the training's own alone."""
    return tg.Generator(args.seed + offset, device=args.device)


# %% [markdown]
# ## The model
#
# A U-Net that is told the time and the class, a cosine schedule of 200 steps, v as its target. Each of these is one
# argument: try `NoiseSchedule.linear(200)`, `target="epsilon"`, `loss="min_snr"`.
#
# One time in five the class is hidden from the network, so that it learns digits of no class as well: that is what
# guidance needs. Beside it a second, tiny diffusion learns points in the plane, where all of it can be seen. The two
# share no parameter, so one Adam serves both.

# %%
shape = train.images.shape[1:]
small = max(shape[1:]) < 16
T = 200
network = tg.models.UNet(
    channels=shape[0],
    widths=(16, 32) if small else (32, 64),
    patch=1 if small else 2,  # 28×28 is seen as 14×14 squares of 2×2 pixels: a quarter of the work
    num_classes=10,
    rng=rng,
)
model = tg.models.DDPM(
    network, shape, tg.models.NoiseSchedule.cosine(T), target="v", loss="simple", drop_class=0.2, decay=0.995
)
flat = tg.models.DDPM(
    tg.models.MLPDenoiser(2, width=64, depth=3, rng=rng), (2,), tg.models.NoiseSchedule.cosine(T), target="v",
    decay=0.995, value_range=None,
)


def moons(n: int, rng: tg.Generator) -> tg.Tensor:
    """n points of two moons, moved and stretched to mean 0 and to about the size of the noise."""
    points = tg.data.toy("moons", n, rng, std=0.07).x - np.array([0.5, 0.25], np.float32)
    return tg.tensor(1.2 * points, device=args.device)


models = tg.nn.ModuleDict({"digits": model, "points": flat}).to(args.device)
adam = tg.optim.Adam(
    [{"params": model.parameters(), "lr": 2e-3}, {"params": flat.parameters(), "lr": 8e-3}], betas=(0.9, 0.99)
)
# Rising for fifty steps, then falling like half a cosine.
pace = tg.optim.lr_scheduler.LambdaLR(
    adam, lambda k: min(1, (k + 1) / 50) * (0.02 + 0.49 * (1 + np.cos(np.pi * min(1, k / args.steps))))
)

# %% [markdown]
# ## Training
#
# A batch, a time and noise for each image, one regression step; then the running average of the weights, which is what
# draws. Now and then the same ten pieces of noise are denoised, one of each class: `progress.png` shows them clearing.

# %%
SHOTS = 6
album = tg.nn.Module()  # is kept in the checkpoint, so that a resumed run has the pages from before
album.register_buffer("pages", tg.zeros(SHOTS, 10, *shape, device=args.device))
loader = tg.data.DataLoader(train, batch_size=args.batch_size, shuffle=True, rng=rng, device=args.device)
run = common.run(
    args,
    {"models": models, "optimizer": adam, "scheduler": pace, "album": album, "loader": loader, "rng": rng,
     "noise": noise},
)
digits = tg.tensor(np.arange(10), device=args.device)
quickly = model.sampler(tg.models.DDIMSampler, 5 if args.quick else 20)
shots = [max(1, round(args.steps * (k / SHOTS) ** 2)) for k in range(1, SHOTS + 1)]
batches = loader.forever()
for step in run:
    x, y = next(batches)
    terms = model.training_step(x, y, rng=noise)
    beside = flat.training_step(moons(run.share(256), rng), rng=noise)  # share: several processes may train together
    adam.zero_grad()
    (terms["loss"] + beside["loss"]).backward()
    adam.step()
    pace.step()
    model.update_average()
    flat.update_average()
    run.log(loss=terms["loss"], loss_points=beside["loss"])
    for k in (k for k, at in enumerate(shots) if at == step):
        album.pages[k] = model.sample(10, y=digits, sampler=quickly, rng=fresh(1))
        tg.viz.save_grid(args.out / "progress.png", album.pages[: k + 1].flatten(0, 1), ncols=10,
                         row_labels=[f"step {at}" for at in shots[: k + 1]], title="The same noise, denoised")

# %%
models.eval()
out = args.out
seen, unseen = common.images(train, args), common.images(test, args)
log = tg.training.read_log(run.log_path)
tg.viz.save_curves(
    out / "loss.png",
    {name: ([e["step"] for e in log], [e[key] for e in log]) for name, key in
     {"digits": "loss", "points in the plane": "loss_points"}.items()},
    smooth=0.95, ylabel="mean square error of v", title="Loss while training",
)  # fmt: skip

# %% [markdown]
# ## The way to noise, and the way back
#
# A real digit of each class is noised step by step; new ones come out of other noise, with x̂₀ beneath them: what the
# network takes the image to be, at that moment. `chain.gif` is both ways in one film.


# %%
def typical_of(d: int) -> int:
    """The unseen image of digit d that is nearest to the mean of its kind."""
    at = np.flatnonzero(test.labels == d)
    points = test.images[at].reshape(len(at), -1)
    return int(at[np.argmin(((points - points.mean(0)) ** 2).sum(1))])


typical = unseen[[typical_of(d) for d in range(10)]]
FRAMES = 6 if args.quick else 40
there = list(diffusion.noising_chain(model.schedule, model.encode(typical), FRAMES, rng=fresh(2)))
walk = model.sampler(tg.models.DDPMSampler, FRAMES)
with tg.no_grad():
    x_T = tg.randn(10, *shape, rng=fresh(3), device=args.device)
    walked = list(model.chain(10, y=digits, sampler=walk, rng=fresh(4), x_T=x_T))
back = [(T, x_T), *((t, x) for t, x, _ in walked)]
guesses = [x0 for _, _, x0 in walked]  # what each of them was taken for, but the last, which is the image
frames = [x for _, x in there + back]
tg.viz.save_gif(
    out / "chain.gif",
    [tg.viz.make_grid(model.decode(x), nrow=5, padding=1, pad_value=0.5) for x in frames],
    duration_ms=80, scale=6 if small else 2, hold_last=2000,
    captions=[f"noising, t = {t}" for t, _ in there] + [f"denoising, t = {t}" for t, _ in back],
)  # fmt: skip
rows = {f"noised, t = {there[k][0]}": there[k][1] for k in np.linspace(0, len(there) - 1, 6).round().astype(int)}
for k in np.linspace(0, len(guesses), 6).round().astype(int):
    t, x = back[k]
    rows[f"denoised, t = {t}"] = x
    if t > 0:
        rows[f"x̂₀ at t = {t}"] = guesses[k]
tg.viz.save_rows(out / "chain.png", {name: model.decode(x) for name, x in rows.items()},
                 title="To noise, and back from other noise")

# %% [markdown]
# ## Drawing
#
# `samples.png`: ten of each class. `guidance.png`: the same noise with more and more of what tells the class from no
# class, (1 + w)·output(x_t, y) − w·output(x_t): purer, and more alike.

# %%
steps = 5 if args.quick else 25
ancestral = model.sampler(tg.models.DDPMSampler, steps)
by_row = tg.tensor(np.repeat(np.arange(10), 10), device=args.device)
hundred = model.sample(100, y=by_row, sampler=ancestral, rng=fresh(5))
tg.viz.save_grid(out / "samples.png", hundred, ncols=10, title="Digits out of noise, a class in each row")
tg.viz.save_rows(
    out / "guidance.png",
    {"no class": model.sample(10, sampler=quickly, rng=fresh(6))}
    | {f"w = {w}": model.sample(10, y=digits, guidance=w, sampler=quickly, rng=fresh(6)) for w in (0, 1, 3, 8)},
    title="Classifier-free guidance, from the same noise",
)
if args.wanted is not None:
    page = model.sample(64, y=args.wanted, guidance=args.guidance, sampler=ancestral, rng=fresh(7))
    tg.viz.save_grid(out / f"class_{args.wanted}.png", page, ncols=16,
                     title=f"The digit {args.wanted}, guidance w = {args.guidance:g}")

# %% [markdown]
# ## Between images, and into holes
#
# Two digits are noised to the same step, mixed there, and denoised from that step: the later it is, the freer the way.
# And a digit of which only the upper half is known is completed, several times, in several ways.

# %%
a, b = typical[3], typical[6]
middle = [ancestral.steps[-max(1, round(len(ancestral.steps) * part))] for part in (0.2, 0.35, 0.5)]
tg.viz.save_rows(
    out / "interpolation.png",
    {"faded": diffusion.interpolate(model, a, b, 0, rng=fresh(8))}
    | {f"t = {t}": diffusion.interpolate(model, a, b, t, sampler=ancestral, rng=fresh(8)) for t in middle},
    title="Between two unseen digits, mixed at step t",
)
upper = np.zeros(shape, bool)
upper[:, : shape[1] // 2] = True
known = tg.tensor(upper, device=args.device)
halves = tg.where(known, typical, 0.5)
holes = {"known": halves}
mended = model.sampler(tg.models.DDPMSampler, 5 if args.quick else 40)
for k in range(3):
    holes[f"completed, {k + 1}"] = diffusion.inpaint(
        model, halves, known, sampler=mended, resample=1 if args.quick else 3, rng=fresh(9 + k)
    )
tg.viz.save_rows(out / "inpainting.png", holes | {"the digit it was": typical},
                 title="The upper half is kept, the lower drawn")

# %% [markdown]
# ## What it has learned: the score
#
# The best guess of the noise is, but for a factor, the slope of the log density: −E[ε | x_t]/√(1 − ᾱ_t) = ∇ log q(x_t).
# Of points in the plane it can be drawn. Far out in time the arrows lead to the middle; nearer, to the two moons.

# %%
side = np.linspace(-2.3, 2.3, 21, dtype=np.float32)
places = tg.tensor(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), device=args.device)
clean = moons(600, tg.Generator(args.seed + 12))
panels = {}
for t in (T // 2, T // 5, T // 20):
    noisy = diffusion.add_noise(flat.schedule, clean, t, tg.randn_like(clean, rng=fresh(13)))
    panels[f"score at t = {t}"] = {"points": noisy, "at": places, "arrows": flat.score(places, t)}
panels["drawn from noise"] = {"points": flat.sample(1000, sampler=flat.sampler(steps=steps), rng=fresh(14))}
tg.viz.save_fields(out / "score.png", panels, limit=2.4, title="Noisy points, and the score that was learned there")

# %% [markdown]
# ## What came out
#
# The samples' figures are those of `tg.metrics.judge_samples`: 1,000 digits, each class asked for as often as the
# training data have it (to draw y and then x is to draw from p(x)), no guidance, 25 ancestral steps. *No class* is the
# same network with the class hidden: it must find one by itself, which is harder, and was trained for a fifth of the
# time only. *Nearest training image* is the median distance to it: a model that copied what it has seen would have less
# than unseen digits have. *Bits per dimension* is the bound on −log₂ p(x | y) of unseen digits, per pixel; the bundled
# digits have 17 grey levels, so that log₂ 17 = 4.09 is what knowing nothing costs (8 for MNIST's 256).


# %%
def nearest(images: tg.Tensor) -> float:
    """The median over images of the distance to the nearest training image."""
    p, q = images.flatten(1).numpy(), seen.flatten(1).numpy()
    squares = (p * p).sum(1)[:, None] - 2 * p @ q.T + (q * q).sum(1)
    return float(np.median(np.sqrt(np.maximum(squares.min(1), 0))))


many = 100 if args.quick else 1000
pick = tg.randint(len(train), (many,), rng=tg.Generator(args.seed + 15)).numpy()
classes = tg.tensor(train.labels[pick].astype(np.int64), device=args.device)
drawn = model.sample(many, y=classes, sampler=ancestral, rng=fresh(16))
free = tg.metrics.judge_samples(model.sample(many, sampler=ancestral, rng=fresh(19)), seen)
some = unseen[: 50 if args.quick else 300]
their = tg.tensor(test.labels[: len(some)].astype(np.int64), device=args.device)
levels = 17 if small else 256
few_seen = seen[:300], tg.tensor(train.labels[:300].astype(np.int64), device=args.device)
σ = diffusion.best_deviation(model, *few_seen, rng=fresh(17))
bits = diffusion.bits_per_dimension(
    model, some, their, levels=levels, passes=2 if args.quick else 20, deviation=σ, rng=fresh(18)
)
results = {
    **tg.metrics.judge_samples(drawn, seen, labels=classes),
    **{f"no class: {name}": free[name] for name in ("confident", "smallest class share", "Fréchet distance")},
    "nearest training image, samples": nearest(drawn[:300]),
    "nearest training image, unseen digits": nearest(some),
    **{(name if name.startswith("bits") else f"bits per dimension, {name}"): value for name, value in bits.items()},
}
half = len(back) // 2
tg.viz.save_rows(
    out / "ddpm.png",
    {f"t = {t}": model.decode(x) for t, x in (back[0], back[half], back[-1 - half // 2], back[-1])}
    | {"lower half drawn": holes["completed, 1"]},
    title="Digits out of noise",
)
common.report(args, results)
