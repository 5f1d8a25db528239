"""Generative adversarial networks: two networks play against each other until one of them draws digits."""

# %% [markdown]
# # Generative adversarial networks
#
# A generator G makes images of noise, a discriminator D says how real an image looks, and each learns from the other:
#
#     L_D = E_p[f(D(x))] + E_z[g(D(G(z)))],    L_G = E_z[h(D(G(z)))],    z ~ N(0, I)
#
# Nobody tells G what is wrong with its images. Its only teacher is the slope of D. Before it is played for digits, the
# game is played where all is known: what D finds, and how G can fail.

# %%
import math

import numpy as np

import tinygen as tg
from demos import common
from tinygen.data.toy import ring
from tinygen.models import gan as game
from tinygen.viz.canvas import PALETTE, new_figure, plain_axes, save_figure


def own_options(parser):
    parser.add_argument("--loss", choices=game.LOSSES, default="non-saturating",
                        help="what both sides minimise (default non-saturating); wasserstein with a gradient penalty")
    parser.add_argument("--class", dest="digit", type=int, choices=range(10), metavar="D",
                        help="also draw a page of this digit")
    parser.add_argument("--unconditional", action="store_true", help="no labels: G does not know what it draws")


args = common.options("gan", steps=3600, batch_size=64, add=own_options)
if args.digit is not None and args.unconditional:
    raise common.UserError("--class D asks for labels, --unconditional for none")
train, test = common.load_data(args)
critic_steps = 2 if args.loss == "wasserstein" else 1
if args.batch_size * critic_steps > len(train):
    raise common.UserError(f"--batch-size {args.batch_size}: {critic_steps} critic steps need as many batches, and "
                           f"there are only {len(train):,} examples")
rng = tg.Generator(args.seed)
noise = tg.Generator(args.seed, device=args.device)  # drawn where the networks are
out = args.out

# %% [markdown]
# ## The players
#
# DCGAN's two networks, small: transposed convolutions with BatchNorm for G, convolutions for D. Both are told the
# label: G adds a learned vector for it to its first layer, D projects its features on one. D's slope on real images is
# penalised (R1), or between real and fake for the Wasserstein loss (WGAN-GP, with more than one critic step).

# %%
shape = train.images.shape[1:]
classes = None if args.unconditional else 10
gan = tg.models.GAN(
    tg.models.ConvGenerator(shape, latent=64, widths=(32, 64), classes=classes, rng=rng),
    tg.models.ConvDiscriminator(shape, widths=(32, 64), classes=classes, rng=rng),
    loss=args.loss,
    critic_steps=critic_steps,
    gradient_penalty=10.0 if args.loss == "wasserstein" else 0.0,
    r1=0.0 if args.loss == "wasserstein" else 1.0,
).to(args.device)
adam_d = tg.optim.Adam(gan.discriminator.parameters(), lr=1e-3, betas=(0.5, 0.99))
adam_g = tg.optim.Adam(gan.generator.parameters(), lr=1e-3, betas=(0.5, 0.99))
slower_d, slower_g = (tg.optim.lr_scheduler.LinearLR(a, 1.0, 0.02, total_iters=args.steps) for a in (adam_d, adam_g))
ema = tg.optim.EMA(gan.generator, 0.995)
loader = tg.data.DataLoader(
    train, batch_size=args.batch_size * critic_steps, shuffle=True, drop_last=True, rng=rng, device=args.device
)


class Film:
    """What G makes of the same noise as training goes; in the checkpoint, so that a resumed run has all of it."""

    def __init__(self, steps: int, length: int = 30) -> None:
        # denser at first, when more happens
        self.at = sorted({max(1, round(steps * (k / length) ** 2)) for k in range(1, length + 1)})
        self.z = tg.randn(40, 64, rng=noise, device=args.device)
        self.y = None if classes is None else tg.tensor(np.arange(40) % 10, device=args.device)
        self.frames = np.zeros((len(self.at), 40, *shape), np.uint8)

    def take(self, step: int) -> None:
        if step in self.at:
            with ema.apply():
                images = gan.decode(self.z, self.y)
            self.frames[self.at.index(step)] = np.rint(255 * images.numpy())

    def state_dict(self):
        return {"frames": tg.tensor(self.frames, device="cpu")}

    def load_state_dict(self, state):
        self.frames[...] = state["frames"].numpy()


film = Film(args.steps)
run = common.run(
    args,
    {
        "gan": gan, "adam d": adam_d, "adam g": adam_g, "slower d": slower_d, "slower g": slower_g, "ema": ema,
        "loader": loader, "rng": rng, "noise": noise, "film": film,
    },
    config={"loss": args.loss, "classes": classes},
)

# %% [markdown]
# ## What the discriminator finds
#
# Let G stand still. Data x ~ p, fakes x ~ q, both on a line and with densities that are known. The best D is then
#
#     D*(x) = p(x)/(p(x) + q(x)),    where    L_D = ln 4 − 2·JS(p, q).
#
# A network that is shown nothing but samples finds the same curve wherever there are samples: it estimates the ratio of
# two densities without knowing either.

# %%
data = tg.data.densities.GaussianMixture([[-2.0], [1.5]], [[[0.25]], [[0.5]]], [0.4, 0.6])
fakes = tg.data.densities.GaussianMixture([[0.0]], [[[2.25]]])
toy = tg.Generator(args.seed + 1)
D = game.DenseDiscriminator((1,), (64, 64), rng=toy).to(args.device)
adam = tg.optim.Adam(D.parameters(), lr=3e-3)
steadier = tg.optim.lr_scheduler.LinearLR(adam, 1.0, 0.02, total_iters=500)
loss = game.Minimax()
for _ in range(args.steps if args.quick else 500):
    real, fake = (tg.tensor(d.sample(512, toy), device=args.device) for d in (data, fakes))
    value = loss.discriminator(D(real), D(fake))
    adam.zero_grad()
    value.backward()
    adam.step()
    steadier.step()

line = np.linspace(-4.5, 4.5, 601)
p, q = (tg.tensor(np.exp(d.log_prob(line[:, None]))) for d in (data, fakes))
best = game.optimal_discriminator(p, q).numpy()
with tg.no_grad():
    found = loss.score(D(tg.tensor(line[:, None], dtype=tg.float32, device=args.device))).numpy()
dx = line[1] - line[0]
js = game.jensen_shannon(p * dx, q * dx).item()
# weighed by how often x is met: where neither p nor q has samples D may say what it likes
off_by = float((np.abs(found - best) * (p + q).numpy() * dx / 2).sum())
tg.viz.save_curves(
    out / "discriminator.png",
    {"data p(x)": (line, p), "fakes q(x)": (line, q), "D* = p/(p + q)": (line, best), "D, trained": (line, found)},
    xlabel="x",
    ylabel="density, or probability of real",
    title=f"What D finds from samples alone: |D − D*| is {off_by:.3f} on average",
)

# %% [markdown]
# ## How the generator fails
#
# Eight Gaussians on a ring, and three games of 2,000 steps:
#
# - the loss as the first paper plays it, with Adam as it comes (β₁ = 0.9): the loss says least where D is surest of a
#   fake, and the momentum carries G past every mode that it comes to;
# - the generator's loss turned round (non-saturating) and β₁ = 0.5: G finds the modes, but D grows steep, G chases
#   whatever D has not caught yet, and gives to one mode what it takes from another;
# - the same with a penalty on D's slope on the data (R1): D flattens as G comes near, and both settle.
#
# Points are drawn by the average of G over its last steps (EMA); the ground is D, blue for real. A mode counts as
# covered from a tenth of its fair share of points on.


# %%
eight, σ = ring(8), 0.02
GAMES = {
    "minimax, β₁ = 0.9": {"loss": "minimax", "betas": (0.9, 0.999), "lr": 1e-3},
    "non-saturating, β₁ = 0.5": {"loss": "non-saturating", "betas": (0.5, 0.99), "lr": 5e-3},
    "the same, with R1": {"loss": "non-saturating", "r1": 0.1, "betas": (0.5, 0.99), "lr": 5e-3},
}


def play(loss: str, lr: float, betas: tuple[float, float], r1: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """One game on the ring, 128 points a step: 2,500 points of G, and what D says on an 80 × 80 lattice."""
    draw, z = tg.Generator(args.seed + 1), tg.Generator(args.seed + 1, device=args.device)
    player = game.GAN(
        game.DenseGenerator((2,), 16, (128, 128), bounded=False, rng=draw),
        game.DenseDiscriminator((2,), (128, 128), rng=draw),
        loss,
        r1=r1,
        data_range=None,
    ).to(args.device)
    sides = player.discriminator, player.generator
    adams = [tg.optim.Adam(side.parameters(), lr=lr, betas=betas) for side in sides]
    steps = min(args.steps, 2000)
    slower = [tg.optim.lr_scheduler.LinearLR(adam, 1.0, 0.05, total_iters=steps) for adam in adams]
    average = tg.optim.EMA(player.generator, 0.995)
    for _ in range(steps):
        x = tg.tensor(eight.sample(128, draw), device=args.device)
        player.training_step(x, None, *adams, rng=z)
        average.update()
        for schedule in slower:
            schedule.step()
    with average.apply(), tg.no_grad():
        ticks = np.linspace(-2.6, 2.6, 80, dtype=np.float32)
        plane = tg.tensor(np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2), device=args.device)
        ground = player.loss.score(player.discriminator(plane))
        return player.sample(2500, rng=z).numpy(), ground.reshape(80, 80).numpy()


figure = new_figure(11, 4.4)
coverage = {}
for i, (name, settings) in enumerate(GAMES.items()):
    print(f"  eight Gaussians: {name}", flush=True)
    points, ground = play(**settings)
    seen = coverage[name] = game.mode_coverage(points, eight.modes, σ, least=len(points) // 80)
    axes = figure.add_subplot(1, 3, i + 1)
    told = f"{seen.covered} of 8 modes, {100 * seen.high_quality:.0f} % within 3σ"
    plain_axes(axes, f"{told}\nKL to even shares {seen.imbalance:.3f} nats", title=name, grid="")
    extent = (-2.6, 2.6, -2.6, 2.6)
    axes.imshow(ground, extent=extent, origin="lower", cmap="RdBu", vmin=0, vmax=1, alpha=0.5)
    axes.scatter(*eight.modes.T, s=60, facecolors="none", edgecolors=PALETTE[1], linewidths=1.2)
    inside = np.abs(points).max(1) < 2.6
    axes.scatter(*points[inside].T, s=2, color="black", linewidths=0)
    if inside.mean() < 0.98:
        axes.text(0, 0, f"{(~inside).sum():,} points outside", ha="center", fontsize=10)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
save_figure(out / "ring.png", figure)

# %% [markdown]
# ## Digits
#
# Each step: D on a batch of real images and as many fakes, then G on new fakes, both a little. G circles around where
# it should be, and its average over the last steps (EMA) does not: that is what draws from here on.

# %%
batches = loader.forever()
for step in run:
    x, y = next(batches)
    terms = gan.training_step(x, None if classes is None else y, adam_d, adam_g, noise)
    ema.update()
    slower_d.step()
    slower_g.step()
    film.take(step)
    run.log(**terms)

# %% [markdown]
# ## The course of the game
#
# The losses say little about the images: each is measured against an opponent that moves. What to look for is balance.
# At the equilibrium D = ½ everywhere, L_D = 2 ln 2 = 1.386 and L_G = ln 2 = 0.693 (for the two losses of the first
# paper). L_D → 0 and D(G(z)) → 0 means that D has won, and that G learns no more.

# %%
log = tg.training.read_log(run.log_path)
steps = [entry["step"] for entry in log]
curves = {"L_D": "loss_d", "L_G": "loss_g", **({"penalty, weighed": "penalty"} if "penalty" in log[0] else {})}
tg.viz.save_curves(
    out / "loss.png",
    {label: (steps, [entry[key] for entry in log]) for label, key in curves.items()},
    smooth=0.95,
    ylabel=f"{args.loss} loss",
    title="Neither loss goes to 0: the two keep each other busy",
)
tg.viz.save_curves(
    out / "balance.png",
    {
        "D(x), real": (steps, [entry["d_real"] for entry in log]),
        "D(G(z)), fake": (steps, [entry["d_fake"] for entry in log]),
    },
    smooth=0.95,
    ylabel="mean output of D",
    title="What D says of real images and of fakes",
)
grids = [tg.viz.make_grid(frame, nrow=10, padding=1, pad_value=255) for frame in film.frames]
tg.viz.save_gif(
    out / "training.gif", grids, duration_ms=150, scale=6 if shape[1] <= 8 else 2, hold_last=2000,
    captions=[f"step {at:,}" for at in film.at],
)
shown = [round(k) for k in np.linspace(0, len(film.at) - 1, min(8, len(film.at)))]
tg.viz.save_rows(
    out / "progress.png",
    {f"step {film.at[k]:,}": film.frames[k][:10] for k in shown},
    title="The same noise as training goes" + ("" if classes is None else ", a digit in each column"),
)

# %% [markdown]
# ## What it draws
#
# One noise for each row, one label for each column: what the noise says is the hand, not the digit. Then, does it copy?
# Beside each sample stands the training image that is nearest to it; were it copying, the two would be one.


# %%
def nearest(samples: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each sample the nearest image of the pool, and its distance ‖a − b‖."""
    a, b = samples.reshape(len(samples), -1), pool.reshape(len(pool), -1)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    at = squares.argmin(1)
    return pool[at], np.sqrt(np.maximum(squares[np.arange(len(a)), at], 0))


judge = tg.Generator(args.seed + 2, device=args.device)
number = 100 if args.quick else 1000
with ema.apply():
    labels = gan.labels(number, rng=judge)
    samples = gan.sample(number, labels, rng=judge)
    columns = None if classes is None else tg.tensor(np.arange(80) % 10, device=args.device)
    z = tg.randn(8, 64, rng=judge, device=args.device).unsqueeze(1)
    page = samples[:80] if classes is None else gan.decode(tg.broadcast_to(z, (8, 10, 64)).reshape(80, 64), columns)
    t = tg.linspace(0, 1, 10, device=args.device).reshape(1, 10, 1)
    a, b = tg.randn(2, 4, 1, 64, rng=judge, device=args.device).unbind(0)
    # noise of N(0, I) lies near a sphere, and so do points on the arc between two of it, but not those on the chord
    walk = (tg.cos(t * math.pi / 2) * a + tg.sin(t * math.pi / 2) * b).reshape(40, 64)
    kinds = None if classes is None else tg.tensor(np.repeat([3, 5, 8, 2], 10), device=args.device)
    between = gan.decode(walk, kinds)
    if args.digit is not None:
        tg.viz.save_grid(
            out / f"class_{args.digit}.png", gan.sample(50, args.digit, rng=judge), ncols=10,
            title=f"The digit {args.digit}, fifty times",
        )
tg.viz.save_grid(
    out / "samples.png", page, ncols=10,
    title="Drawn from noise" if classes is None else "One noise for each row, one digit for each column",
)
tg.viz.save_grid(out / "walk.png", between, ncols=10, title="From one noise to another")
drawn = samples.numpy()
copies, distance = nearest(drawn, train.images)
_, usual = nearest(test.images, train.images)
tg.viz.save_rows(
    out / "nearest.png", {"drawn": drawn[:10], "nearest seen": copies[:10]},
    title=f"Does it copy? Mean distance to the nearest training image {distance.mean():.2f}; "
    f"of unseen real digits {usual.mean():.2f}",
)

# %% [markdown]
# ## What came out
#
# How good are the samples? A classifier that was trained on real digits looks at 1,000 of them: is it sure of what it
# sees, are all digits there, and are its features distributed as those of real images?

# %%
verdict = tg.metrics.judge_samples(samples, train.images, labels=labels)
tg.viz.save_rows(out / "gan.png", {f"step {film.at[k]:,}": film.frames[k][:10] for k in shown[-6:]})
results = {
    "discriminator on the line: mean |D − D*|": off_by,
    "its loss, last batch": value.item(),
    "ln 4 − 2·JS": math.log(4) - 2 * js,
    **{f"ring of 8, {name}: modes": c.covered for name, c in coverage.items()},
    **{f"ring of 8, {name}: within 3σ": c.high_quality for name, c in coverage.items()},
    **{f"ring of 8, {name}: KL to even shares": min(c.imbalance, math.log(8)) for name, c in coverage.items()},
    "D(x), last 100 steps": float(np.mean([entry["d_real"] for entry in log[-100:]])),
    "D(G(z)), last 100 steps": float(np.mean([entry["d_fake"] for entry in log[-100:]])),
    "distance to nearest training image": float(distance.mean()),
    "the same, unseen real digits": float(usual.mean()),
    **verdict,
}
common.report(args, results)
