"""The same ratios on a CUDA GPU: `python benchmarks/gpu.py`, a few minutes; needs nothing but the GPU."""

import statistics
from typing import Any

import torch
from models import CASES
from run import interleaved, ratio, steps
from torch import Tensor, nn

from trak.inputs.batches import Batch
from trak.projectors import Accumulator, Factored, Projector, Rademacher, Sketch
from trak.tasks import ImageClassification, Task, TextClassification


class HalfImages(ImageClassification):
    """The model's own passes in bfloat16, as it may have been trained."""

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return super().output(model, batch).float()


class HalfTexts(TextClassification):
    """The same for texts."""

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return super().output(model, batch).float()


def featurizing(name: str, projector: Projector, task: Task | None, rounds: int) -> dict[str, Any]:
    plain, features = steps(name, projector, "cuda", task)
    peaks = []
    for function in (features, plain):
        function()
        torch.cuda.reset_peak_memory_stats()
        function()
        peaks.append(torch.cuda.max_memory_allocated())
    seconds = interleaved({"plain": plain, "features": features}, rounds)
    half = ", bfloat16 passes" if task else ""
    row = ratio(
        f"{name}, {projector.name}, k = {projector.proj_dim}{half}", "featurize ÷ plain forward + backward", 1.4,
        seconds["features"], seconds["plain"],
    )  # fmt: skip
    print(f"|  | peak memory ÷ plain | {peaks[0] / peaks[1]:.2f} |  | 1.5 |")
    return row


def projecting(projector: Projector, elements: int, rounds: int) -> None:
    block = torch.randn(8, elements, device="cuda")
    copy = torch.empty_like(block)

    def project() -> None:
        total = Accumulator(projector, len(block), 0, block.device, block.dtype)
        total.add("weight", block)
        total.result()

    seconds = interleaved({"project": project, "copy": lambda: copy.copy_(block)}, rounds)
    ratio(f"{projector.name} of 8 x {elements:.0e}", "÷ one copy of them", 2, seconds["project"], seconds["copy"])
    rate = block.numel() * 4 / statistics.median(seconds["project"]) / 1e9
    print(f"|  | GB/s read | {rate:.0f} |  |  |")


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("needs a CUDA GPU; on a CPU use benchmarks/run.py")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print("| work | figure | median | lowest - highest | goal |\n| --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        half = HalfImages() if case.task == "image_classification" else HalfTexts()
        for task in (None, half):
            for projector in (Sketch(4096), Factored(4096)):
                featurizing(name, projector, task, rounds=7)
    for projector, elements in ((Sketch(4096), 10**8), (Rademacher(4096), 10**6)):
        projecting(projector, elements, rounds=7)


if __name__ == "__main__":
    main()
