"""What the reader of docs/questions.md has: the models, data and scores of examples/questions.py."""

import sys
from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader

import trak

sys.path.insert(0, str(Path(trak.__file__).parents[1] / "examples"))
from questions import attributed, load, make_cnn, make_linear, outputs, train

folder = Path("questions")
data, targets, wrong = load()
train_labels, target_labels = data.tensors[1].numpy(), targets.tensors[1].numpy()
attribution, to_itself = attributed(folder, "cnn", make_cnn, data, targets=targets, itself=data)
(linear,) = attributed(folder, "linear", make_linear, data, targets=targets)
f = outputs(folder / "cnn", make_cnn, targets)
train_cnn, target_loader = partial(train, data, make_cnn), DataLoader(targets, 100)
