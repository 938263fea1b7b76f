"""Names of traker 0.3.2."""

from trak.tasks.modelout_functions import *  # noqa: F403
