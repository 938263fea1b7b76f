"""Real data that come with Python and scikit-learn, and small models of them, for the `--smoke` runs of examples."""

import errno
import inspect
import json
import os
from collections.abc import Callable
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

END, PADDING, BLANK = "</s>", "<pad>", "<extra_id_0>"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def docstrings(output: Path, cut: Callable[[list[str], Any, int, int], Tensor]) -> dict[str, Any]:
    """Options of language_model.py: what Python's documentation says of functions, and a tokenizer and a Llama of 2
    layers of 64 trained on it."""
    folder, length = output / "model", 48
    options: dict[str, Any] = {
        "model": folder,
        "corpus": str(output / "corpus.jsonl"),
        "length": length,
        "proj_dim": 512,
    }
    options |= {"prompt": ["math.gcd: Greatest", "shutil.move: Recursively"], "new_tokens": 6, "tokens": True}
    if (folder / "model.safetensors").exists():
        return options
    texts = list[str]()
    for module in map(import_module, ("math", "statistics", "itertools", "shutil", "heapq", "bisect")):
        for name, member in inspect.getmembers(module, callable):
            doc = inspect.getdoc(member) or ""
            if name[0] != "_" and str(getattr(member, "__module__", "")).lstrip("_") == module.__name__:
                texts.append(f"{module.__name__}.{name}: {doc.partition('.')[0]}.")
    output.mkdir(parents=True, exist_ok=True)
    Path(options["corpus"]).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=600, special_tokens=[END], show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=600, bos_token_id=None, eos_token_id=0, tie_word_embeddings=True, **size)
    )
    ids = cut(texts, tokenizer, length, len(texts))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
    for _ in range(30):
        for rows in torch.randperm(len(ids)).split(8):
            optimizer.zero_grad()
            model(input_ids=ids[rows], labels=ids[rows]).loss.backward()
            optimizer.step()
    keep(model, tokenizer, folder)
    return options


def answers_of_machines(output: Path) -> dict[str, Any]:
    """Options of fact_tracing.py: what HTTP's status codes and the operating system's error codes mean, in the form of
    FTRACE-TREx, a tokenizer by words and a T5 of 2 + 2 layers of 64 that is not trained yet."""
    options: dict[str, Any] = {"data": output / "data", "model": output / "model", "candidates": 240, "epochs": 20}
    options |= {"every": 5, "learning_rate": 5e-3, "batch_size": 24}
    if (options["model"] / "model.safetensors").exists():
        return options
    status = [("HTTP", str(int(code)), code.phrase) for code in HTTPStatus][:40]
    errors = [("errno", name, os.strerror(number)) for number, name in sorted(errno.errorcode.items())][:40]
    ways = ("{s} is sent to say {o} .", "a machine that is told {s} reads {o} .", "for {o} the code is {s} .")
    abstracts, queries = list[dict[str, Any]](), list[dict[str, Any]]()
    for i, (relation, code, phrase) in enumerate(status + errors):
        asked, fact = i % 2 == 0, {"predicate_id": relation, "obj_uri": phrase, "sub_uri": code}
        for way in ways if asked else (*ways[:2], "{s} means {o} ."):
            text = {"inputs_pretokenized": way.format(s=code, o=BLANK), "targets_pretokenized": f"{BLANK} {phrase}"}
            abstracts.append({**text, "facts": ",".join(fact.values())})
        if asked:
            text = {"inputs_pretokenized": f"{code} means {BLANK} .", "targets_pretokenized": f"{BLANK} {phrase}"}
            queries.append({**text, **fact})
    for name, rows in (("abstracts", abstracts), ("queries", queries)):
        options["data"].mkdir(parents=True, exist_ok=True)
        (options["data"] / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [row[key] for row in (*abstracts, *queries) for key in ("inputs_pretokenized", "targets_pretokenized")]
    tokenizer = by_words(texts)
    torch.manual_seed(0)
    size = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    config = transformers.T5Config(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=1, **size)
    config.decoder_start_token_id = 0
    keep(transformers.T5ForConditionalGeneration(config), tokenizer, options["model"])
    return options


def digits(output: Path) -> dict[str, Any]:
    """Options of clip_coco.py: scans of handwritten digits (scikit-learn's) with captions in the form of COCO's, a
    tokenizer by words and a CLIP of 2 + 2 layers of 32 that is not trained yet."""
    from PIL import Image
    from sklearn.datasets import load_digits

    options: dict[str, Any] = {
        "images": output / "images",
        "captions": output / "captions.json",
        "model": output / "model",
    }
    options |= {"queries": 10, "proj_dim": 512, "bank": 40, "epochs": 15, "learning_rate": 3e-3, "batch_size": 40}
    if (options["model"] / "model.safetensors").exists():
        return options
    scans, labels = load_digits(return_X_y=True)
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    options["images"].mkdir(parents=True, exist_ok=True)
    for i, (scan, label) in enumerate(zip(scans[:250], labels, strict=False)):
        ink = Image.fromarray((255 - 15.9 * scan.reshape(8, 8)).astype(np.uint8))
        ink.resize((16, 16)).save(options["images"] / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png"})
        way = ("a handwritten {}", "the digit {}", "{} written by hand")[i % 3]
        annotations.append({"image_id": i, "caption": way.format(DIGITS[label])})
    options["captions"].write_text(json.dumps({"images": images, "annotations": annotations}))
    tokenizer = by_words([annotation["caption"] for annotation in annotations])
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**size, "vocab_size": len(tokenizer), "max_position_embeddings": 8}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    vision = {**size, "image_size": 16, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    keep(transformers.CLIPModel(config), tokenizer, options["model"])
    return options


def by_words(texts: list[str]) -> Any:
    """A tokenizer that knows every word, 0 for padding and 1 for the end."""
    words = sorted({word for text in texts for word in text.split()} - {BLANK})
    numbers = {word: i for i, word in enumerate((PADDING, END, BLANK, *words))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=PADDING))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PADDING, eos_token=END)


def keep(model: Any, tokenizer: Any, folder: Path) -> None:
    """As `from_pretrained` reads them."""
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
