"""Attributions as tables of polars, pyarrow and xarray."""

import numpy as np
import pytest
from views import attribution


@pytest.mark.parametrize("package", ["polars", "pyarrow"])
def test_other_tables_hold_what_the_frame_holds(package):
    pytest.importorskip(package)
    found = attribution()
    table = {"polars": found.to_polars, "pyarrow": found.to_arrow}[package](3, bottom=True)
    top = found.top(3, bottom=True)
    assert table["target"].to_numpy().tolist() == np.repeat(range(4), 3).tolist()
    assert table["rank"].to_numpy().tolist() == [1, 2, 3] * 4
    np.testing.assert_array_equal(table["train_index"].to_numpy(), top.indices.ravel())
    np.testing.assert_array_equal(table["score"].to_numpy(), top.scores.ravel())


def test_xarray_holds_all_scores_by_name():
    pytest.importorskip("xarray")
    found = attribution()
    table = found.to_xarray()
    assert table.dims == ("train_index", "target")
    np.testing.assert_array_equal(table.isel(target=2).to_numpy(), found.scores[:, 2])
