"""What every test shares: one deterministic Hypothesis profile."""

import os

from hypothesis import settings

# The same examples in every run, so that a red run is red for everybody; no deadline, because a slow
# machine is not a wrong gradient. HYPOTHESIS_PROFILE=search looks for new examples instead.
settings.register_profile("tinygen", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tinygen"))
