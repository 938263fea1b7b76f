"""What a projection costs in faithfulness: LDS by projector and dimension, with its spread over projection seeds.

Run `python benchmarks/faithfulness.py`; most of its time goes to retraining, which examples/frontier.py shares.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import real_tasks  # noqa: E402

import trak  # noqa: E402
from trak.evaluation import lds, retrain  # noqa: E402
from trak.projectors import Factored, Projector, Rademacher, Sketch  # noqa: E402

SIZES = {"digits": (160, 4), "snippets": (120, 3)}


def projectors(k: int, seed: int) -> dict[str, Projector]:
    """Inner dimensions stand to these models' widths as 16, 32 and 64 to widths four times as large."""
    return {
        "sketch": Sketch(k, seed),
        "rademacher": Rademacher(k, seed),
        **{f"factored, inner_dim = {r}": Factored(k, seed, r) for r in (4, 8, 16)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["digits", "snippets"])
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/faithfulness.json"))
    arguments = parser.parse_args()
    rows = []
    print("| task | projector | k | LDS, mean over projection seeds | standard deviation over seeds |")
    print("| --- | --- | --- | --- | --- |")
    for name in arguments.tasks:
        task, folder = real_tasks.TASKS[name](), EXAMPLES / "output" / "frontier" / name
        paths, _ = real_tasks.checkpoints(task, arguments.checkpoints, folder / "checkpoints")
        truth = retrain(
            task.train, task.task, task.targets, train_set_size=task.size, save_dir=folder / "truth",
            subsets=SIZES[name][0], seeds=SIZES[name][1], config=task.config,
        )  # fmt: skip
        for k in arguments.dims:
            found: dict[str, list[float]] = {}
            for seed in range(arguments.seeds):
                for kind, projector in projectors(k, seed).items():
                    with tempfile.TemporaryDirectory() as directory:
                        attribution = trak.attribute(
                            task.make(), task.task, [real_tasks.weights(path) for path in paths],
                            task.batches(task.labels), task.targets, directory, projector=projector, progress=False,
                        )  # fmt: skip
                        score = lds(attribution.scores, truth, resamples=20, permutations=20).mean
                    found.setdefault(kind, []).append(score)
            for kind, scores in found.items():
                print(f"| {name} | {kind} | {k} | {np.mean(scores):.4f} | {np.std(scores, ddof=1):.4f} |", flush=True)
                rows.append({"task": name, "projector": kind, "k": k, "lds": scores})
        print(
            f"| {name} | noise ceiling |  | {lds(attribution.scores * 0, truth, resamples=20).noise_ceiling:.4f} |  |"
        )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
