"""What featurizing costs beside training, measured while it happens."""

import resource
import statistics
import time
from collections.abc import Callable
from operator import truediv

import torch


class Cost:
    """Seconds of featurizing batches and of training steps on the same ones, by turns."""

    def __init__(self) -> None:
        self._start, self._spent = time.perf_counter(), 0.0
        self._ours, self._plain = list[float](), list[float]()

    def compare(self, featurize: Callable[[], None], step: Callable[[], None], examples: int) -> None:
        """Does both for a batch of so many examples."""
        for function, found in ((step, self._plain), (featurize, self._ours)):
            found.append(_seconds(function) / examples)
        self._spent += self._plain[-1] * examples

    def report(self, examples: int) -> str:
        """Of what was done since the beginning for so many examples, training steps left out."""
        if not self._plain:
            return "too little was featurized to be timed"
        step, ratios = statistics.median(self._plain), sorted(map(truediv, self._ours, self._plain))
        whole = (time.perf_counter() - self._start - self._spent) / examples / step
        return (
            f"a training step (forward and backward) takes {step:.3g} s an example; featurizing "
            f"{statistics.median(ratios):.2f} times that ({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} "
            f"rounds), with targets and all that is done once {whole:.2f} times"
        )


def peak_memory() -> str:
    """Of this process, on Linux, and of the GPU, if there is one."""
    gpu = f", of the GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if torch.cuda.is_available() else ""
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB{gpu}"


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
