"""What holds for all unit tests."""

from hypothesis import settings

# How long an example takes says more about the machine's other work than about ours.
settings.register_profile("wherry", deadline=None)
settings.load_profile("wherry")
