"""The methods of every result that display it: `show`, `report` and the summary in a notebook."""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trak._utils.messages import suggest
from trak.visualization.report import write_report
from trak.visualization.selection import RankedExamples, Selection
from trak.visualization.show import AttributionView
from trak.visualization.summary import summary_html


class DisplayMixin(RankedExamples):
    """Scores of training examples for targets, with methods that display them."""

    def show(
        self,
        train_dataset: Any = None,
        target_dataset: Any = None,
        targets: Sequence[int] | None = None,
        k: int | None = None,
        **options: Any,
    ) -> AttributionView:
        """Targets beside the training examples with their highest and lowest scores: HTML in a notebook, else text.

        Args:
            train_dataset, target_dataset: as attributed, in the same order. Images, texts, tokens and labels are found
                by their types, unless `display` converts them.
            targets: which; by default the first five.
            k: how many training examples at either end, by default 5.
            options: of `trak.visualization.Selection`: labels, predictions, `display`, `tokenizer`, scores of tokens.

        Returns:
            The view, which notebooks and terminals display, with `save(path)`.

        Raises:
            ValueError: if a target is out of range or repeated, or a data set has another number of examples than the
                attribution.
            TypeError: if the examples of a data set cannot be read by their number, or for an unknown option.
            ImportError: if there are images and Pillow is not installed.
        """
        _check_options(self.show, options)
        chosen = range(min(5, self.shape[1])) if targets is None else targets
        return AttributionView(Selection(self, train_dataset, target_dataset, chosen, k, **options))

    def report(
        self,
        path: str | Path,
        train_dataset: Any = None,
        target_dataset: Any = None,
        targets: Sequence[int] | None = None,
        k: int | None = None,
        *,
        title: str = "Attribution report",
        image_size: int | None = None,
        **options: Any,
    ) -> Path:
        """Write one HTML file, to be opened anywhere without network: all targets, to search and to sort.

        Args:
            path: the file, which is replaced.
            train_dataset, target_dataset: as for `show`; without them, indices and scores are written.
            targets: which; by default all.
            k: how many training examples at either end, by default 10, or n_train if that is less.
            title: heading of the page.
            image_size: largest side of an image in pixels; by default 96, and 480 for matplotlib figures.
            options: as for `show`.

        Raises:
            ValueError, TypeError, ImportError: as `show`.
            IsADirectoryError: if `path` is a folder.
        """
        _check_options(self.report, options)
        k = min(10, self.shape[0]) if k is None else k
        selection = Selection(self, train_dataset, target_dataset, targets, k, **options)
        return write_report(selection, path, title, image_size)

    def _repr_html_(self) -> str:
        return summary_html(self, first_targets=self._is_quick())

    @abstractmethod
    def _is_quick(self) -> bool:
        """Whether `top` takes about a second at most."""


def _check_options(method: Callable[..., Any], options: Mapping[str, Any]) -> None:
    taken = inspect.signature(Selection).parameters.keys() - {"attribution"}
    for name in options.keys() - taken:
        known = (taken | inspect.signature(method).parameters.keys()) - {"options"}
        raise TypeError(f"attribution.{method.__name__} has no option {name!r}: {suggest(name, known)}")
