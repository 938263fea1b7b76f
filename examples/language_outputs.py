"""Which scalar should a language model be attributed by? LDS of each output of `trak.tasks.LanguageModeling`.

`python examples/language_outputs.py` takes a small GPT-2's answers to questions (the facts of fact_tracing_small.py,
one token each), and the same sentences learnt whole, and prints the linear datamodeling score (LDS) by each output.
The answers are judged by their cross-entropy, of which "margin" is a monotone function, so that ranks are the same; the
sentences by that and by their mean margin. Half an hour of one core; kept in examples/output/frontier.
"""

from frontier import TRUTH, Frontier

from trak.evaluation import lds, retrain
from trak.tasks import LanguageModeling

CHECKPOINTS = 10
OUTPUTS = ("margin", "mean_margin", "cross_entropy")


def main() -> None:
    facts, sentences = (Frontier(name, checkpoints=CHECKPOINTS) for name in ("facts", "sentences"))
    task, (subsets, seeds) = sentences.task, TRUTH["sentences"]
    margins = retrain(
        task.train, LanguageModeling("mean_margin"), task.targets, train_set_size=task.size,
        save_dir=sentences.folder / "truth-mean_margin", subsets=subsets, seeds=seeds, config=task.config,
    )  # fmt: skip
    judged = {
        "answers, cross-entropy": (facts, facts.truth),
        "sentences, cross-entropy": (sentences, sentences.truth),
        "sentences, mean margin": (sentences, margins),
    }
    print(f"| output | {' | '.join(judged)} |\n| --- |{' --- |' * len(judged)}")
    for output in OUTPUTS:
        scores = {f.name: f.scores(CHECKPOINTS, of=LanguageModeling(output)).scores.copy() for f in (facts, sentences)}
        found = [lds(scores[frontier.name], truth) for frontier, truth in judged.values()]
        print(f"| {output} | {' | '.join(f'{each.mean:.3f} ({each.interval})' for each in found)} |", flush=True)
    print(f"| noise ceiling | {' | '.join(f'{each.noise_ceiling:.3f}' for each in found)} |")


if __name__ == "__main__":
    main()
