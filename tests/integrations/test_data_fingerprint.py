"""Fingerprints of training data."""

import torch

from trak.integrations.data_fingerprint import DataFingerprint


def test_data_are_told_apart_by_their_examples_and_random_ones_by_their_number():
    def of(values, collate=None):
        return DataFingerprint.from_loader(torch.utils.data.DataLoader(values, 2, shuffle=True, collate_fn=collate))

    generator = torch.Generator()
    assert of(torch.arange(40)) == of(torch.arange(40))
    assert of(torch.arange(40)).difference(of(torch.arange(40).float()))
    seeded = of(torch.zeros(9), lambda rows: torch.rand(len(rows)))
    assert seeded == of(torch.zeros(9), lambda rows: torch.rand(len(rows)))
    assert seeded.rows is not None
    assert of(torch.zeros(9), lambda rows: torch.rand(len(rows), generator=generator)) == DataFingerprint(9, None)
    assert of(["a"] * 9, lambda rows: rows) == DataFingerprint(9, None)
    assert DataFingerprint(9, None).difference(DataFingerprint(9, "a")) is None
    assert DataFingerprint(9, None).difference(DataFingerprint(8, "a")) == "9 examples, not 8"
