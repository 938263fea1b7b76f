"""Several writers of one store on an S3 server that fails one request in ten and cuts one connection in twenty.

`python tests/chaos/s3_writers.py` runs three ranks, kills ranks at random, twenty times, runs the same twice at once,
and a job array whose tasks share chunks, in five minutes; `--seed` gives other moments. What is left must be what one
process leaves on a server without faults. Prints as JSON what differed, and ends with status 1 if anything did.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "helpers")]
os.environ["TQDM_DISABLE"] = "1"

import s3
from processes import differences, done, fork, wait
from shared_runs import BATCH, N, Run, as_rank, examples

RANKS = 3
CALM = {"errors": 0.0, "drops": 0.0}
FAILING = {"errors": 0.1, "drops": 0.05}


def member(url, tell, slow=0.0):
    """A rank: attributes, and tells what it loads, or the error that stopped it."""
    run = Run(url)

    def inside(index):
        time.sleep(slow)
        tell(f"load {index}")

    try:
        run.attribute(inside).scores  # noqa: B018
    except Exception as error:
        tell(f"error {error!r}".replace("\n", " "))


def ended(members):
    """What the members told: loads of each, and errors of all."""
    words = [[word for _, word in wait(*one)] for one in members]
    loads = [[int(word.split()[1]) for word in one if word.startswith("load")] for one in words]
    return {"loads": loads, "errors": [word for one in words for word in one if word.startswith("error")]}


def in_child(work):
    """What a function returns when called in a child, which may use obstore and leave no threads to those forked."""
    return json.loads(done(lambda tell: tell(json.dumps(work())))[0][1])


def new_url():
    return f"{s3.new_bucket()}/run"


def compared(url, expected):
    return {"different": differences(in_child(lambda: s3.contents(url)), expected)}


def start(url, count=RANKS, slow=0.0):
    return [as_rank(rank, count, lambda tell: member(url, tell, slow)) for rank in range(count)]


def killed(url, kills, rng):
    """Kill ranks at random, each started again."""

    def one(rank):
        return as_rank(rank, RANKS, lambda tell: member(url, tell, 0.02))

    ranks = {rank: one(rank) for rank in range(RANKS)}
    for _ in range(kills):
        time.sleep(rng.uniform(0.1, 0.8))
        rank = rng.randrange(RANKS)
        child, reading = ranks[rank]
        os.kill(child, signal.SIGKILL)
        os.close(reading)
        os.waitpid(child, 0)
        ranks[rank] = one(rank)
    return ended(ranks.values())


def parts(url, rng):
    """A job array whose tasks' examples straddle chunks, in random order, all at once; then finalize and score."""

    def task(number):
        def work(tell):
            import numpy as np
            import torch

            import trak

            run = Run(url)
            traker = trak.TRAKer(run.model, "image_classification", N, url, **run.options)
            with traker.overlapped():
                for model_id, state in enumerate(run.states):
                    traker.load_checkpoint(state, model_id)
                    for first in range(number * BATCH, N, 4 * BATCH):
                        rows = range(first, min(first + BATCH, N))
                        batch = next(
                            iter(torch.utils.data.DataLoader(torch.utils.data.Subset(examples(), rows), len(rows)))
                        )
                        traker.featurize(batch, inds=np.array(rows))

        return fork(work)

    started = [task(number) for number in rng.sample(range(4), 4)]
    found = ended(started)
    return {**found, **ended([fork(lambda tell: Run(url).steps())])}


def one_process(root):
    url = new_url()
    found = ended([fork(lambda tell: member(url, tell))])
    if found["errors"]:
        raise RuntimeError(found["errors"])
    return url, in_child(lambda: s3.contents(url))


def secrets(url):
    """Names of objects in which the credentials are."""
    hidden = [value.encode() for value in s3.CREDENTIALS.values()]
    return [name for name, data in s3.objects(url).items() if any(one in data for one in hidden)]


def difference(url, directory):
    import numpy as np

    import trak

    bucket = trak.Attribution.open(url).scores
    local = Run(directory).attribute().scores
    return float(np.abs(bucket - local).max() / np.abs(local).max())


def drive(root, seed, kills):
    import torch

    import trak._utils.ranks
    import trak.store.object_store

    torch.set_num_threads(1)
    trak._utils.ranks.PATIENCE = 1.0
    quick = {"init_backoff": timedelta(milliseconds=2), "max_backoff": timedelta(milliseconds=20), "base": 2}
    trak.store.object_store._RETRIES["backoff"] = quick
    rng, found = random.Random(seed), {}
    with s3.server(**CALM) as environment:
        os.environ.update(environment)
        url, expected = one_process(root)
        ranks = new_url()
        found["ranks"] = ended(start(ranks)) | compared(ranks, expected) | {"all": 2 * N}
        found["ranks"]["secrets"] = in_child(lambda: secrets(ranks))
        found["ranks"]["scores differ by"] = in_child(lambda: difference(ranks, root / "local"))
        many = new_url()
        found["parts"] = parts(many, rng) | compared(many, expected)
    with s3.server(**FAILING, seed=seed) as environment:
        os.environ.update(environment)
        url = new_url()
        found["failing"] = ended(start(url)) | compared(url, expected)
        url = new_url()
        found["killed"] = killed(url, kills, rng) | compared(url, expected)
        url = new_url()
        found["twice"] = ended([fork(lambda tell: member(url, tell)) for _ in range(2)]) | compared(url, expected)
        found["failing"]["counts"] = s3.counts()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = drive(Path(root), chosen.seed, chosen.kills)
    print(json.dumps(found))
    return any(one["different"] or one["errors"] for one in found.values())


if __name__ == "__main__":
    sys.exit(main())
