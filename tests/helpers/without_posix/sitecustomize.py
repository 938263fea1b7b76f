"""Python as on a system without POSIX: put this folder on PYTHONPATH. What is missing on Windows or macOS is removed
before anything else is imported, in every process that is started."""

import os
import sys

# It has locks of its own on every system: on this one by fcntl, which it is to import before that is gone.
import filelock  # noqa: F401

sys.modules["fcntl"] = None
for name in ("fdatasync", "posix_fallocate", "fork", "forkpty", "pread", "pwrite"):
    if hasattr(os, name):
        delattr(os, name)
