"""Which pairs of an image and a caption taught a CLIP that two belong together? On captions of MS COCO.

`python examples/clip_coco.py --images val2017 --captions annotations/captions_val2017.json` (cocodataset.org) trains
transformers' CLIP further on the pairs, or `--open-clip ViT-B-32 openai`, and attributes held-out pairs to them,
printed and drawn in attributions.png. Kill it at any time and run it again: it goes on. `--smoke` takes a small CLIP
and handwritten digits.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import small_data
import torch
import transformers
from PIL import Image, ImageOps
from running import print_top
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

import trak
from trak.tasks.image_text import embed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MEAN, STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)
"""Of the images that CLIP was trained on."""


Pair = tuple[Path, str]
Collate = Callable[[list[Pair]], dict[str, Tensor]]


def read(images: Path, captions: Path) -> list[Pair]:
    """Images of a folder, each with the first of its captions in a file of COCO's."""
    found = json.loads(captions.read_text())
    first = {note["image_id"]: note["caption"].strip() for note in reversed(found["annotations"])}
    return [(images / x["file_name"], first[x["id"]]) for x in found["images"] if x["id"] in first]


def opened(path: Path) -> Image.Image:
    """In colour, whatever the file is."""
    return Image.open(path).convert("RGB")


def load(options: argparse.Namespace) -> tuple[nn.Module, Collate]:
    """A model of transformers or open_clip, and what makes batches for it."""
    if options.open_clip:
        import open_clip

        model, _, look = open_clip.create_model_and_transforms(*options.open_clip)
        tokens = open_clip.get_tokenizer(options.open_clip[0])
        return model.eval(), lambda pairs: {
            "images": torch.stack([look(opened(path)) for path, _ in pairs]),
            "tokens": tokens([text for _, text in pairs]),
        }
    try:
        model = transformers.CLIPModel.from_pretrained(options.model, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    except OSError as error:
        raise SystemExit(f"{error}\nIf the hub can't be reached: --model FOLDER") from error
    side, longest = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings

    def collate(pairs: list[Pair]) -> dict[str, Tensor]:
        fitted = [np.asarray(ImageOps.fit(opened(path), (side, side), Image.Resampling.BICUBIC)) for path, _ in pairs]
        pixels = torch.tensor((np.stack(fitted) / 255 - MEAN) / STD, dtype=torch.float32)
        how = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
        words = tokenizer([text for _, text in pairs], **how)
        return {"pixel_values": pixels.permute(0, 3, 1, 2).contiguous(), **words}

    return model.eval(), collate


def train(model: nn.Module, collate: Collate, data: Any, seed: int, options: argparse.Namespace) -> Path:
    """The file of a model trained further on the pairs, by the contrastive loss."""
    file: Path = options.output / f"{seed}.pt"
    if file.exists():
        return file
    torch.manual_seed(seed)
    model.train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    loader: DataLoader[Any] = DataLoader(data, options.batch_size, shuffle=True, collate_fn=collate, drop_last=True)
    for _ in tqdm(range(options.epochs), desc=f"training {seed}", unit="epoch"):
        for batch in loader:
            found = embed(model, {key: value.to(DEVICE) for key, value in batch.items()})
            assert found.scale is not None
            logits, own = found.scale * found.images @ found.texts.T, torch.arange(options.batch_size, device=DEVICE)
            optimizer.zero_grad()
            (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)).backward()
            optimizer.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return file


def draw(attribution: trak.Attribution, held: list[Pair], data: list[Pair], file: Path) -> None:
    """Five queries, and after each the five pairs that pushed it up most."""
    figure, axes = plt.subplots(5, 6, figsize=(10, 11))
    found = attribution.top(5)
    for target, row in enumerate(axes):
        helpful = zip(found.indices[target].tolist(), found.scores[target], strict=True)
        shown = [(*held[target], "query"), *((*data[i], f"{score:+.2g}") for i, score in helpful)]
        for ax, (path, caption, title) in zip(row, shown, strict=True):
            ax.imshow(opened(path))
            ax.set(xticks=[], yticks=[], title=title)
            ax.set_xlabel(fill(caption, 26), fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--captions", type=Path, help="captions_*.json")
    parser.add_argument("--model", default="openai/clip-vit-base-patch32", help="CLIP: name on the hub, or a folder")
    parser.add_argument("--open-clip", nargs=2, help="instead, a model of open_clip and its weights: ViT-B-32 openai")
    parser.add_argument("--checkpoints", type=int, default=1, help="models to train, each from a seed of its own")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--bank", type=int, default=300, help="pairs that each one is held against")
    parser.add_argument("--queries", type=int, default=10, help="pairs held out and attributed")
    parser.add_argument("--proj-dim", type=int, default=2048)
    parser.add_argument("--output", type=Path, default=Path("examples/output/clip_coco"))
    parser.add_argument("--smoke", action="store_true", help="a small model and few pairs")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(small_data.digits(options.output))
    if not (options.images and options.captions):
        parser.error("--images and --captions, or --smoke, are needed")
    pairs: Any = read(options.images, options.captions)
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    held, data = pairs[: options.queries], pairs[options.queries :]
    files = [train(*load(options), data, seed, options) for seed in range(options.checkpoints)]
    model, collate = load(options)
    train_loader, queries = (DataLoader(d, options.batch_size, collate_fn=collate) for d in (data, held))
    attribution = trak.attribute(
        model, trak.tasks.CLIP(train_loader, options.bank), files, train_loader, queries, options.output / "features",
        proj_dim=options.proj_dim, device=DEVICE,
    )  # fmt: skip
    print_top(attribution, range(len(held)), [text for _, text in held], [text for _, text in data])
    draw(attribution, held, data, options.output / "attributions.png")


if __name__ == "__main__":
    main()
