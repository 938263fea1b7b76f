"""One thread a process: the tests run side by side, and sums come out the same everywhere."""

import torch

torch.set_num_threads(1)
