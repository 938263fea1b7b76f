"""The code of the tutorials runs; a module of its own, so that another process than the other pages' may take it."""

import pytest
from pages import TUTORIALS, WITH_CODE, executed, shown


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in WITH_CODE if TUTORIALS in p.parents], ids=shown)
def test_the_code_of_a_tutorial_runs_from_its_first_block_to_its_last(page, tmp_path):
    pytest.importorskip("transformers")
    with executed(page, tmp_path):
        pass
