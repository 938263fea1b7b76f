"""Image classification."""

import torch
from task_contract import ClassificationContract, images, labels, log_odds

from trak.tasks import (
    ImageClassification,
    make_task,
)


class TestImageTuple(ClassificationContract):
    def task(self):
        return make_task("image_classification")


class TestImageDict(ClassificationContract):
    def task(self):
        return ImageClassification()

    def batch(self, count):
        return {"pixel_values": images(count), "labels": labels(count), "index": torch.arange(count)}

    def expected_output(self, model, batch):
        return log_odds(model(batch["pixel_values"]), batch["labels"])


class TestImageTemperature(ClassificationContract):
    def task(self):
        return ImageClassification(temperature=2.5)

    def expected_output(self, model, batch):
        return log_odds(model(batch[0]) / 2.5, batch[1])
