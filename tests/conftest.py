"""How Hypothesis tries things here: a test that passed passes again, however slow the machine is.

Its own profile for CI takes the same examples each time, and no notice of how long they take. `make explore` takes
others each time, to find what these leave out.
"""

from hypothesis import settings

settings.register_profile("explore", settings.get_profile("ci"), derandomize=False)
settings.load_profile("ci")
