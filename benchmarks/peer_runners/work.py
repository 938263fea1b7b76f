"""The work that every package is given, and how a runner reports it; needs torch, numpy and models.py alone."""

import importlib.metadata
import json
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import CASES, Case
from torch import Tensor, nn

RESULT = "RESULT "


class Logits(nn.Module):
    """A transformers classifier as a module from tensors to logits, which is what most packages expect."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits  # fmt: skip


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of the labels, shape (B,); may be vmapped."""
    right = labels.unsqueeze(-1) == torch.arange(logits.shape[-1])
    return logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - logits.masked_fill(right, -torch.inf).logsumexp(-1)


@dataclass(frozen=True)
class Work:
    """Scores of `examples` training examples for all targets; `penalty` is λ for features of unit scale."""

    model: str
    directory: str
    examples: int
    k: int
    threads: int
    penalty: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def case(self) -> Case:
        return CASES[self.model]

    @property
    def is_text(self) -> bool:
        return self.case.task == "text_classification"

    def data(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Training examples and targets: the model's inputs, then the labels."""
        stored = torch.load(Path(self.directory) / "data.pt")
        return tuple(member[: self.examples] for member in stored["train"]), tuple(stored["targets"])

    def checkpoint(self) -> Path:
        return Path(self.directory) / "checkpoint.pt"

    def network(self) -> nn.Module:
        """The trained model in evaluation mode, from tensors to logits."""
        model = self.case.make()
        model.load_state_dict(torch.load(self.checkpoint()))
        return (Logits(model) if self.is_text else model).eval()

    @contextmanager
    def timed(self, stage: str, grows: bool = True) -> Iterator[None]:
        """Time a stage; one that `grows` takes time in proportion to the training examples."""
        start = time.perf_counter()
        yield
        self.stages.append({"stage": stage, "seconds": time.perf_counter() - start, "grows": grows})


def batches(data: tuple[Tensor, ...], size: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(member.split(size) for member in data), strict=True))


def loader(data: tuple[Tensor, ...], size: int) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=size, shuffle=False)


def warm_up(network: nn.Module, data: tuple[Tensor, ...]) -> None:
    """A forward and backward pass, which no package should be charged for being the first to do."""
    *inputs, labels = (member[:32] for member in data)
    nn.functional.cross_entropy(network(*inputs), labels).backward()
    network.zero_grad()


def peak_gib() -> float:
    """Peak memory of this process; unlike what getrusage tells, without what its parent had."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**20  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(package: str, run: Callable[[Work, Path], np.ndarray | None]) -> None:
    """Do the work named on the command line; the last line printed is the result as JSON."""
    work = Work(**json.loads(sys.argv[1]))
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {"torch": torch.__version__}
    try:
        result["version"] = importlib.metadata.version(package)
        with tempfile.TemporaryDirectory() as scratch:
            scores = run(work, Path(scratch))
        result["stages"] = work.stages
        result["peak_gib"] = peak_gib()
        if scores is not None:
            if not np.isfinite(scores).all():
                raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
            result["scores"] = str(Path(work.directory) / f"scores-{Path(sys.argv[0]).stem}-{work.examples}.npy")
            np.save(result["scores"], np.asarray(scores, np.float32))
    except BaseException as error:
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    print(RESULT + json.dumps(result), flush=True)


def to_json(work: Work) -> str:
    return json.dumps({name: value for name, value in asdict(work).items() if name != "stages"})
