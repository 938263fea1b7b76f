"""Self-influence against dense linear algebra, and scores of harm."""

import numpy as np
import pytest
import torch
from models import images

import trak
from trak.evaluation import harm_scores, mislabel_detection, self_influence


class TestLabelIssueScores:
    """Numbers from stored features and from scores."""

    @pytest.fixture
    def case(self):
        return images()

    @pytest.fixture
    def attributed(self, case, tmp_path):
        states = [{k: v + 0.1 * i for k, v in case.model.state_dict().items()} for i in range(2)]

        def attributed(**options):
            return trak.attribute(
                case.model, case.task, states, case.batches, case.batches, tmp_path / str(len(options)), proj_dim=16,
                progress=False, **options,
            )  # fmt: skip

        return attributed

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
    def test_self_influence_is_the_diagonal_of_the_training_set_scored_for_itself(self, attributed, dtype):
        found = attributed(dtype=dtype, normalize_checkpoints=False, damping=3.0)
        own = self_influence(found, "output", damping=3.0, progress=False)
        assert own.dtype == np.float64
        np.testing.assert_allclose(own, np.diagonal(found.scores), rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("quantity, power", [("leverage", 0), ("output", 1), ("loss", 2)])
    @pytest.mark.parametrize("weighting", ["ggn", "identity"])
    def test_it_equals_the_formula_with_an_explicit_inverse(self, attributed, quantity, power, weighting):
        store = attributed(weighting=weighting).experiment.store
        kernels, qs = [], []
        for i in store.checkpoints():
            phi = store.table(i).features.read().astype(np.float64)
            w = store.table(i).column("out_to_loss_curvature") if weighting == "ggn" else np.ones(len(phi))
            gram = phi.T @ (w[:, None] * phi)
            inverse = np.linalg.inv(gram + 0.5 * np.trace(gram) / 16 * np.eye(16))
            kernels.append(np.einsum("ij,jk,ik->i", phi, inverse, phi))
            qs.append(store.table(i).column("out_to_loss_grad"))
        found = self_influence(store, quantity, weighting=weighting, damping=0.5, progress=False)
        np.testing.assert_allclose(found, np.mean(kernels, axis=0) * np.mean(qs, axis=0) ** power, rtol=1e-4)

    def test_checkpoints_are_those_of_the_source_unless_given_and_damping_is_its_own(self, attributed, case, tmp_path):
        strong = attributed(damping=100.0)
        own = self_influence(strong, progress=False)
        np.testing.assert_array_equal(self_influence(strong.experiment.store, progress=False), own)
        np.testing.assert_array_equal(self_influence(strong, damping=0.3, progress=False), own)
        traker = trak.TRAKer(case.model, case.task, 23, tmp_path / "1", proj_dim=16, damping=100.0)
        np.testing.assert_array_equal(self_influence(traker, progress=False), own)
        one = self_influence(strong, "leverage", model_ids=[1], progress=False)
        other = self_influence(strong, "leverage", model_ids=[0], progress=False)
        np.testing.assert_allclose((one + other) / 2, self_influence(strong, "leverage", progress=False))

    def test_it_streams_blocks_of_any_size(self, attributed, monkeypatch):
        found = attributed()
        expected = self_influence(found, progress=False)
        monkeypatch.setattr("trak.evaluation.label_issue_scores._ROWS_AT_ONCE", 5)
        np.testing.assert_allclose(self_influence(found, progress=False), expected, rtol=1e-10)

    def test_it_shows_its_progress(self, attributed, capsys):
        self_influence(attributed())
        assert "46/46" in capsys.readouterr().err

    def test_flipped_labels_have_more_of_it(self, tmp_path):
        rng = np.random.default_rng(0)
        x = torch.from_numpy(rng.normal(size=(150, 5))).float()
        y = (x[:, 0] > 0).long()
        flipped = rng.permutation(150) < 15
        y[flipped] = 1 - y[flipped]
        model = torch.nn.Linear(5, 2)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50)

        def loss():
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(model(x), y) + 0.01 * model.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        found = trak.attribute(
            model, "image_classification", model.state_dict(), [(x, y)], [(x[:5], y[:5])], tmp_path, proj_dim=12,
            projector="identity", loss_temperature=1, progress=False,
        )  # fmt: skip
        assert mislabel_detection(self_influence(found, "output", progress=False), flipped).interval.low > 0.6
        assert mislabel_detection(self_influence(found, progress=False), flipped).auroc > 0.8

    def test_what_has_no_features_or_is_unknown_is_refused(self, attributed):
        with pytest.raises(TypeError, match=r"needs stored features: what trak\.attribute returned.*got ndarray"):
            self_influence(np.zeros((3, 3)))
        with pytest.raises(ValueError, match="unknown quantity 'losses': did you mean 'loss'"):
            self_influence(attributed(), "losses")
        with pytest.raises(ValueError, match="unknown weighting 'none'"):
            self_influence(attributed(), weighting="none")
        with pytest.raises(ValueError, match="no targets to choose damping='auto' by"):
            self_influence(attributed(), damping="auto")
        with pytest.raises(ValueError, match="model_ids is empty"):
            self_influence(attributed(), model_ids=[])
        with pytest.raises(ValueError, match="not finalized for weighting='identity'"):
            self_influence(attributed(), weighting="identity")

    def test_harm_scores_is_minus_the_mean_over_targets(self, monkeypatch):
        scores = np.random.default_rng(0).normal(size=(50, 7))
        np.testing.assert_allclose(harm_scores(scores), -scores.mean(axis=1))
        monkeypatch.setattr("trak.evaluation.validation._ROWS_AT_ONCE", 8)
        np.testing.assert_allclose(harm_scores(scores), -scores.mean(axis=1))
        with pytest.raises(ValueError, match="scores must be finite"):
            harm_scores(np.full((2, 2), np.inf))
