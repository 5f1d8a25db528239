"""The suite's own option: pytest looks for options here, and not in tinygen_tests/, before it reads the arguments."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--backend``; tinygen_tests/conftest.py says what it does."""
    parser.addoption(
        "--backend",
        choices=["numpy", "strict", "cupy"],
        default="numpy",
        help="where tensors are made that name no device: NumPy, the strict stand-in for CuPy, or a GPU",
    )
