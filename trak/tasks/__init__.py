"""Tasks: what is differentiated."""

from trak.tasks.base import Task
from trak.tasks.classification import Classification, ImageClassification, TextClassification
from trak.tasks.clip import CLIP
from trak.tasks.language_modeling import LanguageModeling
from trak.tasks.logits import margins
from trak.tasks.multi_label import MultiLabel
from trak.tasks.registry import TASKS, make_task, register_task
from trak.tasks.regression import Regression
from trak.tasks.seq2seq import Seq2Seq
from trak.tasks.token_task import TokenClassification

__all__ = [
    "CLIP",
    "TASKS",
    "Classification",
    "ImageClassification",
    "LanguageModeling",
    "MultiLabel",
    "Regression",
    "Seq2Seq",
    "Task",
    "TextClassification",
    "TokenClassification",
    "make_task",
    "margins",
    "register_task",
]
