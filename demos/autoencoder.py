"""Autoencoders: rebuild, clean, group and judge digits through a narrow code."""

# %% [markdown]
# # Autoencoders
#
# An encoder f squeezes an image x into a code z of few numbers, a decoder h makes an image of the code again:
#
#     z = f(x),    x̂ = σ(h(z)),    L = −Σ_pixels [x ln x̂ + (1 − x) ln(1 − x̂)]
#
# Nothing but images is needed to train it. What the narrow code is good for, and what is wrong with it, is this
# lesson: rebuilding, drawing new digits, cleaning spoiled ones, finding odd ones, and grouping them unseen.

# %%
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score

import tinygen as tg
from demos import common

args = common.options("autoencoder", steps=3000, batch_size=128)
train, test = common.load_data(args)
rng = tg.Generator(args.seed)
noise = tg.Generator(args.seed, device=args.device)  # drawn where the images are

# %% [markdown]
# ## Five systems, one loop
#
# - `image`: convolutions down to a code of 32 numbers, transposed convolutions up again.
# - `clean`: the same network, shown spoiled images and asked for the clean ones (a *denoising* autoencoder).
# - `flat`: a *stacked* autoencoder with a code of two numbers, so that all codes can be seen on a page.
# - `plain`: one hidden layer, the code itself.
# - `without 0` … `without 9`: each has never seen one of the digits, and should find it odd.
#
# They share no parameter, so the gradient of the sum of their losses is each one's own gradient, and one Adam
# serves them all.

# %%
shape = train.images.shape[1:]
DIGITS = range(10)
models = tg.nn.ModuleDict(
    {
        "image": tg.models.ConvAutoencoder(shape, widths=(16, 32), latent=32, rng=rng),
        "clean": tg.models.ConvAutoencoder(shape, widths=(16, 32), latent=32, noise=("gaussian", 0.3), rng=rng),
        "flat": tg.models.StackedAutoencoder(shape, widths=(256, 64, 2), rng=rng),
        "plain": tg.models.DenseAutoencoder(shape, latent=16, rng=rng),
        **{f"without {d}": tg.models.StackedAutoencoder(shape, widths=(64, 12), rng=rng) for d in DIGITS},
    }
).to(args.device)
adam = tg.optim.Adam(models.parameters(), lr=2e-3)
slower = tg.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=args.steps, eta_min=1e-4)

# %% [markdown]
# ## Greedy layer-wise pre-training
#
# The stack with the two-number code is started layer by layer (Bengio et al. 2007): each layer learns to rebuild what
# the layer below it says, and only then are they trained as a whole.

# %%
loader = tg.data.DataLoader(train, batch_size=args.batch_size, shuffle=True, rng=rng, device=args.device)
run = common.run(
    args,
    {"models": models, "optimizer": adam, "scheduler": slower, "loader": loader, "rng": rng, "noise": noise},
)
batches = loader.forever()
if run.step == 0:
    images_only = (x for x, _ in batches)
    tg.models.pretrain_greedily(models["flat"], images_only, steps=max(1, args.steps // 20), lr=2e-3)

# %% [markdown]
# ## Training
#
# Each step: a batch, the sum of the losses, one backward sweep, one Adam step. The network that shall not know the
# digit d sees the batch without its d's; the ten of them take turns, two at a time.

# %%
for step in run:
    x, y = next(batches)
    losses = {name: models[name].training_step(x, rng=noise)["loss"] for name in ("image", "clean", "flat", "plain")}
    for d in (2 * step % 10, (2 * step + 1) % 10):
        losses[f"without {d}"] = models[f"without {d}"].training_step(x, weight=(y != d).to(x.dtype))["loss"]
    total = sum(losses.values())
    adam.zero_grad()
    total.backward()
    adam.step()
    slower.step()
    run.log(loss=losses["image"], **{f"loss_{k}": v for k, v in losses.items() if k in ("clean", "flat", "plain")})

# %%
models.eval()
model, cleaner, flat = models["image"], models["clean"], models["flat"]
seen, unseen = common.images(train, args), common.images(test, args)
labels = test.labels
out = args.out
log = tg.training.read_log(run.log_path)
curves = {"rebuild": "loss", "clean": "loss_clean", "two-number code": "loss_flat", "one layer": "loss_plain"}
tg.viz.save_curves(
    out / "loss.png",
    {label: ([e["step"] for e in log], [e[key] for e in log]) for label, key in curves.items()},
    smooth=0.9,
    ylabel="nats per image",
    title="Loss while training",
)

# %% [markdown]
# ## Rebuilding, and drawing from the code
#
# Images it has never seen go in and come out. To draw *new* ones, codes are needed, and the autoencoder does not say
# which ones are good. Here a distribution is put around the codes of the training images afterwards, and codes drawn
# from it: one Gaussian (many of whose codes lie where no digit is), and a mixture of twenty, which keeps closer to the
# heaps (Ghosh et al., *From Variational to Deterministic Autoencoders*, 2020). The variational autoencoder will make
# the codes Gaussian in the first place.


# %%
def typical(d: int) -> int:
    """The unseen image of digit d that is nearest to the mean of its kind."""
    at = np.flatnonzero(labels == d)
    points = test.images[at].reshape(len(at), -1)
    return int(at[np.argmin(((points - points.mean(0)) ** 2).sum(1))])


def from_twenty_gaussians(codes: np.ndarray, n: int) -> np.ndarray:
    """n codes from a mixture: k-means cuts the codes in twenty groups, and each gets a Gaussian of its own."""
    draw = np.random.default_rng(args.seed)
    groups = KMeans(20, n_init=1, random_state=args.seed).fit_predict(codes)
    chosen = []
    for k in draw.choice(groups, n):  # large groups more often
        members = codes[groups == k]
        centred = members - members.mean(0)
        covariance = centred.T @ centred / len(members) + 1e-3 * np.eye(codes.shape[1])
        chosen.append(members.mean(0) + np.linalg.cholesky(covariance) @ draw.standard_normal(codes.shape[1]))
    return np.array(chosen)


few = unseen[[typical(d) for d in DIGITS]]
rebuilt = model(few).detach()
tg.viz.save_rows(out / "reconstructions.png", {"unseen": few, "rebuilt": rebuilt}, title="Through 32 numbers")

model.fit_codes(seen)
one_gaussian = model.sample(50, rng=tg.Generator(args.seed + 1, device=args.device))
with tg.no_grad():
    codes = model.encode(seen).numpy().astype(np.float64)
    drawn = model.decode(tg.tensor(from_twenty_gaussians(codes, 50), dtype=tg.float32, device=args.device))
tg.viz.save_grid(
    out / "generated.png",
    tg.cat([one_gaussian, drawn]),
    ncols=10,
    row_labels=["one Gaussian", *[""] * 4, "mixture of 20", *[""] * 4],
    title="Digits drawn from codes",
)

# %% [markdown]
# ## Cleaning
#
# The denoising autoencoder has learned where images are, and takes what is not an image to the nearest one.

# %%
spoiled = tg.models.corrupt(few, *cleaner.noise, rng=tg.Generator(args.seed + 2, device=args.device))
cleaned = cleaner(spoiled).detach()
tg.viz.save_rows(
    out / "denoising.png",
    {"unseen": few, "spoiled": spoiled, "cleaned": cleaned},
    title=f"Gaussian noise, σ = {cleaner.noise[1]}",
)
all_spoiled = tg.models.corrupt(unseen, *cleaner.noise, rng=tg.Generator(args.seed + 2, device=args.device))
with tg.no_grad():
    error_before = (all_spoiled - unseen).square().mean().item()
    error_after = (cleaner(all_spoiled) - unseen).square().mean().item()

# %% [markdown]
# ## The map of codes, and what is wrong with it
#
# Two numbers for each image: nothing told the network the labels, and yet the digits lie in heaps. But the heaps have
# no order or scale anyone asked for, with holes between them, and equal steps through the code do not make equal
# steps of the image: of the paths between all pairs of digits the most uneven one is drawn.

# %%
with tg.no_grad():
    tg.viz.save_latent_map(
        out / "latent_map.png", flat.encode(unseen), labels, title="Codes of unseen digits, two numbers each"
    )
paths = {(a, b): flat.path(few[a], few[b], steps=21) for a in DIGITS for b in DIGITS if a < b}
uneven = {pair: (d.max() / d.mean()).item() for pair, (_, d) in paths.items()}
mean_unevenness = float(np.mean(list(uneven.values())))
worst = max(uneven, key=lambda pair: uneven[pair])
frames, distances = paths[worst]
tg.viz.save_grid(
    out / "path.png",
    frames,
    ncols=21,
    captions=["", *(f"{d:.2f}" for d in distances.tolist())],
    title=f"Equal steps of the code from {worst[0]} to {worst[1]}; below, how far the image moved "
    f"(largest/mean {uneven[worst]:.1f}; over all pairs {mean_unevenness:.1f})",
)

# %% [markdown]
# ## Finding what does not belong
#
# Each network `without d` is shown all digits. It rebuilds what it knows; a d, which it has never seen, comes out
# wrong. The error is the alarm: its ROC AUC is the chance that a d scores higher than another digit.

# %%
scores = {d: models[f"without {d}"].reconstruction_error(unseen).numpy() for d in DIGITS}
auc = {str(d): float(roc_auc_score(labels == d, scores[d])) for d in DIGITS}
mean_auc = float(np.mean(list(auc.values())))
tg.viz.save_bars(
    out / "anomaly_auc.png",
    auc,
    reference={"chance": 0.5},
    xlabel="the digit that was never shown",
    ylabel="ROC AUC",
    ylim=(0, 1.08),
    title=f"How surely an unknown digit is found (mean {mean_auc:.3f})",
)
odd = max(auc, key=lambda d: auc[d])
tg.viz.save_histogram(
    out / "anomaly_scores.png",
    {"other digits": scores[int(odd)][labels != int(odd)], f"{odd}, never shown": scores[int(odd)][labels == int(odd)]},
    xlabel="mean square error of the rebuilt image",
    title=f"The network that never saw a {odd}",
)

# %% [markdown]
# ## Grouping without labels
#
# k-means on the codes finds ten groups. Labels are used only to judge it: each group is called by the digit that makes
# the most hits in all (the Hungarian method), beside the same done to the pixels.


# %%
def grouped(points: np.ndarray) -> tuple[float, float]:
    """Accuracy under the best naming of the ten groups, and normalised mutual information with the labels."""
    groups = KMeans(10, n_init=1 if args.quick else 10, random_state=args.seed).fit_predict(points)
    hits = np.array([[np.sum((groups == k) & (labels == d)) for d in DIGITS] for k in range(10)])
    naming = linear_sum_assignment(-hits)
    return float(hits[naming].sum() / len(labels)), float(normalized_mutual_info_score(labels, groups))


with tg.no_grad():
    by_code = grouped(model.encode(unseen).numpy())
by_pixel = grouped(unseen.flatten(1).numpy())

# %% [markdown]
# ## What came out

# %%
results = {
    "reconstruction error (mean square, unseen)": model.reconstruction_error(unseen).mean().item(),
    "the same, code of two numbers": flat.reconstruction_error(unseen).mean().item(),
    "the same, one layer of 16": models["plain"].reconstruction_error(unseen).mean().item(),
    "spoiled images, mean square error": error_before,
    "the same, cleaned": error_after,
    "largest / mean step along a path, mean over pairs": mean_unevenness,
    "largest / mean step along the worst path": uneven[worst],
    "anomaly ROC AUC, mean over held-out digits": mean_auc,
    **{f"anomaly ROC AUC, {d}": value for d, value in auc.items()},
    "clustering accuracy, codes": by_code[0],
    "clustering NMI, codes": by_code[1],
    "clustering accuracy, pixels": by_pixel[0],
    "clustering NMI, pixels": by_pixel[1],
}
tg.viz.save_rows(
    out / "autoencoder.png",
    {"unseen": few, "rebuilt": rebuilt, "spoiled": spoiled, "cleaned": cleaned, "drawn": drawn[:10]},
)
common.report(args, results)
