"""What the reader of docs/analysis.md has: the models, data and scores of examples/analysis.py."""

import sys
from functools import partial
from pathlib import Path

import torch

import trak

sys.path.insert(0, str(Path(trak.__file__).parents[1] / "examples"))
from analysis import attributed, load, make_cnn, make_linear, train

folder = Path("analysis")
train_set, target_set, wrong = load()
train_labels, target_labels = train_set.tensors[1].numpy(), target_set.tensors[1].numpy()
(attribution,) = attributed(folder, "cnn", make_cnn, train_set, targets=target_set)
(linear,) = attributed(folder, "linear", make_linear, train_set, targets=target_set)
models = [make_cnn().eval() for _ in range(3)]
for _seed, _model in enumerate(models):
    _model.load_state_dict(torch.load(folder / "cnn" / f"checkpoint{_seed}.pt")["state_dict"])
train_cnn = partial(train, train_set, make_cnn)
