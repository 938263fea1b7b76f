"""Tasks: what is differentiated."""

from trak.tasks.base import Task
from trak.tasks.clip import CLIP
from trak.tasks.image_classification import ImageClassification
from trak.tasks.registry import TASKS, make_task, register_task
from trak.tasks.regression import Regression
from trak.tasks.text_classification import TextClassification

__all__ = [
    "CLIP",
    "TASKS",
    "ImageClassification",
    "Regression",
    "Task",
    "TextClassification",
    "make_task",
    "register_task",
]
