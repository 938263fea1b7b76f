"""Exact scores to compare with: no projection, every gradient by itself, float64 where it matters."""

import numpy as np
import torch
from peer_runners.work import Work, margin
from tqdm.auto import tqdm

ROOM = 8 * 2**30
DAMPING = 3.0


class Exact:
    """The inner products of the margins' gradients, which are all that the scores depend on.

    Of as many of the first training examples as fit into memory, and of all targets.
    """

    def __init__(self, work: Work) -> None:
        network, (train, targets) = work.network(), work.data()
        parameters = list(network.parameters())
        size, self.targets = sum(p.numel() for p in parameters), len(targets[-1])
        self.examples = max(1, min(work.examples, ROOM // (4 * size) - self.targets))
        parts = [tuple(t[: self.examples] for t in train), targets]
        batches = [tuple(t[i : i + 1] for t in data) for data in parts for i in range(len(data[-1]))]
        rows, outputs = torch.empty(len(batches), size), torch.empty(len(batches))
        for i, (*inputs, label) in enumerate(tqdm(batches, desc="exact gradients", unit="ex")):
            output = margin(network(*inputs), label).sum()
            outputs[i] = output.detach()
            torch.cat([g.flatten() for g in torch.autograd.grad(output, parameters)], out=rows[i])
        self.kernel, self.q = (rows @ rows.T).double(), torch.sigmoid(-outputs.double())

    def penalty(self, n: int, k: int) -> float:
        """λ = 3 · trace(K) / k for n examples."""
        return float(DAMPING * self.kernel.diagonal()[: min(n, self.examples)].mean() * n / k)

    def scores(self, quantity: str, n: int, penalty: float) -> np.ndarray | None:
        """Shape (n, m): TRAK with W = I, or the inner products of the losses' gradients; None for what is not known.

        φ_tᵀ(ΦᵀΦ + λI)⁻¹φ_i is entry (i, t) of (ΦΦᵀ + λI)⁻¹ΦΦ_tᵀ; the gradient of a loss is -Q times that of the margin.
        """
        if n > self.examples or quantity not in ("TRAK", "gradient product"):
            return None
        among, between, q = self.kernel[:n, :n], self.kernel[:n, -self.targets :], self.q[:n, None]
        if quantity == "gradient product":
            return (q * self.q[-self.targets :] * between).numpy()
        return (q * torch.linalg.solve(among + penalty * torch.eye(n, dtype=among.dtype), between)).numpy()


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's over the training examples, averaged over the targets."""
    a, b = (np.float64(scores) - np.float64(scores).mean(0) for scores in (a, b))
    norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(np.mean((a * b).sum(0) / np.where(norms > 0, norms, np.inf)))
