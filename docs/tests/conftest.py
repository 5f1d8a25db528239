"""What the tests of the site need: the extensions' folder on the path, and the site built once."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, built from nothing, with every warning an error."""
    pytest.importorskip("sphinx", reason="the site is built with the docs extra")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out
