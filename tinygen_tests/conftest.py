"""What every test shares: one deterministic Hypothesis profile, and the same defaults at the start."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

import tinygen as tg

# The same examples in every run, so that a red run is red for everybody; no deadline, because a slow
# machine is not a wrong gradient. HYPOTHESIS_PROFILE=search looks for new examples instead.
settings.register_profile("tinygen", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tinygen"))


@pytest.fixture(autouse=True)
def the_same_defaults() -> Iterator[None]:
    """The default dtype, device and generator are tinygen's only global state: no test inherits another's."""
    dtype, device = tg.get_default_dtype(), tg.get_default_device()
    tg.manual_seed(0)
    yield
    tg.set_default_dtype(dtype)
    tg.set_default_device(device)
