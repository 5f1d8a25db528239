"""MNIST from its four IDX files, in a folder of yours or fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinygen.data.dataset import Dataset, stratified_test_mask
from tinygen.data.download import MNIST_MIRRORS, cache_folder, fetch
from tinygen.data.errors import DataFileError
from tinygen.data.idx import content_md5, read_idx

# The official gzip files. MD5 as published by torchvision and checked here on the two test files.
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
# The same files unpacked, and those of Fashion-MNIST, which go by the same names. MD5 as published in several places
# and, for MNIST's test files, checked here.
CONTENTS = {
    "mnist": {
        "train-images": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels": "a25bea736e30d166cdddb491f175f624",
        "t10k-images": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
OFFICIAL_SIZES = {"train": 60_000, "t10k": 10_000}
# The files behind each split, in order.
FILES = {
    "train": ("train",),
    "test": ("t10k",),
    "all": ("train", "t10k"),
    "t10k-train": ("t10k",),
    "t10k-test": ("t10k",),
}
T10K_HELD_OUT = 0.2


def mnist(
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    download: bool = False,
    mirrors: Sequence[str] = MNIST_MIRRORS,
    check: bool = True,
) -> Dataset:
    """Load MNIST: 28×28 handwritten digits, 60,000 to train on and 10,000 to test.

    Images: float32 (N, 1, 28, 28) in [0, 1]: the stored 0..255 divided by 255. Labels: int64 (N,) in 0..9.

    ============== ====== =======================================
    split          images from
    ============== ====== =======================================
    ``train``      60,000 the official training files
    ``test``       10,000 the official test files, ``t10k-...``
    ``all``        70,000 both, training first
    ``t10k-train`` 8,000  four fifths of the official *test* files
    ``t10k-test``  2,000  the other fifth of them
    ============== ====== =======================================

    The last two are for those who have the test files alone. They are not the protocol of the literature: say
    so beside every figure. Their split is fixed by ``stratified_test_mask``: every digit gives a fifth,
    spaced evenly through the file, whose first half is the easier one.

    Args:
        root: the folder of the IDX files, gzip or plain, named ``train-images-idx3-ubyte`` or
            ``train-images.idx3-ubyte``, with or without ``.gz``. None: ``mnist`` in tinygen's cache folder.
        split: one of the five. Only the files that it needs are read, looked for or fetched.
        download: fetch missing files into root first, checksums verified. Files that are there stay as they
            are.
        mirrors: addresses of folders to fetch from, tried in this order.
        check: files of the official size must hold what MNIST's or Fashion-MNIST's hold, byte for byte. False takes
            any other set of that size and form. Files of another size (a part of MNIST) are never compared: in a
            gzip a changed byte is found all the same, in a plain file a changed pixel is not.

    Raises:
        ValueError: split is none of the five.
        DataFileError: a file is missing (the message lists every name looked for), damaged, or not MNIST;
            images and labels differ in number, or one is of MNIST and the other of Fashion-MNIST; a label is above 9.
        DownloadError: no mirror gave a file.
        ModuleNotFoundError: download=True or root=None, without pooch.

    Source: LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998;
    files by LeCun, Cortes and Burges.
    """
    if split not in FILES:
        raise ValueError(f"mnist(split=...) must be one of {', '.join(map(repr, FILES))}, got {split!r}")
    folder = cache_folder() / "mnist" if root is None else Path(root)
    parts = []
    names = set()
    for prefix in FILES[split]:
        x_file, y_file = (_locate(folder, prefix, kind, download, mirrors) for kind in ("images", "labels"))
        parts.append(_read_pair(x_file, y_file))
        names.add(_check_contents(prefix, x_file, y_file, *parts[-1]) if check else "mnist")
    name = names.pop()
    if names:
        raise DataFileError(f"{folder} holds the training files of one data set and the test files of another")
    images = np.concatenate([i for i, _ in parts]) if len(parts) > 1 else parts[0][0]
    labels = np.concatenate([y for _, y in parts]) if len(parts) > 1 else parts[0][1]

    if split.startswith("t10k"):
        held_out = stratified_test_mask(labels, round(T10K_HELD_OUT * len(labels)))
        keep = held_out if split == "t10k-test" else ~held_out
        images, labels = images[keep], labels[keep]
    x = images[:, None].astype(np.float32)
    x /= 255
    return Dataset(x, labels.astype(np.int64), f"{name} ({split})", tuple("0123456789"))


def _names(prefix: str, kind: str) -> list[str]:
    """The four names one file goes by; the official one first."""
    d = 3 if kind == "images" else 1
    return [f"{prefix}-{kind}{sep}idx{d}-ubyte{end}" for sep in ("-", ".") for end in (".gz", "")]


def _locate(folder: Path, prefix: str, kind: str, download: bool, mirrors: Sequence[str]) -> Path:
    names = _names(prefix, kind)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if download:
        return fetch(names[0], MD5[names[0]], folder, mirrors)
    state = "" if folder.is_dir() else " (there is no such folder)"
    raise DataFileError(
        f"MNIST {prefix} {kind} not found in {folder}{state}: looked for {', '.join(names)}. Put one "
        "of these files there, or pass download=True to fetch it"
    )


def _check_contents(prefix: str, image_file: Path, label_file: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """Whose files these are: "mnist" or "fashion-mnist"; files of other sizes than theirs pass for mnist."""
    if len(images) != OFFICIAL_SIZES[prefix]:
        return "mnist"
    found = []
    for kind, file, array in (("images", image_file, images), ("labels", label_file, labels)):
        md5 = content_md5(array)
        found.append(next((name for name, sums in CONTENTS.items() if sums[f"{prefix}-{kind}"] == md5), None))
        if found[-1] is None:
            raise DataFileError(
                f"{file}: has the size of MNIST's file and other contents (MD5 {md5}, expected "
                f"{CONTENTS['mnist'][f'{prefix}-{kind}']}); it is damaged: download it again, or, if it is another "
                "data set on purpose, pass check=False"
            )
    if found[0] != found[1]:
        raise DataFileError(
            f"{image_file} is of {found[0]}, but {label_file} of {found[1]}; they belong to different sets"
        )
    return str(found[0])


def _read_pair(image_file: Path, label_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """images uint8 (N, 28, 28) and labels uint8 (N,), checked against each other."""
    images = read_idx(image_file, dtype=np.uint8, ndim=3)
    labels = read_idx(label_file, dtype=np.uint8, ndim=1)
    if images.shape[1:] != (28, 28):
        raise DataFileError(
            f"{image_file}: expected images of 28×28 pixels, but they are "
            f"{images.shape[1]}×{images.shape[2]}; is it another data set?"
        )
    if len(images) != len(labels):
        raise DataFileError(
            f"{image_file} holds {len(images):,} images, but {label_file} holds {len(labels):,} labels; "
            "they belong to different sets: download both again"
        )
    if len(images) == 0:
        raise DataFileError(f"{image_file}: expected MNIST images, but the file holds none; download it again")
    if labels.max() > 9:
        raise DataFileError(
            f"{label_file}: expected labels 0..9, but label {labels.max()} occurs; is it another data "
            "set (EMNIST has more classes), or damaged?"
        )
    return images, labels
