"""What every result promises: a line, a table, a figure. One inherited case for the family."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest
import torch
import zarr

from trak._utils.plotting import styles
from trak.evaluation import Counterfactuals, agreement, counterfactuals, lds, mislabel_detection, retrieval


def scores(rows=30, columns=8, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


class Base:
    """Subclasses name a result, its columns and rows, and what its axes are called."""

    columns: tuple[str, ...]
    rows: int
    labels: tuple[str, str]

    @classmethod
    def make(cls, **options):
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls):
        return cls.make()

    def test_prints_as_one_line_with_its_interval(self, result):
        assert "\n" not in str(result)
        assert "95 % interval" in str(result)
        assert "nan" not in str(result)
        assert "90 % interval" in str(self.make(confidence=0.9))

    def test_is_frozen(self, result):
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.confidence = 0.5

    def test_is_the_same_every_time_and_another_for_another_seed(self, result):
        assert str(self.make()) == str(result)
        assert str(self.make(seed=1)) != str(result)

    def test_table_has_its_columns_and_finite_rows(self, result):
        frame = result.to_frame()
        assert tuple(frame.columns) == self.columns
        assert len(frame) == self.rows
        assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()

    def test_picture_is_labelled_and_drawn_on_the_axes_that_are_given(self, result, tmp_path):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        own = result.plot()
        assert (own.get_xlabel(), own.get_ylabel()) == self.labels
        assert own.get_title(loc="left")
        assert own.get_legend() is not None
        plt.close(own.figure)
        figure, given = plt.subplots()
        assert result.plot(given) is given
        figure.savefig(tmp_path / "a.png")
        assert plt.imread(tmp_path / "a.png")[..., :3].std() > 0.03
        plt.close(figure)

    def test_without_an_extra_it_says_what_to_install(self, result, monkeypatch):
        for module in ("pandas", "matplotlib", "matplotlib.pyplot"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=r"to_frame needs pandas: pip install 'trak-attribution\[frames\]'"):
            result.to_frame()
        with pytest.raises(ImportError, match=r"plot needs matplotlib: pip install 'trak-attribution\[pictures\]'"):
            result.plot()


class TestLDS(Base):
    columns = ("target", "lds", "low", "high")
    rows = 8
    labels = ("LDS of a target (Spearman correlation)", "number of targets")

    @classmethod
    def make(cls, **options):
        rng = np.random.default_rng(0)
        masks = rng.permuted(np.arange(30) < np.full((40, 1), 15), axis=1)
        outputs = (masks @ scores())[:, None] + 3 * rng.normal(size=(40, 2, 8))
        return lds(scores(), masks, outputs, resamples=50, permutations=50, **options)


class TestAgreement(Base):
    columns = ("target", "correlation", "overlap")
    rows = 8
    labels = ("Spearman correlation of a target's scores", "number of targets")

    @classmethod
    def make(cls, **options):
        return agreement(scores(), scores() + scores(seed=1), resamples=50, **options)


class TestMislabelDetection(Base):
    columns = ("k", "precision", "recall")
    rows = 2
    labels = ("training examples inspected (%)", "mislabelled examples found (%)")

    @classmethod
    def make(cls, **options):
        flipped = np.arange(30) % 4 == 0
        return mislabel_detection(scores()[:, 0] + flipped, flipped, k=(5, 10), resamples=50, **options)

    def test_recall_is_the_share_of_the_mislabelled_found(self, result):
        frame = result.to_frame()
        np.testing.assert_allclose(frame.recall, frame.precision * frame.k / 8)


class TestRetrieval(Base):
    columns = ("k", "recall", "recall_low", "recall_high", "precision", "precision_low", "precision_high")
    rows = 3
    labels = ("highest scores looked at (k)", "share (%)")

    @classmethod
    def make(cls, **options):
        return retrieval(scores(), np.random.default_rng(1).random((30, 8)) < 0.3, resamples=50, **options)


class TestCounterfactuals(Base):
    columns = ("method", "k", "drop", "drop_low", "drop_high", "flipped", "flipped_low", "flipped_high")
    rows = 6
    labels = ("training examples removed (k)", "right predictions that flip (%)")

    directory = zarr.storage.MemoryStore()

    @classmethod
    def make(cls, **options):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(20, 3, generator=generator)

        def train(indices, seed):
            model = torch.nn.Linear(3, 2)
            with torch.no_grad():
                model.weight[1] = x[indices].mean(dim=0) * 5
                model.weight[0] = 0
            return model

        targets = [(x[:8], torch.arange(8) % 2)]
        return counterfactuals(
            {"one": scores(20), "two": scores(20, seed=1)}, train, "image_classification", targets, train_set_size=20,
            save_dir=cls.directory, k=(4, 12), seeds=1, random_sets=1, jobs=1, progress=False, resamples=50, **options,
        )  # fmt: skip

    def test_drops_can_be_drawn_too(self, result):
        pytest.importorskip("matplotlib").use("Agg")
        import matplotlib.pyplot as plt

        ax = result.plot(what="drops")
        assert ax.get_ylabel() == "drop of the target's output f (units of f)"
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two", "random"]
        markers = {line.get_marker() for line in ax.get_lines() if line.get_label() in ("one", "two", "random")}
        assert len(markers) == 3
        plt.close(ax.figure)
        with pytest.raises(ValueError, match=r"what must be 'drops', or 'flips'.* got 'flip'"):
            result.plot(what="flip")


def test_many_curves_differ_in_colour_marker_and_dashes_together_and_their_legend_covers_none():
    plt = pytest.importorskip("matplotlib.pyplot")
    many = 12
    assert len(set(itertools.islice(styles(), many))) == many
    y = np.linspace(0.2, 0.8, 2 * many).reshape(many, 1, 2)
    shape = (many, 2, 3)
    result = Counterfactuals(
        methods=(*(f"method {i}" for i in range(many - 1)), "random"), k=(5, 10), targets=np.arange(3),
        drops=np.broadcast_to(y.mean(axis=2)[:, :, None], shape), flips=None,
        drop_intervals=np.broadcast_to(y, (many, 2, 2)), flip_intervals=None, confidence=0.95, seeds=1,
    )  # fmt: skip
    ax = result.plot()
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1
    assert len(ax.collections) == many, "every curve has its bars"
    plt.close(ax.figure)
