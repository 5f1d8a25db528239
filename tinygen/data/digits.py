"""The bundled digits: 1,797 handwritten digits of 8×8 pixels, so that everything runs without a download."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from tinygen.data.dataset import Dataset, stratified_test_mask
from tinygen.data.errors import DataFileError
from tinygen.npy import read_npy

DIGITS_FILE = Path(__file__).with_name("digits.npz")
N_TEST = 297
SPLITS = ("all", "train", "test")


def digits(split: str = "all") -> Dataset:
    """Load the handwritten digits of 8×8 pixels that come with tinygen.

    Images: float32 (N, 1, 8, 8) in [0, 1]: the stored 0..16 divided by 16. Labels: int64 (N,) in 0..9.

    The split is fixed: ``stratified_test_mask`` takes 297 images evenly spaced through the images sorted by
    digit, so every digit gives about a sixth, to within one image. The parts keep the order of the file. The
    same writers occur in both parts, so test figures are for familiar handwriting.

    Args:
        split: ``"all"`` (1,797 images), ``"train"`` (1,500) or ``"test"`` (297).

    Raises:
        ValueError: split is none of the three.
        DataFileError: the bundled file is missing or damaged.

    Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits* (test set), UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; as scikit-learn 1.9.1 distributes
    it.
    """
    if split not in SPLITS:
        raise ValueError(f"digits(split=...) must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    images, labels = _load(DIGITS_FILE)
    x = (images.astype(np.float32) / 16)[:, None]
    everything = Dataset(x, labels.astype(np.int64), "digits", tuple("0123456789"))
    if split == "all":
        return everything
    test = stratified_test_mask(labels, N_TEST)
    return everything.subset(test if split == "test" else ~test, f"digits ({split})")


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """images uint8 (1797, 8, 8) and labels uint8 (1797,) from the bundled file, or one clear error."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _member(archive, "images.npy"), _member(archive, "labels.npy")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(
            f"{path}: expected the digits bundled with tinygen, but it cannot be read ({error}); install tinygen again"
        ) from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return read_npy(file, archive.getinfo(name).file_size)
