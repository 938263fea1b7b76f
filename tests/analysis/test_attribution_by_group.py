"""Attribution to groups against loops in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from score_arrays import random_scores

from trak.analysis import group_attribution


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.float32, (12, 5), elements=st.floats(-4, 4, width=32)),
    arrays.arrays(bool, 5).filter(np.any),
    arrays.arrays(np.int64, 12, elements=st.integers(0, 3)),
)
def test_shares_of_groups_add_up_to_the_increase_and_the_decrease(scores, mask, groups):
    found = group_attribution(scores, mask, groups=groups, k=3)
    mean = [float(np.mean([float(x) for x in row[mask]])) for row in scores]
    shares = found.shares()
    for sign, side in ((1, "up"), (-1, "down")):
        total = sum(max(sign * x, 0) for x in mean)
        for name, share in zip(shares["group"], shares[side], strict=True):
            part = sum(max(sign * x, 0) for x, group in zip(mean, groups, strict=True) if group == name)
            assert share == pytest.approx(part / total if total else 0, abs=1e-9)
    assert shares["net"].sum() == pytest.approx(sum(mean), abs=1e-6)
    assert shares["examples"].sum() == 12
    assert found.helpful.tolist() == sorted(range(12), key=lambda i: (-found.mean[i], i))[:3]
    assert found.harmful.tolist() == sorted(range(12), key=lambda i: (found.mean[i], i))[:3]


def test_a_mask_and_its_indices_are_one_slice(blocks):
    scores = random_scores()
    mask = np.array([False, True, True, False, False, False, True])
    for other in (np.flatnonzero(mask), [1, 2, 6], mask.tolist(), torch.from_numpy(mask)):
        np.testing.assert_array_equal(group_attribution(scores, other).mean, group_attribution(scores, mask).mean)
    np.testing.assert_allclose(
        group_attribution(scores, mask).mean, scores[:, mask].astype(float).mean(axis=1), atol=1e-12
    )
    np.testing.assert_array_equal(group_attribution(scores).targets, np.arange(7))


def test_without_groups_there_are_no_shares():
    with pytest.raises(ValueError, match="give group_attribution groups"):
        group_attribution(random_scores()).shares()
