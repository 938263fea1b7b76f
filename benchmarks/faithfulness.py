"""What a projection costs in faithfulness: LDS by projector and dimension, with its spread over projection seeds.

Run `python benchmarks/faithfulness.py`; most of its time goes to retraining, which examples/frontier.py shares.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from frontier import Frontier

from trak.evaluation import lds
from trak.projectors import Factored, Projector, Rademacher, Sketch


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
        frontier = Frontier(name)
        for k in arguments.dims:
            found: dict[str, list[float]] = {}
            for seed in range(arguments.seeds):
                for kind, projector in projectors(k, seed).items():
                    attribution = frontier.scores(arguments.checkpoints, projector=projector)
                    score = lds(attribution.scores, frontier.truth, resamples=20, permutations=20).mean
                    found.setdefault(kind, []).append(score)
            for kind, scores in found.items():
                print(f"| {name} | {kind} | {k} | {np.mean(scores):.4f} | {np.std(scores, ddof=1):.4f} |", flush=True)
                rows.append({"task": name, "projector": kind, "k": k, "lds": scores})
        ceiling = lds(attribution.scores * 0, frontier.truth, resamples=20).noise_ceiling
        print(f"| {name} | noise ceiling |  | {ceiling:.4f} |  |")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
