"""Bugs of the GPU's kernels, of captured steps, and of batches that travel ahead; seen on the stand-in."""

from tinygen_tests.mutants.mutant import Mutant

KERNELS = "kernels/gpu/test_kernels.py"
GRAPHS = "cuda/test_graphs.py"
CONVOLUTIONS = f"{KERNELS}::test_convolutions_are_their_definitions"

MUTANTS = [
    Mutant(
        "gpu-convolution-forgets-the-last-slice",
        "tinygen/kernels/gpu/convolution_source.py",
        "bool real = k0 + k < K && o0 + m < o;",
        "bool real = k0 + k < K - 1 && o0 + m < o;",
        "the last tap of the last channel counts as 0",
        CONVOLUTIONS,
    ),
    Mutant(
        "gpu-transposed-convolution-takes-the-wrong-phase",
        "tinygen/kernels/gpu/convolution_source.py",
        "if ((r + p - d * u) % s == 0) {",
        "if ((r + p + d * u) % s == 0) {",
        "with stride 3 a pixel meets other taps than those that painted it",
        CONVOLUTIONS,
    ),
    Mutant(
        "gpu-filter-gradient-loses-pixels-between-blocks",
        "tinygen/kernels/gpu/convolution.py",
        "    splits = -(-N * P // each)\n",
        "    splits = max(1, N * P // each)\n",
        "the pixels that do not fill a share are in no block's",
        (f"{KERNELS}::test_tall_tiles_and_split_sums", CONVOLUTIONS),
    ),
    Mutant(
        "gpu-norm-gradient-without-the-mean",
        "tinygen/kernels/gpu/normalization.py",
        "out[i] = r * (k - mean_g - slope * (x[i] - m));",
        "out[i] = r * (k - slope * (x[i] - m));",
        "M(γg) is not subtracted",
        f"{KERNELS}::test_normalisation_with_weight_and_bias*",
    ),
    Mutant(
        "gpu-variance-from-squares",
        "tinygen/kernels/gpu/normalization.py",
        "EACH(i) { T d = x[i] - m; s += d * d; }\n    T v = block_sum(s, shared) / count;",
        "EACH(i) s += x[i] * x[i];\n    T v = block_sum(s, shared) / count - m * m;",
        "E[x²] − μ² loses the variance of near-equal numbers",
        f"{KERNELS}::test_the_variance_of_near_equal_numbers_survives",
    ),
    Mutant(
        "gpu-softmax-without-the-largest",
        "tinygen/kernels/gpu/rows.py",
        "T e = exp(x[at + i] - m); y[at + i] = e; total += e;",
        "T e = exp(x[at + i]); y[at + i] = e; total += e;",
        "large numbers overflow; a row that is −∞ throughout is 0 though not safe",
        f"{KERNELS}::test_safe_softmax_is_0_where_nothing_is_left",
    ),
    Mutant(
        "gpu-optimizer-misses-the-arrays-after-the-table",
        "tinygen/kernels/gpu/parameters.py",
        "for begin in range(0, len(rows), _ARRAYS):",
        "for begin in range(0, min(len(rows), _ARRAYS), _ARRAYS):",
        "the 65th parameter and those after it stay where they are",
        f"{KERNELS}::test_an_optimizer_moves_all_parameters_as_one_by_one*",
    ),
    Mutant(
        "gpu-product-reads-a-transposed-operand-as-it-lies",
        "tinygen/kernels/gpu/blas.py",
        "handle.pointer, int(b.transposed), int(a.transposed), n, m, k,",
        "handle.pointer, int(b.transposed), int(b.transposed), n, m, k,",
        "A is transposed where B is",
        f"{KERNELS}::test_products_read_their_operands_where_they_lie*",
    ),
    Mutant(
        "capture-keeps-the-first-rate",
        "tinygen/cuda/graphs.py",
        "            numbers = [float(v) for v in following()]\n",
        "            numbers = self.__dict__.setdefault('once', [float(v) for v in following()])\n",
        "the learning rate and Adam's t of the recording go on for ever",
        f"{GRAPHS}::test_a_rate_that_a_schedule_changes_reaches_the_replays",
    ),
    Mutant(
        "capture-hands-out-what-the-next-replay-overwrites",
        "tinygen/cuda/graphs.py",
        "copies = {dtype: pack.copy() for dtype, pack in self._packs.items()}",
        "copies = dict(self._packs)",
        "a loss that was kept changes with the next step",
        f"{GRAPHS}::test_a_captured_step_trains_as_the_plain_one_and_nobody_waits*",
    ),
    Mutant(
        "capture-does-not-copy-the-batch",
        "tinygen/cuda/graphs.py",
        "            static.data[...] = given.data\n",
        "            pass\n",
        "every replay trains on the recorded batch",
        f"{GRAPHS}::test_a_captured_step_trains_as_the_plain_one_and_nobody_waits*",
    ),
    Mutant(
        "capture-forgets-replaced-buffers",
        "tinygen/cuda/graphs.py",
        "            first.data[...] = getattr(owner, name).data\n",
        "            pass\n",
        "spectral norm's u and v stay those of the recording",
        f"{GRAPHS}::test_a_captured_step_trains_as_the_plain_one_and_nobody_waits*",
    ),
    Mutant(
        "prefetch-gives-the-batch-after",
        "tinygen/data/loader.py",
        "following = self._ahead.start(self._arrays, self._index(order, after))",
        "following = self._ahead.start(self._arrays, self._index(order, after + 1))",
        "batches are left out",
        "data/test_loader.py::test_batches_that_travel_ahead_are_the_same_batches*",
    ),
]
