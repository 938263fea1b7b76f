"""Scores by the package traker, in a process with it on the path: `python published_runner.py WORK`; see published.py.

Model and batches come ready, so that nothing here imports this library, which goes by the same module name.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trak import TRAKer


class Logits(nn.Module):
    """A BERT as traker wants one. It is given its mask in full: transformers' code that makes it can't be vmapped."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, classes)."""
        seen = attention_mask[:, None, None, :].to(torch.bool)
        return self.model(
            input_ids=input_ids, token_type_ids=token_type_ids,
            attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min),
        ).logits  # fmt: skip


def main(folder: Path) -> None:
    """Scores (n, m) into scores.npy."""
    work: dict[str, Any] = torch.load(folder / "work.pt", weights_only=False)
    model, text = work["model"].eval(), work["task"] == "text_classification"
    model = Logits(model).eval() if text else model

    def batches(given: list[Any]) -> list[tuple[Tensor, ...]]:
        # A single batch: its projection for CPUs is drawn again for each.
        if not text:
            return [tuple(torch.cat(members) for members in zip(*given, strict=True))]
        ids, mask, labels = (torch.cat([b[key] for b in given]) for key in ("input_ids", "attention_mask", "labels"))
        return [(ids, torch.zeros_like(ids), mask, labels)]

    train, targets = batches(work["train"]), batches(work["targets"])
    size = sum(len(batch[-1]) for batch in train)
    traker = TRAKer(model, work["task"], size, str(folder / "store"), device="cpu", **work["options"])
    states = [{f"model.{name}": t for name, t in state.items()} if text else state for state in work["checkpoints"]]
    for i, state in enumerate(states):
        traker.load_checkpoint(state, i)
        for batch in train:
            traker.featurize(batch, num_samples=len(batch[-1]))
    traker.finalize_features()
    for i, state in enumerate(states):
        traker.start_scoring_checkpoint("targets", state, i, sum(len(batch[-1]) for batch in targets))
        for batch in targets:
            traker.score(batch, num_samples=len(batch[-1]))
    np.save(folder / "scores.npy", np.asarray(traker.finalize_scores("targets"), dtype=np.float64))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
