"""What a user writes, which tests/test_packaging.py has mypy read as the user's; it runs, too, given a folder."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.evaluation import lds, retrain

IntArray = np.ndarray[tuple[int], np.dtype[np.int64]]

data = TensorDataset(torch.rand(24, 4), torch.arange(24) % 3)
train_loader = DataLoader(data, batch_size=8)
target_loader = DataLoader(data, batch_size=12)


@trak.tasks.register_task("logit")
class Logit(trak.tasks.Task):
    def output(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        logits: Tensor = model(inputs)
        return logits.gather(1, labels[:, None]).squeeze(1)

    def loss(self, output: Tensor) -> Tensor:
        return (1 - output).clamp(min=0).square()


def trained(indices: IntArray, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, labels = data[indices]
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
    return model


def main(folder: Path) -> None:
    models = [trained(np.arange(24), seed) for seed in (0, 1)]
    torch.save(models[0].state_dict(), folder / "run0.pt")
    attribution = trak.attribute(
        models[0],
        task="image_classification",
        checkpoints=[folder / "run0.pt", models[1].state_dict()],
        train=train_loader,
        targets=target_loader,
        save_dir=folder / "results",
        proj_dim=16,
        progress=False,
    )
    helpful = attribution.top(k=3)
    first = int(helpful.indices[0, 0])
    best = float(helpful.scores[0, 0])
    print(first, best, attribution.scores.mean(), attribution.shape)
    attribution.show(data, data, targets=[0, 1], k=2)
    attribution.report(folder / "report.html", k=2)
    print(attribution.to_frame(k=2).head())

    truth = retrain(
        trained,
        task="image_classification",
        targets=target_loader,
        train_set_size=24,
        save_dir=folder / "retrained",
        subsets=6,
        seeds=1,
        jobs=1,
    )
    result = lds(attribution, truth)
    print(result, result.mean, result.noise_ceiling)

    traker = trak.TRAKer(models[0], Logit(), train_set_size=24, save_dir=folder / "own", proj_dim=16)
    traker.load_checkpoint(models[0].state_dict(), model_id=0)
    for batch in train_loader:
        traker.featurize(batch)
    traker.finalize_features()
    traker.start_scoring_checkpoint("own", models[0].state_dict(), model_id=0, num_targets=24)
    for batch in target_loader:
        traker.score(batch)
    scores = traker.finalize_scores("own")
    print(scores.shape, scores[:, 0].argmax())
    reopened = trak.Attribution.open(folder / "own", "own")
    print(reopened.top(1).indices)


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]))
