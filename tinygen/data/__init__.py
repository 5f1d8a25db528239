"""Data: the bundled digits, MNIST from its files, two-dimensional toy densities, and batches of them all."""

from tinygen.data.dataset import Dataset, stratified_test_mask
from tinygen.data.densities import Checkerboard, Density, GaussianMixture, NoisyCurves, Pinwheel
from tinygen.data.digits import digits
from tinygen.data.download import fetch
from tinygen.data.errors import DataFileError, DownloadError
from tinygen.data.idx import read_idx
from tinygen.data.loader import DataLoader
from tinygen.data.mnist import mnist
from tinygen.data.toy import toy, toy_density, toy_names

__all__ = [
    "Checkerboard",
    "DataFileError",
    "DataLoader",
    "Dataset",
    "Density",
    "DownloadError",
    "GaussianMixture",
    "NoisyCurves",
    "Pinwheel",
    "digits",
    "fetch",
    "mnist",
    "read_idx",
    "stratified_test_mask",
    "toy",
    "toy_density",
    "toy_names",
]
