"""One attribution that several processes, ranks or workers share."""

import os

from processes import fork, wait

N, TARGETS, BATCH, FEATURES, CHECKPOINTS = 44, 10, 4, 32, 2


def examples(inside=lambda index: None):
    """A data set in order, that calls `inside` when an example is loaded."""
    import torch

    class Examples(torch.utils.data.Dataset):
        def __init__(self):
            generator = torch.Generator().manual_seed(1)
            self.x, self.y = torch.randn(N, 6, generator=generator), torch.arange(N) % 3

        def __len__(self):
            return N

        def __getitem__(self, index):
            inside(index)
            return self.x[index], self.y[index]

    return Examples()


class Run:
    """What a user would run in every process."""

    def __init__(self, directory):
        import torch

        import trak.store.table

        # Several chunks, which batches straddle.
        trak.store.table.CHUNK_BYTES = trak.store.table.OBJECT_BYTES = 16 * FEATURES * 4
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.directory = str(directory)
        self.model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        self.states = [
            {name: torch.randn_like(value) for name, value in self.model.state_dict().items()}
            for _ in range(CHECKPOINTS)
        ]
        generator = torch.Generator().manual_seed(2)
        self.targets = [(torch.randn(TARGETS // 2, 6, generator=generator), torch.arange(5) % 3) for _ in range(2)]
        self.options = {"device": "cpu", "proj_dim": FEATURES, "logging_level": 40}

    def attribute(self, inside=lambda index: None, data=None, **loading):
        import torch

        import trak

        loader = torch.utils.data.DataLoader(data or examples(inside), batch_size=BATCH, **loading)
        return trak.attribute(
            self.model, "image_classification", self.states, loader, self.targets, self.directory, progress=False,
            **self.options,
        )  # fmt: skip

    def steps(self, pause=lambda: None):
        import torch

        import trak

        traker = trak.TRAKer(self.model, "image_classification", N, self.directory, **self.options)
        loader = torch.utils.data.DataLoader(examples(), batch_size=BATCH)
        for model_id, state in enumerate(self.states):
            self.model.load_state_dict(state)
            traker.load_checkpoint(self.model.state_dict(), model_id)
            for batch in loader:
                pause()
                traker.featurize(batch)
        traker.finalize_features()
        for model_id, state in enumerate(self.states):
            traker.start_scoring_checkpoint("targets", state, model_id, TARGETS)
            for batch in self.targets:
                traker.score(batch)
        return traker.finalize_scores("targets")


def save_top(path, attribution):
    import numpy as np

    np.savez(path, *attribution.top(7), *attribution.top(3, bottom=True))


def without_tops(files):
    """Without what only several processes keep."""
    return {path: digest for path, digest in files.items() if "/tops/" not in path}


def as_rank(rank, size, work):
    """Fork a child that takes itself for a rank."""

    def child(tell):
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
        work(tell)

    return fork(child)


def told(members):
    return [[words for _, words in wait(*member)] for member in members]
