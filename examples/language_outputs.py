"""Which scalar should a language model be attributed by? LDS of each output of `trak.tasks.LanguageModeling`.

`python examples/language_outputs.py` trains a small GPT-2 on whole sentences (the facts of fact_tracing_small.py) and
on random halves of them, and prints the linear datamodeling score (LDS) of TRAK by each output, judged by what became
of two numbers: the targets' mean cross-entropy, of which "margin" is a monotone function, so that ranks are the same,
and their mean margin. Half an hour of one core; kept in examples/output/frontier/sentences.
"""

from frontier import TRUTH, Frontier

from trak.evaluation import lds, retrain
from trak.tasks import LanguageModeling

CHECKPOINTS = 10
OUTPUTS = ("margin", "mean_margin", "cross_entropy")


def main() -> None:
    frontier = Frontier("sentences", checkpoints=CHECKPOINTS)
    task, (subsets, seeds) = frontier.task, TRUTH["sentences"]
    judges = {
        measured: retrain(
            task.train, LanguageModeling(measured), task.targets, train_set_size=task.size,
            save_dir=frontier.folder / f"truth-{measured}", subsets=subsets, seeds=seeds, config=task.config,
        )
        for measured in ("cross_entropy", "mean_margin")
    }  # fmt: skip
    print(f"{task.size} sentences; {judges['cross_entropy']}")
    print("| output | LDS for the cross-entropy (95 % interval) | LDS for the mean margin |\n| --- | --- | --- |")
    for output in OUTPUTS:
        scores = frontier.scores(CHECKPOINTS, of=LanguageModeling(output)).scores
        found = [lds(scores, judge) for judge in judges.values()]
        print(f"| {output} | {' | '.join(f'{each.mean:.3f} ({each.interval})' for each in found)} |", flush=True)
    print(f"| noise ceiling | {' | '.join(f'{each.noise_ceiling:.3f}' for each in found)} |")


if __name__ == "__main__":
    main()
