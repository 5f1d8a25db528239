"""Attention: PyTorch's values and gradients for every mask, dropout of the weights, nothing to attend to, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.testing import check_grad, strict_cupy
from tinygen_tests.draws import numbers, seeds, stream
from tinygen_tests.judge import judge, torch

L, S, D, E = 3, 4, 5, 2
attention = F.scaled_dot_product_attention


def theirs(*args, **kwargs):
    return torch.nn.functional.scaled_dot_product_attention(*args, **kwargs)


def qkv(seed, lead):
    return [numbers(seed + i, (*lead, n, d)) for i, (n, d) in enumerate([(L, D), (S, D), (S, E)])]


leads = st.sampled_from([(1,), (2,), (2, 3), (0, 2)])


@settings(max_examples=25)
@given(lead=leads, causal=st.booleans(), scale=st.sampled_from([None, 0.3, 2.0]), seed=seeds)
def test_agrees_with_pytorch(lead, causal, scale, seed):
    kwargs = {"is_causal": causal, "scale": scale}
    judge(lambda *a: attention(*a, **kwargs), lambda *a: theirs(*a, **kwargs), *qkv(seed, lead))


@settings(max_examples=20)
@given(lead=leads, mask=st.sampled_from([(L, S), (1, S), (L, 1), (S,)]), seed=seeds)
def test_additive_masks_agree_with_pytorch_and_have_gradients(lead, mask, seed):
    judge(attention, theirs, *qkv(seed, lead), numbers(seed, mask))


@settings(max_examples=20)
@given(lead=leads, mask=st.sampled_from([(L, S), (1, S), (L, 1)]), seed=seeds)
def test_boolean_masks_agree_with_pytorch_also_where_all_is_masked(lead, mask, seed):
    allowed = np.random.default_rng(seed).random(mask) < 0.5
    allowed[0] = False
    judge(attention, theirs, *qkv(seed, lead), allowed)


def test_gradients_of_two_orders_without_pytorch():
    check_grad(attention, *qkv(0, (2,)))
    check_grad(lambda *a: attention(*a, is_causal=True), *qkv(1, (1,)))
    check_grad(lambda x: attention(x, x, x), numbers(2, (1, 3, 2)))


def test_is_what_the_formula_says():
    q, k, v = qkv(0, (2,))
    e = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(D))
    expected = e / e.sum(2, keepdims=True) @ v
    np.testing.assert_allclose(attention(*map(tg.Tensor, (q, k, v))), expected, rtol=1e-12)


def test_a_query_that_may_attend_to_nothing_gets_zero_and_gives_no_gradient():
    q, k, v = (tg.tensor(a, requires_grad=True) for a in qkv(0, (1,)))
    for mask in (tg.zeros(L, S, dtype="bool"), tg.full((L, S), -math.inf, dtype="float64")):
        y = attention(q, k, v, mask)
        dq, dv = tg.grad(y, [q, v], tg.tensor(numbers(9, y.shape)))
        assert not y.detach().numpy().any() and not dq.numpy().any() and not dv.numpy().any()


def test_the_first_causal_query_sees_the_first_value_alone():
    q, k, v = (tg.Tensor(a) for a in qkv(0, (1,)))
    np.testing.assert_allclose(attention(q, k, v, is_causal=True)[0, 0], v[0, 0], rtol=1e-14)


def test_one_group_of_keys_serves_many_queries():
    q, k, v = (numbers(i, s) for i, s in enumerate([(2, 3, L, D), (1, 1, S, D), (1, 1, S, E)]))
    y = attention(*map(tg.Tensor, (q, k, v)))
    each = [attention(tg.Tensor(q[i, j]), tg.Tensor(k[0, 0]), tg.Tensor(v[0, 0])) for i in range(2) for j in range(3)]
    np.testing.assert_allclose(y.reshape(6, L, E), tg.stack(each), rtol=1e-12)


def test_dropout_drops_weights_and_keeps_their_expectation():
    q, k = tg.zeros(1, 200, D), tg.zeros(1, 50, D)
    v = tg.ones(1, 50, E)
    y = attention(q, k, v, dropout_p=0.5, rng=stream(0))
    z = attention(q, k, v, dropout_p=0.5, rng=stream(0))
    assert y.tolist() == z.tolist()
    # Every y is 2/50 times how many of the 50 weights were kept.
    np.testing.assert_allclose((y * 25).numpy(), np.round((y * 25).numpy()), atol=1e-4)
    assert 0 < y.var().item() and abs(y.mean().item() - 1) < 5 * 0.14 / 200**0.5
    assert attention(q, k, v, dropout_p=1.0).sum().item() == 0


def test_float32_large_scores_and_memory():
    q, k, v = (a.astype("float32") * 1000 for a in qkv(0, (2,)))
    y = attention(*map(tg.Tensor, (q, k, v)))
    assert y.dtype == tg.float32 and np.isfinite(y.numpy()).all()


@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal"])
def test_on_the_strict_stand_in_for_cupy(kind):
    arrays = [a.astype("float32") for a in qkv(0, (2,))]
    mask = {"bool": np.tri(L, S, dtype=bool), "float": numbers(1, (L, S)).astype("float32")}.get(kind)
    expected = attention(
        *map(tg.Tensor, arrays), None if mask is None else tg.Tensor(mask), is_causal=kind == "causal"
    ).numpy()
    with strict_cupy():
        q, k, v = (tg.Tensor(a).to("cuda").requires_grad_() for a in arrays)
        m = None if mask is None else tg.Tensor(mask).to("cuda")
        y = attention(q, k, v, m, is_causal=kind == "causal", dropout_p=0.0)
        (d,) = tg.grad((y * y).sum(), [q], create_graph=True)
        tg.grad((d * d).sum(), [k])
        np.testing.assert_allclose(y.detach().to("cpu"), expected, rtol=1e-4, atol=1e-5)


def test_errors_name_what_came():
    q, k, v = (tg.Tensor(a) for a in qkv(0, (2,)))
    with pytest.raises(ValueError, match=r"got query \(2, 3, 5\), key \(2, 4, 2\), value \(2, 4, 5\)"):
        attention(q, v, k)
    with pytest.raises(ValueError, match=r"value \(2, 3, 5\)"):
        attention(q, k, q)
    with pytest.raises(ValueError, match=r"query \(5,\)"):
        attention(q[0, 0], k, v)
    with pytest.raises(TypeError, match="query float64, key float32, value float64"):
        attention(q, k.float(), v)
    with pytest.raises(ValueError, match="attn_mask and is_causal=True exclude each other"):
        attention(q, k, v, tg.zeros(L, S, dtype="bool"), is_causal=True)
    with pytest.raises(TypeError, match="attn_mask must be boolean or float64 as query is, got int64"):
        attention(q, k, v, tg.zeros(L, S, dtype="int64"))
    with pytest.raises(ValueError, match=r"attn_mask \(5, 3, 4\) does not broadcast to the scores .* \(2, 3, 4\)"):
        attention(q, k, v, tg.zeros(5, L, S, dtype="bool"))
    with pytest.raises(ValueError, match=r"attn_mask \(7, 1, 3, 4\) does not broadcast to the scores .* \(2, 3, 4\)"):
        attention(q, k, v, tg.zeros(7, 1, L, S, dtype="float64"))
    with pytest.raises(ValueError, match=r"dropout: expected p in \[0, 1\], got 2"):
        attention(q, k, v, dropout_p=2)
    with pytest.raises(TypeError, match="enable_gqa"):
        attention(q, k, v, enable_gqa=True)
