"""Examples are read by the types of their parts."""

import numpy as np
import pytest
import torch

from trak.visualization.examples import read_example

GREY, COLOUR = np.zeros((5, 6)), np.zeros((3, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("item", "shape", "text", "tokens", "label"),
    [
        ("a text", None, "a text", (), None),
        (("a text", 3), None, "a text", (), 3),
        ({"text": "a text", "label": "good", "idx": 7}, None, "a text", (), "good"),
        ({"premise": "one", "hypothesis": "two", "label": 1}, None, "premise: one\nhypothesis: two", (), 1),
        (GREY, (5, 6), "", (), None),
        ((torch.zeros(1, 5, 6), torch.tensor(4)), (5, 6), "", (), 4),
        ((COLOUR, 2), (5, 6, 3), "", (), 2),
        ({"pixel_values": COLOUR, "labels": 2}, (5, 6, 3), "", (), 2),
        ((COLOUR, "a caption"), (5, 6, 3), "a caption", (), None),
        ((COLOUR, torch.tensor([5, 6])), (5, 6, 3), "", (5, 6), None),
        (torch.tensor([5, 6, 7]), None, "", (5, 6, 7), None),
        (["two", "words"], None, "", ("two", "words"), None),
        ({"input_ids": [5, 6], "labels": [5, 6]}, None, "", (5, 6), None),
        ((torch.tensor([0.5, 2.0]), torch.tensor(0.25)), None, "[0.5, 2]", (), 0.25),
    ],
)
def test_what_an_example_is_is_told_by_its_types(item, shape, text, tokens, label):
    found = read_example(item)
    assert (None if found.image is None else found.image.shape) == shape
    assert (found.text, found.tokens, found.label) == (text, tokens, label)
