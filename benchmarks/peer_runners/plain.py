"""Forward and backward passes over the training examples, as training does them, without an optimizer."""

from pathlib import Path

from models import plain_step
from peer_runners.work import Work, batches, main, warm_up
from torch import nn


class Loss:
    """The cross-entropy of a batch, in the form of a task."""

    def output(self, model: nn.Module, batch: tuple) -> tuple:
        return model(*batch[:-1]), batch[-1]

    def loss(self, output: tuple) -> object:
        return nn.functional.cross_entropy(*output, reduction="none")


def run(work: Work, scratch: Path) -> None:
    network, (train, _) = work.network(), work.data()
    warm_up(network, train)
    with work.timed("forward and backward"):
        for batch in batches(train, work.case.batch_size):
            plain_step(network, Loss(), batch)


if __name__ == "__main__":
    main("torch", run)
