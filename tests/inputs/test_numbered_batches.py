"""Batches are loaded by their number."""

import torch
from hugging_face import SIZES, bert, by_hand, texts

from trak.inputs.datasets import as_loader
from trak.inputs.numbered_batches import numbered_batches


def test_a_dataset_works_with_ranks_which_load_only_their_batches(tokenizer):
    known = numbered_batches(as_loader(texts(), bert(), batch_size=4, collate_fn=tokenizer), len(SIZES))
    assert [rows.tolist() for rows in known.indices] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    (last,) = known.load(iter([2]))
    assert torch.equal(last["input_ids"], by_hand()[2]["input_ids"])
