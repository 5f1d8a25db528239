"""The shipped classifier does what its file says, and the network what its formula says."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.metrics import DigitClassifier, about_classifier, class_report, classifier, digit_classifier
from tinygen.serialization import CheckpointError
from tinygen_tests.draws import stream
from tinygen_tests.judge import same, torch
from tinygen_tests.nn.beside_torch import to_theirs

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def accuracy(model, images, labels):
    return (model.probabilities(images).numpy().argmax(1) == labels).mean()


def test_the_digits_classifier_is_as_good_as_stated_on_digits_it_never_saw():
    test, model, about = tg.data.digits("test"), digit_classifier("digits"), about_classifier("digits")
    assert about["test_images"] == len(test) == 297
    assert accuracy(model, test.images, test.labels) == about["test_accuracy"] >= 0.99
    assert class_report(model.probabilities(test.images)).confident == about["test_confident"] >= 0.98


def test_the_mnist_classifier_is_as_good_as_stated(mnist_folder):
    test, model, about = tg.data.mnist(mnist_folder, "t10k-test"), digit_classifier("mnist"), about_classifier("mnist")
    assert about["test_images"] == len(test) == 2000
    assert accuracy(model, test.images, test.labels) == about["test_accuracy"] >= 0.985


@pytest.mark.parametrize("kind", ["digits", "mnist"])
def test_what_is_shipped_is_small_and_says_how_it_was_made(kind):
    assert classifier.classifier_file(kind).stat().st_size < 300_000
    about = about_classifier(kind)
    assert about["seed"] == 0 and about["steps"] > 0 and 0.98 < about["train_accuracy"] <= 1


@pytest.mark.parametrize(("kind", "size"), [("digits", 8), ("mnist", 28)])
def test_features_and_probabilities_of_any_number_of_images(kind, size, monkeypatch):
    model = digit_classifier(kind)
    images = tg.rand(7, 1, size, size, rng=stream(0))
    h, p = model.features(images), model.probabilities(images)
    assert h.shape == (7, 64) and p.shape == (7, 10)
    assert h.dtype == p.dtype == tg.float32
    assert not h.requires_grad and not p.requires_grad
    assert (h.numpy() >= 0).all()
    np.testing.assert_allclose(p.numpy().sum(1), 1, rtol=1e-5)
    logits = h.numpy() @ model.head.weight.numpy().T + model.head.bias.numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(p.numpy(), expected, rtol=1e-4, atol=1e-7)
    monkeypatch.setattr(classifier, "CHUNK", 3)
    np.testing.assert_allclose(model.features(images).numpy(), h.numpy(), rtol=1e-4, atol=1e-5)
    from_array = model.features(images.numpy().astype("float64"))
    np.testing.assert_allclose(from_array.numpy(), h.numpy(), rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_alone_and_the_mode_is_left_as_it_was():
    model = DigitClassifier(rng=stream(0))
    x = tg.rand(4, 1, 8, 8, rng=stream(1))
    assert model.training
    assert (model.features(x).numpy() == model.features(x).numpy()).all()
    assert model.training
    assert (model(x, stream(1)).detach().numpy() != model(x, stream(2)).detach().numpy()).any()
    assert (model(x, stream(1)).detach().numpy() == model(x, stream(1)).detach().numpy()).all()
    model.eval()
    assert (model(x).detach().numpy() == model(x).detach().numpy()).all()
    model.features(x)
    assert not model.training


@pytest.mark.parametrize(("shape", "widths"), [((1, 8, 8), (5, 7)), ((2, 13, 10), (3, 4, 6))])
def test_it_is_its_formula(shape, widths):
    """Proves: DigitClassifier, DigitClassifier.embed."""
    model = DigitClassifier(shape, widths, rng=stream(0)).double().eval()
    x = tg.rand(4, *shape, rng=stream(1), dtype="float64")
    f, p = torch.nn.functional, iter(to_theirs(dict(model.named_parameters())).values())
    h = torch.tensor(x.numpy())
    for _ in widths:
        h = f.conv2d(h, next(p), next(p), padding=1).relu()
        h = f.max_pool2d(f.conv2d(h, next(p), next(p), padding=1).relu(), 2)
    h = f.linear(h.flatten(1), next(p), next(p)).relu()
    same(model.embed(x), h)
    a = f.linear(h, next(p), next(p))
    same(model(x), a)
    same(model.probabilities(x), a.softmax(1))


def test_its_weights_are_not_learned_but_gradients_reach_the_images():
    model = digit_classifier()
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    x = tg.rand(2, 1, 8, 8, rng=stream(0)).requires_grad_()
    model.embed(x).sum().backward()
    assert (x.grad.numpy() != 0).any()


def test_two_loads_are_two_models():
    one, other = digit_classifier(), digit_classifier()
    one.head.weight.copy_(tg.zeros_like(one.head.weight))
    assert (other.head.weight.numpy() != 0).all()


def test_errors_say_what_is_needed(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'digits', 'mnist', got 'svhn'"):
        digit_classifier("svhn")
    with pytest.raises(ValueError, match=r"expected images of shape \(N, 1, 8, 8\), got \(2, 1, 28, 28\)"):
        digit_classifier().features(tg.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match="at least one image"):
        digit_classifier().probabilities(np.zeros((0, 1, 8, 8), dtype="float32"))
    with pytest.raises(ValueError, match=r"\(1, 3, 3\) cannot be halved 2 times"):
        DigitClassifier((1, 3, 3), (2, 2))
    monkeypatch.setattr(classifier, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="classifier_digits.npz.*install it again"):
        digit_classifier()
    (tmp_path / "classifier_digits.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(CheckpointError, match=r"classifier_digits\.npz"):
        digit_classifier()
    tg.save({"something": 1}, tmp_path / "classifier_digits.npz")
    with pytest.raises(CheckpointError, match="install it again"):
        digit_classifier()
