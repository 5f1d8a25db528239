"""Fetching a data file: known checksum, several mirrors, whole or not at all. pooch does the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tinygen.data.errors import DownloadError

# Folders that hold the four official gzip files, unchanged.
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TIMEOUT = 30.0


def cache_folder() -> Path:
    """Where fetched data goes when the user names no folder.

    The environment variable TINYGEN_DATA names it; where that is not set, it is the operating system's cache
    folder for tinygen.

    Raises:
        ModuleNotFoundError: TINYGEN_DATA is not set, and pooch, which knows each system's place, is missing.
    """
    chosen = os.environ.get("TINYGEN_DATA")
    return Path(chosen) if chosen else Path(_pooch().os_cache("tinygen"))


def fetch(
    name: str, md5: str, folder: str | os.PathLike[str], mirrors: Sequence[str], timeout: float = TIMEOUT
) -> Path:
    """Fetch ``name`` into ``folder`` from the first mirror that serves it with the right checksum; its path.

    The file appears under its name only when it is whole: pooch writes a temporary file beside it, checks
        that,
    and renames it.

    Args:
        name: the file's name, in the folder and on every mirror.
        md5: the checksum, 32 hexadecimal digits. A file in the folder that has it already is not fetched
            again; one that does not is left alone.
        folder: where the file goes; made where it is missing.
        mirrors: addresses of folders, tried in this order; each fails by itself (offline, 404, cut off, wrong
            checksum) without harm to the next.
        timeout: seconds to wait for a connection, and for each piece.

    Raises:
        DownloadError: every mirror failed (the message lists each with its reason), the folder cannot be
            made, or another file of that name is there already.
        ModuleNotFoundError: pooch is not installed.
        ValueError: mirrors is empty, or one string.
    """
    if isinstance(mirrors, str) or not mirrors:
        raise ValueError(f"mirrors must be a list of addresses, at least one, got {mirrors!r}")
    pooch = _pooch()
    folder, known_hash = Path(folder), f"md5:{md5}"
    target = folder / name
    if target.exists():
        # pooch would replace it; whatever the user put there is not ours to delete.
        if target.is_file() and pooch.file_hash(str(target), alg="md5") == md5.lower():
            return target
        raise DownloadError(
            f"{target}: a different file of this name is there already (expected MD5 {md5}); "
            "move or delete it, then try again"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"{folder}: cannot be made to hold {name} ({error.strerror}); choose another folder"
        ) from error

    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            return Path(
                pooch.retrieve(
                    url,
                    known_hash,
                    fname=name,
                    path=str(folder),
                    downloader=pooch.HTTPDownloader(timeout=timeout),
                )
            )
        except (OSError, ValueError) as error:
            # requests raises OSError, and pooch ValueError for a wrong checksum.
            failures.append(f"  {url}: {_reason(error)}")
    raise DownloadError(
        f"{name} could not be fetched; every mirror failed:\n"
        + "\n".join(failures)
        + f"\nIs there a network? Otherwise put the file (MD5 {md5}) into {folder} by hand."
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:400]}{'…' if len(text) > 400 else ''}"


def _pooch() -> ModuleType:
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "fetching data needs pooch: python -m pip install pooch (or tinygen[demos]); "
            "or put the files into a folder yourself and pass its path",
            name=error.name,
        ) from error
    return pooch
