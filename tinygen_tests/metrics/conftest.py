"""What the tests of the metrics share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of MNIST's test files, where there is one beside the checkout."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "mnist"
    if not any(folder.glob("t10k-images*")):
        pytest.skip("MNIST's test files are not beside the checkout")
    return folder
