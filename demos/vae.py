"""Variational autoencoder: codes with a distribution of their own, so that new digits can be drawn from them."""

# %% [markdown]
# # Variational autoencoders
#
# An autoencoder rebuilds what it is shown, but nobody knows which codes make digits. The *variational* autoencoder is
# a model of where images come from, z ~ p(z), x ~ p(x|z), and its encoder says for each image how sure it is of z:
#
#     q(z|x) = N(μ(x), diag σ²(x)),     z = μ + σε,  ε ~ N(0, I)
#     ln p(x) ≥ ELBO = E_q[ln p(x|z)] − KL(q(z|x) ‖ p(z))
#
# The first part wants each image rebuilt. The second wants all codes together to look like draws from p(z), so that
# draws from p(z) look like codes. (The formulas are derived in `tinygen/models/vae/vae.py`.)

# %%
import numpy as np

import tinygen as tg
from demos import common


def own_options(parser):
    parser.add_argument("--class", dest="digit", type=int, choices=range(10), metavar="D", help="draw this digit too")
    parser.add_argument("--network", choices=("dense", "conv"), default="dense", help="of the image model")
    parser.add_argument("--beta", type=float, metavar="B",
                        help="weight of the KL divergence in the image model (default 0.3; 1 for MNIST)")


args = common.options("vae", steps=3000, batch_size=128, add=own_options)
if args.beta is not None and not args.beta >= 0:
    raise common.UserError(f"--beta {args.beta}: must be 0 or more")
train, test = common.load_data(args)
rng = tg.Generator(args.seed)
noise = tg.Generator(args.seed, device=args.device)  # drawn where the images are
out = args.out

# %% [markdown]
# ## Five models, one loop
#
# - `plain`: the paper's own. p(z) = N(0, I), the ELBO as it stands, and a code of eight numbers.
# - `image`: the one that draws best. Two things are changed. *β < 1* makes the divergence cheaper, so that more of the
#   image gets into the code (the loss is then no bound of ln p any more). And the prior is *learned*: a VampPrior, the
#   mean of q(z|u) over a hundred images u that are learned too. Why that helps is seen below.
# - `flat`: a code of two numbers, so that all of it can be seen on a page.
# - `told`: a conditional model, whose two halves are told the digit. What is left for the code is the handwriting.
# - `symbols`: a VQ-VAE, whose code is a small picture of symbols from a learned alphabet.
#
# They share no parameter, so the gradient of the sum of their losses is each one's own gradient, and one Adam
# serves them all.

# %%
shape = train.images.shape[1:]
small = shape[1] <= 8
beta = (0.3 if small else 1.0) if args.beta is None else args.beta
widths = (256, 256) if small else (512, 256)
some = np.random.default_rng(args.seed).permutation(len(train))[:100]
image_model = tg.models.DenseVAE if args.network == "dense" else tg.models.ConvVAE
models = tg.nn.ModuleDict(
    {
        "image": image_model(
            shape, widths if args.network == "dense" else (32, 64), latent=16, beta=beta,
            prior=tg.models.VampPrior(tg.tensor(train.images[some], device="cpu")), rng=rng,
        ),
        "plain": tg.models.DenseVAE(shape, widths, latent=8, rng=rng),
        "flat": tg.models.DenseVAE(shape, widths, latent=2, rng=rng),
        "told": tg.models.DenseVAE(shape, widths, latent=16, beta=0.5 if small else 1.0, classes=10, rng=rng),
        "symbols": tg.models.ConvVQVAE(shape, (32,) if small else (16, 32), codes=16, dim=4, rng=rng),
    }
).to(args.device)
adam = tg.optim.Adam(models.parameters(), lr=1e-3)
slower = tg.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=args.steps, eta_min=5e-5)

# %% [markdown]
# ## Pictures as training goes
#
# Thirty times during the run the same random numbers are made into images, which a film at the end puts together.


# %%
class Film:
    """Forty images drawn by the image model at thirty moments; part of the checkpoint, so that no frame is lost."""

    def __init__(self):
        self.steps = np.zeros(30, np.int64)
        self.frames = np.zeros((30, 40, *shape), np.uint8)

    def take(self, step):
        k = 30 * step // args.steps - 1
        if 30 * (step - 1) // args.steps - 1 < k:
            images = models["image"].sample(40, rng=tg.Generator(args.seed + 1, device=args.device))
            self.steps[k], self.frames[k] = step, np.rint(255 * images.numpy())
            tg.viz.save_grid(out / "samples.png", images, ncols=10, title=f"Drawn after step {step:,}")

    def taken(self):
        return np.flatnonzero(self.steps)

    def state_dict(self):
        return {"steps": tg.tensor(self.steps, device="cpu"), "frames": tg.tensor(self.frames, device="cpu")}

    def load_state_dict(self, state):
        self.steps[...], self.frames[...] = state["steps"].numpy(), state["frames"].numpy()


film = Film()
loader = tg.data.DataLoader(train, batch_size=args.batch_size, shuffle=True, rng=rng, device=args.device)
run = common.run(
    args,
    {"models": models, "optimizer": adam, "scheduler": slower, "loader": loader, "rng": rng, "noise": noise,
     "film": film},
    config={"network": args.network, "beta": beta},
)

# %% [markdown]
# ## Training
#
# Each step: a batch, the sum of the losses, one backward sweep, one Adam step. The VQ-VAE, the slowest of the five, has
# every other turn. Both parts of each ELBO are logged.

# %%
batches = loader.forever()
for step in run:
    x, y = next(batches)
    terms = {name: models[name].training_step(x, rng=noise) for name in ("image", "plain", "flat")}
    terms["told"] = models["told"].training_step(x, y, rng=noise)
    if step % 2:
        terms["symbols"] = models["symbols"].training_step(x, rng=noise)
    adam.zero_grad()
    sum(part["loss"] for part in terms.values()).backward()
    adam.step()
    slower.step()
    film.take(step)
    for name, parts in terms.items():
        run.log(**{part if name == "image" else f"{part}_{name}": value for part, value in parts.items()})

# %% [markdown]
# ## Both parts of the ELBO
#
# The divergence begins near 0: an encoder that says nothing costs nothing. Then it pays for itself.

# %%
models.eval()
model, plain, flat, told, symbols = (models[name] for name in ("image", "plain", "flat", "told", "symbols"))
seen, unseen, labels = common.images(train, args), common.images(test, args), test.labels
log = tg.training.read_log(run.log_path)
steps = [entry["step"] for entry in log]
tg.viz.save_curves(
    out / "loss.png",
    {
        "−ELBO, plain": (steps, [entry["loss_plain"] for entry in log]),
        "reconstruction, plain": (steps, [entry["reconstruction_plain"] for entry in log]),
        "KL, plain": (steps, [entry["kl_plain"] for entry in log]),
        f"reconstruction, β = {beta:g} and learned prior": (steps, [entry["reconstruction"] for entry in log]),
        "KL, the same": (steps, [entry["kl"] for entry in log]),
    },
    smooth=0.95,
    ylabel="nats per image",
    title="Rebuilding, and what the code costs",
)
grids = [tg.viz.make_grid(film.frames[k], nrow=10, padding=1, pad_value=255) for k in film.taken()]
tg.viz.save_gif(
    out / "training.gif", grids, duration_ms=150, scale=6 if small else 2, hold_last=2000,
    captions=[f"step {film.steps[k]:,}" for k in film.taken()],
)

# %% [markdown]
# ## Rebuilding, and how much of the code is in use
#
# A number of the code that costs more than it brings is given up: its q stays N(0, 1) whatever the image, and its mean
# does not move. Burda et al. call a unit *active* where the mean's variance over the images is above 0.01.


# %%
def typical(d: int) -> int:
    """The unseen image of digit d that is nearest to the mean of its kind."""
    at = np.flatnonzero(labels == d)
    points = test.images[at].reshape(len(at), -1)
    return int(at[np.argmin(((points - points.mean(0)) ** 2).sum(1))])


few = unseen[[typical(d) for d in range(10)]]
with tg.no_grad():
    rebuilt = {"unseen": few, "rebuilt, plain": plain(few), "rebuilt, image": model(few), "16 symbols": symbols(few)}
tg.viz.save_rows(out / "reconstructions.png", rebuilt, title="In and out again")
activity = np.sort(plain.activity(unseen).numpy())[::-1]
active = plain.active_units(unseen)
tg.viz.save_bars(
    out / "active_units.png",
    {str(i + 1): float(a) for i, a in enumerate(activity)},
    reference={"active from 0.01": 0.01},
    xlabel="number of the code",
    ylabel="variance of its mean",
    title=f"{active} of {plain.latent} numbers of the plain code are active",
)

# %% [markdown]
# ## Drawing, and the holes in the prior
#
# The plain model draws z ~ N(0, I). Most of its draws are digits and some are smudges: the codes of the images, taken
# together, are *not quite* N(0, I), and where N(0, I) has mass and no image ever was, the decoder has never been asked
# for anything. The learned prior follows the codes instead. Below both: draws, and the first of the hundred images
# u_k that the learned prior is made of; some look like digits, others like nothing we have a name for.

# %%
draw = tg.Generator(args.seed + 2, device=args.device)
number = 100 if args.quick else 1000
drawn = {"image": model.sample(number, rng=draw), "plain": plain.sample(number, rng=draw)}
asked = tg.tensor(np.arange(number) % 10, device=args.device)
drawn["told"] = told.sample(number, asked, rng=draw)
drawn["symbols"] = symbols.sample(number, rng=draw)
tg.viz.save_grid(out / "samples.png", drawn["image"][:80], ncols=10, title="Drawn with the learned prior")
tg.viz.save_grid(
    out / "priors.png",
    tg.cat([drawn["plain"][:20], drawn["image"][:20], drawn["symbols"][:20], model.prior.pseudo_inputs.detach()[:20]]),
    ncols=10,
    row_labels=["N(0, I)", "", "learned prior", "", "symbols", "", "its u", ""],
    title="What is drawn, and what the learned prior is made of",
)

# %% [markdown]
# Does it copy? Beside each draw stands the training image nearest to it; a copy would be at distance 0. Draws come
# closer to the training images than unseen digits do. So do unseen digits that went through the model, which took their
# noise away: that much is smoothness and no copying.


# %%
def nearest(samples: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each sample the nearest image of the pool, and its distance ‖a − b‖."""
    a, b = samples.reshape(len(samples), -1), pool.reshape(len(pool), -1)
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    at = squares.argmin(1)
    return pool[at], np.sqrt(np.maximum(squares[np.arange(len(a)), at], 0))


copies, distance = nearest(drawn["image"].numpy(), train.images)
_, usual = nearest(test.images, train.images)
with tg.no_grad():
    _, smooth = nearest(model(unseen).numpy(), train.images)
tg.viz.save_rows(
    out / "nearest.png",
    {"drawn": drawn["image"][:10], "nearest seen": copies[:10]},
    title=f"Mean distance to the nearest training image: draws {distance.mean():.2f},\n"
    f"unseen digits {usual.mean():.2f}, the same rebuilt {smooth.mean():.2f}",
)

# %% [markdown]
# ## The map of codes, and the manifold
#
# Two numbers for each image, no label seen in training. Unlike the autoencoder's, the map has a centre and a scale:
# it looks like N(0, I) as a whole. So the plane can be walked in steps of equal probability, and everywhere is a digit,
# or something on the way from one to the next.

# %%
with tg.no_grad():
    tg.viz.save_latent_map(out / "latent_map.png", flat.encode(unseen).mean, labels, title="Codes of unseen digits")
    tg.viz.save_manifold(
        out / "manifold.png", lambda z: flat.decode(z.to(args.device)), n=19, quantiles=True,
        x_range=(-2.3, 2.3), y_range=(-2.3, 2.3), title="The plane of codes, each cell equally likely",
    )
ends = [(0, 6), (1, 7), (3, 8), (4, 9)]
tg.viz.save_grid(
    out / "path.png",
    tg.cat([model.path(few[a], few[b], steps=11)[0] for a, b in ends]),
    ncols=11,
    row_labels=[f"{a} to {b}" for a, b in ends],
    title="Equal steps from code to code",
)

# %% [markdown]
# ## Asked for a digit
#
# The conditional model: one code for each row, one digit for each column. What the code says is the hand.

# %%
z = tg.randn(8, told.latent, rng=draw, device=args.device).unsqueeze(1)
with tg.no_grad():
    hands = told.decode(tg.broadcast_to(z, (8, 10, told.latent)).reshape(80, -1),
                        tg.tensor(np.arange(80) % 10, device=args.device))
tg.viz.save_grid(out / "classes.png", hands, ncols=10, title="One code for each row, one digit for each column")
if args.digit is not None:
    tg.viz.save_grid(
        out / f"class_{args.digit}.png", told.sample(50, args.digit, rng=draw), ncols=10,
        title=f"The digit {args.digit}, fifty times",
    )

# %% [markdown]
# ## What came out
#
# How probable are unseen digits to the plain model? The ELBO is a bound, and with more draws for each image the
# importance-weighted bound comes closer to ln p(x). And how good are the draws? A classifier that was trained on
# real digits looks at 1,000 of them: is it sure of what it sees, are all digits there, and are its features
# distributed as those of real images?

# %%
few_draws, many = (5, 20) if args.quick else (50, 500)
some_unseen = unseen[:500]  # of MNIST's; of the small digits it is all
judged = {name: tg.metrics.judge_samples(images, seen, asked if name == "told" else None)
          for name, images in drawn.items()}
with tg.no_grad():
    elbo = -sum(part.mean().item() for part in plain.elbo(some_unseen, k=few_draws, rng=draw))
used = symbols.codes(unseen)
results = {
    **judged["image"],
    **{f"{figure}, {name}": judged[name][figure]
       for name in ("plain", "told", "symbols")
       for figure in ("confident", "smallest class share", "Fréchet distance")},
    "wanted class shown": judged["told"]["wanted class shown"],
    "distance to nearest training image, draws": float(distance.mean()),
    "distance to nearest training image, unseen digits": float(usual.mean()),
    "distance to nearest training image, unseen digits rebuilt": float(smooth.mean()),
    "ELBO of unseen digits, plain (nats)": elbo,
    **{f"log-likelihood, {k} importance samples": plain.log_likelihood(some_unseen, k, rng=draw).mean().item()
       for k in (few_draws, many)},
    "active units, plain (of 8)": active,
    "active units, image (of 16)": model.active_units(unseen),
    **{f"reconstruction error, {name} (mean square, unseen)": models[name].reconstruction_error(unseen).mean().item()
       for name in ("plain", "image", "flat", "symbols")},
    "symbols in use (perplexity, of 16)": tg.models.vae.perplexity(used, 16).item(),
}
tg.viz.save_rows(
    out / "vae.png",
    {
        "unseen": few,
        "rebuilt": rebuilt["rebuilt, image"],
        "drawn": drawn["image"][:10],
        "asked for": drawn["told"][:10],
    },
)
common.report(args, results)
