"""class_report: counted by hand on a table of probabilities."""

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.metrics import class_report

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")

P = np.array([[0.9, 0.1, 0.0], [0.89, 0.11, 0.0], [0.0, 1.0, 0.0], [0.2, 0.35, 0.45]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counts(dtype):
    report = class_report(tg.tensor(P.astype(dtype)))
    assert report.confident == 0.5, "p equal to the threshold is sure, in either dtype"
    assert report.shares == (0.5, 0.25, 0.25)
    assert report.confident_shares == (0.25, 0.25, 0)
    assert (report.smallest, report.largest) == (0.25, 0.5)
    assert report.entropy == pytest.approx(1.5 * math.log(2))
    assert report.right is None
    assert report.threshold == 0.9


def test_threshold_and_labels():
    assert class_report(P, threshold=0.4).confident == 1
    assert class_report(P, threshold=0.95).confident == 0.25
    for labels in (np.array([0, 1, 1, 1]), tg.tensor([0, 1, 1, 1])):
        assert class_report(P, labels=labels).right == 0.5


def test_a_class_that_is_never_drawn_counts():
    report = class_report(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert report.smallest == 0 and report.largest == 1 and report.entropy == 0


def test_errors_say_what_is_needed():
    for logits in (np.array([[3.0, -2.0]]), np.array([[0.5, 0.6]]), np.array([[1.5, -0.5]])):
        with pytest.raises(ValueError, match="rows of probabilities.*logits"):
            class_report(logits)
    for threshold in (-0.1, 1.1):
        with pytest.raises(ValueError, match="0 ≤ threshold ≤ 1"):
            class_report(P, threshold)
    for labels in ([0, 1], [0.0, 1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="expected labels as 4 integers"):
            class_report(P, labels=np.array(labels))
