"""The summary that a notebook shows."""

import numpy as np
import pytest
from models import images
from views import Page, attribution

import trak
from trak.evaluation import lds
from trak.visualization.summary import describe_settings


class TestSummary:
    def test_says_how_scores_were_made_and_what_the_first_targets_rest_on(self, tmp_path):
        model, task, batches = images()
        found = trak.attribute(
            model, task, model.state_dict(), batches, batches[:1], tmp_path, proj_dim=16, damping=0.5, progress=False
        )
        text = Page(found._repr_html_()).text
        for part in ("image_classification", "log-odds of the labelled class", "23", "1 (0)", "damping", str(tmp_path)):
            assert part in text
        assert f"#{found.top(1).indices[0, 0]} (" in text
        assert describe_settings(found)["experiment"] == "targets"
        assert describe_settings(attribution())["name"] == attribution().name

    def test_shows_what_can_not_be_scored_yet_without_its_targets(self, tmp_path):
        model, task, batches = images()
        trak.attribute(model, task, model.state_dict(), batches, batches[:1], tmp_path, proj_dim=16, progress=False)
        traker = trak.TRAKer(model, task, 23, tmp_path, proj_dim=16)
        traker.start_scoring_checkpoint("later", model.state_dict(), 0, 8)
        found = trak.Attribution.open(tmp_path, "later")
        assert "First targets" not in found._repr_html_()

    def test_shows_what_is_of_targets_that_were_replaced_without_its_targets(self, tmp_path):
        model, task, batches = images()
        both = [
            trak.attribute(
                model, task, model.state_dict(), batches, [tuple(part[rows] for part in batches[0])], tmp_path,
                proj_dim=16, progress=False,
            )
            for rows in (slice(0, 4), slice(1, 5))
        ]  # fmt: skip
        assert ["First targets" in found._repr_html_() for found in both] == [False, True]

    def test_names_faithfulness_once_it_was_measured(self):
        pytest.importorskip("scipy")
        rng, found = np.random.default_rng(0), attribution()
        assert "LDS" not in found._repr_html_()
        masks = rng.random((6, 12)) < 0.5
        result = lds(found, masks, rng.normal(size=(6, 2, 4)), resamples=50, permutations=50)
        assert found.faithfulness is result
        assert str(result) in Page(found._repr_html_()).text
