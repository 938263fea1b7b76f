"""Which abstracts taught a language model a fact? FTRACE-TREx (Akyürek et al., 2022; TRAK paper, section 5.2).

`python examples/fact_tracing.py` trains mT5 on abstracts with a blank to fill in and asks it facts in other words. A
method is good if it ranks the abstracts that state a fact before those of other facts and those that share its words.
Kill it at any time and run it again: it goes on. `--smoke` takes a small T5 and what error codes of HTTP and of the
operating system mean.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import small_data
import torch
import transformers
from running import print_top
from tqdm.auto import trange

import trak
from trak import baselines
from trak.evaluation import retrieval

BLANK = "<extra_id_0>"
Rows = list[dict[str, Any]]
FIELDS = "inputs_pretokenized", "targets_pretokenized"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(folder: Path | None) -> tuple[Rows, Rows]:
    """Abstracts, whose "facts" are "relation,object,subject;...", and queries, each of a fact given by predicate_id,
    obj_uri and sub_uri; both with a blank in inputs_pretokenized, filled by targets_pretokenized."""
    names = "abstracts", "queries"
    if folder is not None:
        files = [(folder / f"{name}.jsonl").read_text().splitlines() for name in names]
        return [json.loads(line) for line in files[0]], [json.loads(line) for line in files[1]]
    try:
        from datasets import load_dataset

        abstracts, queries = (list(load_dataset("ekinakyurek/ftrace", name, split="train")) for name in names)
        return abstracts, queries
    except (ImportError, OSError) as error:
        command = "load_dataset('ekinakyurek/ftrace', NAME, split='train').to_json('NAME.jsonl')"
        hint = "It needs `pip install datasets` and the hub. Where the hub can't be reached, make on a machine that "
        hint += f"reaches it {command}, for NAME in {names}, and give the files' folder here as --data"
        raise SystemExit(f"FTRACE can't be loaded: {error}.\n{hint}") from error


def asked(query: dict[str, Any]) -> str:
    """For a fact, as abstracts write it."""
    return ",".join(query[key] for key in ("predicate_id", "obj_uri", "sub_uri"))


def stated(abstracts: Rows, queries: Rows) -> np.ndarray[Any, Any]:
    """Which abstracts state the fact that a query asks for, bool (abstracts, queries)."""
    facts = [set(abstract["facts"].split(";")) for abstract in abstracts]
    return np.array([[asked(query) in some for query in queries] for some in facts])


def filled(row: dict[str, Any]) -> str:
    """The text, its answer in the blank."""
    return row["inputs_pretokenized"].replace(BLANK, row["targets_pretokenized"].replace(BLANK, "").strip())


def retrieved(abstracts: Rows, queries: Rows, count: int) -> set[int]:
    """The abstracts that BM25 finds first for any query."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize([filled(row) for row in abstracts], show_progress=False), show_progress=False)
    words = bm25s.tokenize([filled(row) for row in queries], show_progress=False)
    return set(index.retrieve(words, k=min(count, len(abstracts)), show_progress=False)[0].flatten().tolist())


def batches(rows: Rows, tokenizer: Any, size: int) -> list[dict[str, torch.Tensor]]:
    """Padded; what follows an answer is not labelled."""
    found, padded = [], partial(tokenizer, padding=True, truncation=True, max_length=512, return_tensors="pt")
    for i in range(0, len(rows), size):
        inputs, said = (padded([row[key] for row in rows[i : i + size]]) for key in FIELDS)
        labels = said["input_ids"].masked_fill(said["attention_mask"] == 0, -100)
        found.append({"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels})
    return found


def train(make: Any, data: Rows, tokenizer: Any, seed: int, options: argparse.Namespace) -> list[Path]:
    """Files of what every few epochs left, the last one last."""
    ends = range(options.every, options.epochs + 1, options.every)
    files = [options.output / f"{seed}-{epoch}.pt" for epoch in ends]
    if files[-1].exists():
        return files
    options.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = make().train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    for epoch in trange(1, options.epochs + 1, desc=f"training {seed}"):
        for batch in batches([data[i] for i in torch.randperm(len(data))], tokenizer, options.batch_size):
            optimizer.zero_grad()
            model(**{key: value.to(DEVICE) for key, value in batch.items()}).loss.backward()
            optimizer.step()
        if epoch in ends:
            torch.save(model.state_dict(), files[ends.index(epoch)])
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of abstracts.jsonl and queries.jsonl; by default the hub's")
    parser.add_argument("--model", default="google/mt5-small", help="T5 or mT5: name on the hub, or a folder")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=100, help="abstracts that BM25 finds for a query")
    parser.add_argument("--checkpoints", type=int, default=1, help="models to train, each from a seed of its own")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--every", type=int, default=2, help="epochs from one checkpoint of TracIn to the next")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("examples/output/fact_tracing"))
    parser.add_argument("--smoke", action="store_true", help="a small model and few facts")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(small_data.answers_of_machines(options.output))
    abstracts, queries = load(options.data)
    known = {fact for abstract in abstracts for fact in abstract["facts"].split(";")}
    fitting = [query for query in queries if asked(query) in known]
    queries = [fitting[i] for i in np.random.default_rng(0).permutation(len(fitting))][: options.queries]
    chosen = {*retrieved(abstracts, queries, options.candidates), *np.flatnonzero(stated(abstracts, queries).any(1))}
    abstracts = [abstracts[i] for i in sorted(chosen)]
    relevant = stated(abstracts, queries)
    print(f"{len(abstracts)} abstracts, {len(queries)} queries, {relevant.sum(0).mean():.1f} abstracts state a fact")
    make = partial(transformers.AutoModelForSeq2SeqLM.from_pretrained, options.model, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    runs = [train(make, abstracts, tokenizer, seed, options) for seed in range(options.checkpoints)]
    model = make().to(DEVICE)
    data, targets = (batches(rows, tokenizer, options.batch_size) for rows in (abstracts, queries))
    where, last = options.output / "features", [files[-1] for files in runs]
    found = trak.attribute(model, "seq2seq", last, data, targets, where, device=DEVICE)
    rates = [options.learning_rate] * len(runs[0])
    tracin = baselines.TracIn(rates).attribute(model, "seq2seq", runs[0], data, targets)
    texts = [[filled(row) for row in rows] for rows in (abstracts, queries)]
    bm25 = baselines.BM25().attribute(None, "seq2seq", [], *([text] for text in texts))
    print("| method | MRR (95 % interval) | recall@10 |\n| --- | --- | --- |")
    for name, attribution in (("TRAK", found), ("TracIn", tracin), ("BM25", bm25)):
        ranked = retrieval(attribution, relevant, 10)
        print(f"| {name} | {ranked.mrr:.3f} ({ranked.mrr_interval}) | {ranked.recall[0]:.3f} |")
    print_top(found, range(min(3, len(queries))), texts[1], texts[0], k=3)


if __name__ == "__main__":
    main()
