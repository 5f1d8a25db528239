"""Metrics: how good drawn samples are, with what a perfect model would get beside each figure."""

from tinygen.metrics.classes import ClassReport, class_report
from tinygen.metrics.classifier import DigitClassifier, about_classifier, digit_classifier
from tinygen.metrics.copying import Copying, copying
from tinygen.metrics.frechet import frechet_between, frechet_distance, frechet_floor
from tinygen.metrics.judge import judge_samples
from tinygen.metrics.likelihood import LikelihoodEstimate, importance_log_likelihood, iwae_bound
from tinygen.metrics.manifold import PrecisionRecall, precision_recall
from tinygen.metrics.mmd import MMDTest, median_distance, mmd2, mmd_test
from tinygen.metrics.parzen import ParzenEstimate, parzen_log_likelihood
