"""Vector quantisation: each vector is replaced by the nearest of K in a codebook, and gradients go straight through.

    k(z) = argmin_j ‖z − e_j‖²,        z_q = e_k(z)

argmin is a step, with no derivative to speak of; so the backward pass pretends that quantisation was the identity, and
hands the gradient of z_q to z as it is: z_q = z + sg[e_k − z], where sg ("stop gradient") is a constant to the
derivative. Two more terms bring the codebook to the vectors and keep the vectors near the codebook:

    L_codebook = ‖sg[z] − e_k‖²,       L_commitment = ‖z − sg[e_k]‖².

The first is k-means, one gradient step at a time, and may be replaced by k-means' own running averages.

Source: van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning* (2017), eq. 1–3, appendix A.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tinygen import nn
from tinygen.backend import array_module
from tinygen.creation import zeros
from tinygen.ops.elementwise import exp, log, where
from tinygen.ops.embedding import embedding, one_hot
from tinygen.random import Generator, randint, randn
from tinygen.ranks import alone, whole
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap


class Quantized(NamedTuple):
    """What a quantizer makes of vectors z (*, D)."""

    z_q: Tensor  # the nearest codes, through which gradients go straight to z; (*, D)
    codes: Tensor  # their numbers k, int64 (*)
    codebook: Tensor  # Σ_D ‖sg[z] − e_k‖², (*); zeros where running averages keep the codebook
    commitment: Tensor  # Σ_D ‖z − sg[e_k]‖², (*)


class VectorQuantizer(nn.Module):
    """z_q = e_k with k = argmin_j ‖z − e_j‖²: a codebook of K vectors of D numbers, the nearest of which replaces z.

    Args:
        codes: K ≥ 1.
        dim: D ≥ 1.
        decay: None: the codebook is learned by gradient, through ``Quantized.codebook``. A number γ in (0, 1):
            :meth:`update` keeps it as a running average of the vectors that were given each code.
        rng: draws the codebook, e ~ N(0, 1/D).

    Raises:
        ValueError: an argument is out of range.

    Source: van den Oord et al. (2017), eq. 1–3, appendix A.1 for the running averages.
    """

    def __init__(self, codes: int = 64, dim: int = 8, decay: float | None = None, rng: Generator | None = None) -> None:
        super().__init__()
        if codes < 1 or dim < 1 or (decay is not None and not 0 < decay < 1):
            raise ValueError(
                f"VectorQuantizer: expected codes ≥ 1, dim ≥ 1 and 0 < decay < 1, got {codes=}, {dim=}, {decay=}"
            )
        self.codes, self.dim, self.decay = codes, dim, decay
        e = randn(codes, dim, rng=rng) / math.sqrt(dim)
        if decay is None:
            self.weight = nn.Parameter(e)
        else:
            self.register_buffer("weight", e)
            self.register_buffer("count", zeros(codes) + 1.0)  # N_j, running average of how many vectors a code got
            self.register_buffer("total", e.clone())  # m_j, running average of their sum

    @no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """k = argmin_j ‖z − e_j‖², from ‖z‖² − 2 z·e_j + ‖e_j‖² without its constant: (*, D) → int64 (*).

        Raises:
            ValueError: the vectors have another length.
        """
        if z.ndim < 1 or z.shape[-1] != self.dim:
            raise ValueError(f"VectorQuantizer: expected vectors (*, {self.dim}), got {z.shape}")
        e = self.weight
        return ((e * e).sum(1) - 2 * (z @ e.mT)).argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """e_k: int64 (*) → (*, D)."""
        return embedding(codes, self.weight)

    def forward(self, z: Tensor) -> Quantized:
        """Vectors z (*, D) → their nearest codes, with both parts of the loss, summed over D."""
        k = self.nearest(z)
        e = self.lookup(k)
        pulled, kept = e - z.detach(), z - e.detach()
        codebook = (pulled * pulled).sum(-1) if self.decay is None else zeros(k.shape, dtype=z.dtype, device=z.device)
        return Quantized(z + (e - z).detach(), k, codebook, (kept * kept).sum(-1))

    @no_grad()
    def update(self, z: Tensor, codes: Tensor, rng: Generator | None = None) -> None:
        """Take vectors z (*, D) with their codes k (*) into the running averages; for ``decay`` γ only.

            N_j ← γN_j + (1 − γ) n_j,    m_j ← γm_j + (1 − γ) Σ_{k=j} z,    e_j = m_j/N_j

        A code that is hardly used any more (N_j below a tenth of the mean) begins anew at one of the z.

        Args:
            rng: picks that z.

        Raises:
            RuntimeError: the codebook is learned by gradient.

        Source: van den Oord et al. (2017), appendix A.1; Dhariwal et al., *Jukebox* (2020), §3.1, for beginning anew.
        """
        if self.decay is None:
            raise RuntimeError("VectorQuantizer.update: the codebook is learned by gradient; make it with decay=0.95")
        γ = self.decay
        # Of processes that train together each takes in the whole batch.
        z, codes = wrap(whole(z.data)), wrap(whole(codes.data))
        flat = z.reshape(-1, self.dim)
        given = one_hot(codes.flatten(), self.codes).to(flat.dtype)
        count = γ * self.count + (1 - γ) * given.sum(0)
        total = γ * self.total + (1 - γ) * (given.mT @ flat)
        unused = (count < 0.1 * count.mean()).unsqueeze(1)
        with alone():
            anew = flat[randint(flat.shape[0], size=(self.codes,), rng=rng, device=flat.device)]
        mean = count.mean()
        total = where(unused, anew * mean, total)
        count = where(unused.squeeze(1), mean, count)
        self.count.copy_(count)
        self.total.copy_(total)
        self.weight.copy_(total / count.unsqueeze(1))


@no_grad()
def perplexity(codes: Tensor, K: int) -> Tensor:
    """exp(−Σ_j p_j ln p_j), p_j the share of code j: how many of the K codes are in use, as if equally. In [1, K].

    Args:
        codes: integers in [0, K), any shape, at least one.
        K: how many codes there are.

    Raises:
        ValueError: there are no codes.
    """
    if not codes.numel():
        raise ValueError("perplexity: expected at least one code, got none")
    p = one_hot(codes.flatten(), K).to("float32").mean(0)
    least = float(array_module(p.data).finfo(p.dtype).tiny)
    return exp(-(p * log(p + least)).sum())
