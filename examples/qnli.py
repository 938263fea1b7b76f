"""Which training pairs made a BERT say that a sentence answers a question? QNLI of GLUE, as in section 4 of the paper.

`python examples/qnli.py` (`pip install datasets transformers`) fine-tunes bert-base-cased by three seeds, attributes
its outputs for validation pairs to 50,000 training pairs, and prints the pairs that pushed them up and down. It wants
a GPU. `--checkpoints FILE FILE` takes state dicts of your own. Kill it at any time, and the same command goes on.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from running import checkpoints, print_top
from smoke import docstrings
from torch import Tensor, nn

import trak

LABELS = ("answers it", "does not")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RECIPE = ("model", "train_size", "epochs", "batch_size", "learning_rate", "max_length")
SMOKE = """--train-size 150 --targets 50 --show 3 --epochs 2 --batch-size 16 --learning-rate 0.002 --max-length 48
    --seeds 2 --proj-dim 256 --model small"""
Pairs = list[tuple[str, str, int]]


def load(options: argparse.Namespace) -> tuple[Pairs, Pairs]:
    """(question, sentence, label) of the training set and of the targets."""
    if options.smoke:
        pairs = docstrings()
        return pairs[: options.train_size], pairs[-options.targets :]
    try:
        from datasets import load_dataset

        data = load_dataset("nyu-mll/glue", "qnli")
    except (ImportError, OSError) as error:
        raise SystemExit(f"QNLI can't be had ({error}): pip install datasets, and be online once") from error
    wanted = (("train", options.train_size), ("validation", options.targets))
    parts = [data[split].shuffle(seed=0)[:size] for split, size in wanted]
    train, targets = ([*zip(x["question"], x["sentence"], x["label"], strict=True)] for x in parts)
    return train, targets


def make_tokenizer(options: argparse.Namespace, pairs: Pairs) -> Any:
    """The model's own, or for --smoke one that is trained on the training pairs."""
    from transformers import AutoTokenizer, BertTokenizerFast

    if not options.smoke:
        return AutoTokenizer.from_pretrained(options.model)
    if not (options.output / "vocab.txt").exists():
        from tokenizers import BertWordPieceTokenizer

        tokenizer = BertWordPieceTokenizer()
        texts = [text for question, sentence, _ in pairs for text in (question, sentence)]
        tokenizer.train_from_iterator(texts, vocab_size=800, show_progress=False)
        options.output.mkdir(parents=True, exist_ok=True)
        tokenizer.save_model(str(options.output))
    return BertTokenizerFast(str(options.output / "vocab.txt"))


def make_model(options: argparse.Namespace) -> nn.Module:
    """A classifier of pairs, its head untrained."""
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    if options.smoke:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        return BertForSequenceClassification(BertConfig(vocab_size=800, num_labels=2, **sizes))
    return AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)


def batches(data: dict[str, Tensor], size: int, order: Tensor | None = None) -> list[dict[str, Tensor]]:
    """Of some examples, or all in order."""
    order = torch.arange(len(data["labels"])) if order is None else order
    return [{name: tensor[some] for name, tensor in data.items()} for some in order.split(size)]


def train(options: argparse.Namespace, data: dict[str, Tensor], seed: int) -> nn.Module:
    """Fine-tune on everything, with a warm-up and a linear decay."""
    torch.manual_seed(seed)
    model = make_model(options).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    count = len(data["labels"])
    steps = options.epochs * -(-count // options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, steps, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
    )
    for _ in range(options.epochs):
        for batch in batches(data, options.batch_size, torch.randperm(count)):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
                loss = model(**{name: tensor.to(DEVICE) for name, tensor in batch.items()}).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/output/qnli"), help="where results go")
    parser.add_argument("--model", default="bert-base-cased", help="name or folder of a model of transformers")
    parser.add_argument("--checkpoints", type=Path, nargs="+", help="state dicts, instead of training")
    parser.add_argument("--grad-wrt", nargs="+", help="parameters to differentiate by, * allowed; by default all")
    for name, default in {
        "seeds": 3, "train-size": 50_000, "targets": 500, "show": 5, "epochs": 3, "batch-size": 32, "max-length": 128,
        "learning-rate": 2e-5, "proj-dim": 4096,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--smoke", action="store_true", help="a small run on the documentation of Python's modules")
    return parser.parse_args(SMOKE.split() * ("--smoke" in sys.argv) + sys.argv[1:])


def main() -> None:
    options = parse()
    pairs = load(options)
    tokenizer = make_tokenizer(options, pairs[0])

    def encoded(some: Pairs) -> dict[str, Tensor]:
        questions, sentences, labels = map(list, zip(*some, strict=True))
        shape = {"truncation": True, "padding": "max_length", "max_length": options.max_length}
        return {**tokenizer(questions, sentences, return_tensors="pt", **shape), "labels": torch.tensor(labels)}

    data, targets = map(encoded, pairs)
    print(f"{len(pairs[0])} training pairs and {len(pairs[1])} targets")
    recipe = {name: getattr(options, name) for name in RECIPE}
    paths = options.checkpoints or checkpoints(options.output, options.seeds, partial(train, options, data), recipe)
    attribution = trak.attribute(
        make_model(options), "text_classification", paths, batches(data, options.batch_size),
        batches(targets, options.batch_size), options.output / "features", grad_wrt=options.grad_wrt,
        proj_dim=options.proj_dim,
    )  # fmt: skip
    texts, wanted = ([f"[{LABELS[label]}] {q} {s}" for q, s, label in some] for some in pairs)
    print_top(attribution, range(min(options.show, len(wanted))), wanted, texts)


if __name__ == "__main__":
    main()
