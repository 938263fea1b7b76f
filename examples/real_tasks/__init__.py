"""Real tasks whose models are small enough to be trained a thousand times: what evaluation is tried on."""

from collections.abc import Callable

from real_tasks.base import RealTask, Trainer, TrainingSpec, checkpoints, take, weights
from real_tasks.captions import CAPTIONS, captions
from real_tasks.facts import FACTS, SENTENCES, facts, sentences
from real_tasks.images import DIGITS, FASHION, digits, fashion
from real_tasks.scenes import SCENES, scenes
from real_tasks.sentiment import SENTIMENT, sentiment
from real_tasks.snippets import SNIPPETS, snippets

__all__ = ["TASKS", "TRAINING_SPECS", "RealTask", "Trainer", "TrainingSpec", "checkpoints", "take", "weights"]

TASKS: dict[str, Callable[..., RealTask]] = {
    "captions": captions, "digits": digits, "facts": facts, "fashion": fashion, "scenes": scenes,
    "sentences": sentences, "sentiment": sentiment, "snippets": snippets,
}  # fmt: skip
TRAINING_SPECS = {
    "captions": CAPTIONS, "digits": DIGITS, "facts": FACTS, "fashion": FASHION, "scenes": SCENES,
    "sentences": SENTENCES, "sentiment": SENTIMENT, "snippets": SNIPPETS,
}  # fmt: skip
