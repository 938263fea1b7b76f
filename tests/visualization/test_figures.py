"""Pictures of an attribution's scores."""

import numpy as np
import pytest
from score_arrays import random_scores

from trak.attribution.results import ArrayAttribution


@pytest.mark.parametrize("targets", [2, [0, 3, 6]])
def test_scores_are_drawn_as_counts_with_both_ends_marked(targets):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    attribution = ArrayAttribution(random_scores())
    ax = attribution.plot_scores(targets, k=3)
    highest, lowest = attribution.top(3), attribution.top(3, bottom=True)
    chosen = np.atleast_1d(targets)
    curves = ax.lines[: 2 * len(chosen)]
    for target, (down, up) in zip(chosen, zip(curves[::2], curves[1::2], strict=True), strict=True):
        column = attribution.scores[:, target]
        for curve, sign, found in ((down, -1, lowest), (up, 1, highest)):
            x, y = curve.get_data()
            assert [sum(sign * column >= sign * np.float32(at)) for at in x] == list(y)
            np.testing.assert_array_equal(x[curve.get_markevery()], found.scores[target])
    looks = {(line.get_linestyle(), line.get_marker()) for line in curves}
    assert len(looks) == len(chosen)
    assert "units of f" in ax.get_xlabel()
    assert ax.get_yscale() == "log"
    names = {text.get_text() for text in ax.texts}
    assert names == ({f"#{i}" for i in (*highest.indices[2], *lowest.indices[2])} if len(chosen) == 1 else set())
    plt.close(ax.figure)


def test_scores_of_no_target_cannot_be_drawn():
    with pytest.raises(ValueError, match="targets must be between 0 and 6, got 7"):
        ArrayAttribution(random_scores()).plot_scores(7)
    with pytest.raises(ValueError, match="k must be 0 or more"):
        ArrayAttribution(random_scores()).plot_scores(0, k=-1)
