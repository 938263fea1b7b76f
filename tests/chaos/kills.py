"""Ranks that share a store are killed at random, all at once, and run out of disk: what is left is what one run leaves.

`python tests/chaos/kills.py` does it with 3 ranks and 20 kills of one of them, 5 of all of them, and 5 full disks, in a
minute; `--seed` gives others. It prints what differed, and ends with status 1 if anything did.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "helpers")]
os.environ["TQDM_DISABLE"] = "1"

RANKS, SLOW = 3, 0.003
"""Seconds that an example takes to load, so that there is time to kill."""
FULL = "no room to write"


def member(run, tell):
    """A rank: attributes, and tells the error that stopped it."""
    try:
        run.attribute(lambda index: time.sleep(SLOW)).scores  # noqa: B018
    except OSError as error:
        tell(str(error))


def start(run, rank):
    from shared_runs import as_rank

    return as_rank(rank, RANKS, partial(member, run))


def end(child, reading):
    """How a rank ended: the signal, and what it told."""
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else status, told


def one_by_one(run, kills, rng):
    """Kill one rank after the other, each started again; how many were killed before everything was done."""
    ranks, killed = {rank: start(run, rank) for rank in range(RANKS)}, 0
    for _ in range(kills):
        time.sleep(rng.uniform(0, 0.3))
        rank = rng.randrange(RANKS)
        os.kill(ranks[rank][0], signal.SIGKILL)
        status, _ = end(*ranks[rank])
        killed += status == signal.SIGKILL
        ranks[rank] = start(run, rank)
    for child in ranks.values():
        status, told = end(*child)
        if status or told:
            raise RuntimeError(f"a rank ended with {status}: {told}")
    return killed


def all_at_once(run, kills, rng):
    """Kill all ranks, and start them again; at last let them finish."""
    for last in [*[False] * kills, True]:
        ranks = [start(run, rank) for rank in range(RANKS)]
        time.sleep(rng.uniform(0.05, 0.5))
        for child, _ in [] if last else ranks:
            os.kill(child, signal.SIGKILL)
        ends = [end(*child) for child in ranks]
        if last and any(status or told for status, told in ends):
            raise RuntimeError(f"ranks ended with {ends}")


def without_room(run, times, rng):
    """Runs whose files can't grow beyond some size; then one that has room. What they told."""
    from processes import fork

    def limited(most, tell):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        member(run, tell)

    told = [end(*fork(partial(limited, rng.choice((64, 300, 700, 1500, 1900))))) for _ in range(times)]
    status, words = end(*start(run, 0))
    if status or words:
        raise RuntimeError(f"the run with room ended with {status}: {words}")
    return told


def chaos(root, kills, seed):
    """What differed, in words; nothing if all is well."""
    import torch
    from processes import contents, differences, done
    from shared_runs import Run

    torch.set_num_threads(1)
    rng, wrong = random.Random(seed), []
    whole = Run(root / "whole")
    done(lambda tell: whole.attribute().scores)
    expected = contents(whole.directory)

    def compare(name, run):
        different = differences(contents(run.directory), expected)
        wrong.extend(f"{name}: {path} differs" for path in different)
        shutil.rmtree(run.directory)

    run, killed = Run(root / "ranks"), 0
    while killed < kills:  # a run that was done early is followed by another
        killed += one_by_one(run, kills - killed, rng)
        compare("one by one", run)
    all_at_once(run := Run(root / "all"), max(1, kills // 4), rng)
    compare("all at once", run)
    for status, words in without_room(run := Run(root / "full"), max(1, kills // 4), rng):
        if status or FULL not in words or "run the same script again" not in words:
            wrong.append(f"without room: status {status}, {words or 'no error'}")
    compare("without room", run)
    return killed, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        killed, wrong = chaos(Path(root), chosen.kills, chosen.seed)
    print(*wrong, json.dumps({"killed": killed, "wrong": len(wrong)}), sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
