"""Adam's formula, number by number."""

from __future__ import annotations

import math

import numpy as np

import tinygen as tg
from tinygen import nn, optim


def lecture(w, gradients, α=0.1, β1=0.9, β2=0.999, ε=1e-3):
    """The lectures' lines, with ε where Kingma & Ba's Algorithm 1 has it: outside the root."""
    s = r = 0.0
    for t, g in enumerate(gradients, 1):
        s = β1 * s + (1 - β1) * g
        r = β2 * r + (1 - β2) * g**2
        s_tilde = s / (1 - β1**t)
        r_tilde = r / (1 - β2**t)
        w = w - α * s_tilde / (math.sqrt(r_tilde) + ε)
    return w


def test_the_lectures_formula_with_the_papers_epsilon():
    gradients = [0.3, -2.0, 0.001, 5.0, -0.2]
    p = nn.Parameter(np.array([1.5]))
    optimizer = optim.Adam([p], lr=0.1, eps=1e-3)
    for g in gradients:
        p.grad = tg.Tensor(np.array([g]))
        optimizer.step()
    np.testing.assert_allclose(p.data, [lecture(1.5, gradients)], rtol=1e-14)


def test_epsilon_stands_outside_the_root():
    # With v̂ = g² after one step, the move is α·g/(|g| + ε) outside the root, α·g/√(g² + ε) inside.
    p = nn.Parameter(np.array([0.0]))
    p.grad = tg.Tensor(np.array([0.01]))
    optim.Adam([p], lr=1.0, eps=0.01).step()
    np.testing.assert_allclose(p.data, [-0.5], rtol=1e-12)


def test_the_first_step_has_length_lr_whatever_the_gradient():
    p = nn.Parameter(np.zeros(4))
    p.grad = tg.Tensor(np.array([1e-6, -1.0, 1e6, -1e-3]))
    optim.Adam([p], lr=0.25, eps=0.0).step()
    np.testing.assert_allclose(p.data, [-0.25, 0.25, -0.25, 0.25], rtol=1e-12)


def test_adamw_decays_beside_the_step():
    p = nn.Parameter(np.array([2.0]))
    p.grad = tg.Tensor(np.array([1.0]))
    optim.AdamW([p], lr=0.1, weight_decay=0.5, eps=0.0).step()
    np.testing.assert_allclose(p.data, [2.0 * (1 - 0.1 * 0.5) - 0.1], rtol=1e-12)


def test_amsgrad_divides_by_the_largest_average():
    p = nn.Parameter(np.array([0.0]))
    optimizer = optim.Adam([p], lr=1.0, betas=(0.0, 0.0), eps=0.0, amsgrad=True)
    for g in (4.0, 1.0):
        p.grad = tg.Tensor(np.array([g]))
        optimizer.step()
    np.testing.assert_allclose(p.data, [-1.0 - 0.25])
