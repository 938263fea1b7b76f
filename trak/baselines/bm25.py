"""Similarity of texts by the words they share."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from trak._utils.optional import import_optional_dependency
from trak._utils.typing import Array
from trak._utils.validation import check_option, is_number
from trak.baselines.base import Baseline, BaselineInputs, register_baseline
from trak.inputs.batches import Batch
from trak.inputs.loaders import check_loader


@register_baseline("bm25")
class BM25(Baseline):
    """Okapi BM25 (Robertson & Zaragoza, 2009; its variants: Kamphuis et al., 2020), by bm25s: the target's text is the
    query, the training examples are the documents.

    Model, task and checkpoints are not used: scores say which texts share rare words, not which examples increased the
    output. Batches are lists of strings; dicts with token ids under "input_ids" and, if padded, an
    "attention_mask"; tuples as of the text classification task; or dicts and tuples with a list of
    strings among their fields.
    """

    def __init__(
        self,
        method: str = "lucene",
        k1: float = 1.5,
        b: float = 0.75,
        *,
        delta: float = 0.5,
        ignore: Collection[int] = (),
        stopwords: str | Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            method: "lucene", "robertson", "atire", "bm25l" or "bm25+".
            k1, b, delta: of the formula; delta of the last two methods alone.
            ignore: token ids that are no words, such as those of padding that no mask covers.
            stopwords: words of strings to leave out, or the language ("en") of a list of them.

        Raises:
            ValueError: for invalid arguments.
        """
        self.method = check_option(method, "method", ("lucene", "robertson", "atire", "bm25l", "bm25+"))
        if not (is_number(k1) and is_number(b) and k1 >= 0 and 0 <= b <= 1):
            raise ValueError(
                f"k1 must be 0 or more and b between 0 and 1, got {k1!r} and {b!r}; use 1.5 and 0.75, which are usual"
            )
        self.k1, self.b, self.delta = k1, b, delta
        self.ignore, self.stopwords = sorted(ignore), stopwords

    def compute_scores(self, inputs: BaselineInputs) -> Array:
        bm25s = import_optional_dependency("bm25s", "BM25 needs bm25s", "baselines")
        documents, queries = (self._texts(getattr(inputs, name), name) for name in ("train", "targets"))
        if not any(documents):
            raise ValueError(
                f"none of the {len(documents)} training examples has a word; look at what train yields, or choose "
                "another baseline"
            )
        index = bm25s.BM25(method=self.method, k1=self.k1, b=self.b, delta=self.delta)
        index.index(documents, show_progress=False)
        known = set().union(*documents)
        scores = np.zeros((len(documents), len(queries)), np.float32)
        for target, query in enumerate(tqdm(queries, desc=self.name, unit="target", disable=not inputs.progress)):
            words = [word for word in query if word in known]
            if words:
                scores[:, target] = index.get_scores(words)
        return scores

    def _texts(self, loader: Iterable[Batch], what: str) -> list[list[str]]:
        """The words of every example."""
        check_loader(loader, what)
        found = [words for batch in loader for words in self._words(batch, what)]
        if not found:
            raise ValueError(f"{what} yields no examples; pass at least one batch")
        return found

    def _words(self, batch: Batch, what: str) -> Iterator[list[str]]:
        texts = _strings(batch)
        if texts is not None:
            import bm25s

            yield from bm25s.tokenize(texts, stopwords=self.stopwords or [], return_ids=False, show_progress=False)
            return
        ids, mask = _token_ids(batch)
        if ids is None or ids.is_floating_point() or ids.ndim != 2:
            raise ValueError(
                f"a batch of {what} ({type(batch).__name__}) holds no text: expected strings, or token ids of shape "
                "(B, positions); put them under 'input_ids' or first in a tuple"
            )
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)}, expected {tuple(ids.shape)} as input_ids; pass a mask "
                "with one number for each token"
            )
        kept = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        left_out = set(self.ignore)
        for row, keep in zip(ids, kept, strict=True):
            yield [str(token) for token in row[keep].tolist() if token not in left_out]


def _strings(batch: Batch) -> list[str] | None:
    """The batch, or its first field, that is a list of strings."""
    if isinstance(batch, str):
        return [batch]
    if isinstance(batch, list | tuple) and batch and all(isinstance(text, str) for text in batch):
        return list(batch)
    fields = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    found = (_strings(field) for field in fields if isinstance(field, list | tuple))
    return next((texts for texts in found if texts is not None), None)


def _token_ids(batch: Batch) -> tuple[Tensor | None, Tensor | None]:
    """Ids and attention mask of a dict, or of a tuple as of the text classification task."""
    if isinstance(batch, Mapping):
        ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    elif isinstance(batch, list | tuple) and batch:
        ids, mask = batch[0], batch[-2] if len(batch) in (3, 4) else None
    else:
        ids, mask = batch, None
    return tuple(torch.as_tensor(t) if isinstance(t, Tensor | np.ndarray) else None for t in (ids, mask))  # type: ignore[return-value]
