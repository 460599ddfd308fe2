"""What holds for all unit tests."""

import os

from hypothesis import settings

# How long an example takes says more about the machine's other work than about ours. And the same
# tests are the same every time: HYPOTHESIS_PROFILE=anew looks for examples that nobody has seen.
settings.register_profile("wherry", deadline=None, derandomize=True)
settings.register_profile("anew", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "wherry"))
