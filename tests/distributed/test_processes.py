"""Several processes on one store. All but torchrun's are forks of one process (`python THIS_FILE DIR`), which has
imported torch once; torchrun's are this file, too (`torchrun THIS_FILE ranks DIR`)."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import contents, differences, done, fork, report
from shared_runs import BATCH, CHECKPOINTS, N, Run, as_rank, examples, save_top, told, without_tops

EXAMPLE = Path(__file__).parents[2] / "examples" / "slurm" / "attribute.py"


def ranks(root):
    """One rank of torchrun: both ways, and what it got."""
    import numpy as np
    import torch

    group = "gloo" in sys.argv
    if group:
        torch.distributed.init_process_group("gloo")
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    run = Run(root / f"attribute-{size}")
    found = run.attribute()
    np.save(root / f"scores-{size}-{rank}.npy", found.scores)
    save_top(root / f"top-{size}-{rank}", found)
    run.directory = str(root / f"steps-{size}")
    run.steps()
    if group:
        torch.distributed.destroy_process_group()


def loads(root):
    """What three ranks load, each slow at it."""
    run = Run(root / "loads")

    def member(tell):
        def inside(index):
            time.sleep(0.01)
            tell(str(index))

        run.attribute(inside)

    found = told([as_rank(rank, 3, member) for rank in range(3)])
    return [sorted(map(int, words)) for words in found], contents(run.directory)


def stuck(root, name, kill, work):
    """Two ranks, of which one stops for good within a batch that it has claimed; kills it at once, or never."""
    run, reached = Run(root / name), root / f"{name}-reached"

    def hanging(tell):
        def pause():
            reached.touch()
            signal.pause()

        work(run, pause)

    first = as_rank(0, 2, hanging)
    while not reached.exists():
        time.sleep(0.02)
    second = as_rank(1, 2, lambda tell: work(run, lambda: None))
    if kill:
        time.sleep(0.5)
        os.kill(first[0], signal.SIGKILL)
    told([second])
    if not kill:
        os.kill(first[0], signal.SIGKILL)
    os.waitpid(first[0], 0)
    return contents(run.directory)


def attributed(run, pause):
    def inside(index):
        if index == 9:
            pause()

    run.attribute(inside)


def stepped(run, pause):
    """Stops after a batch is claimed, before anything is written."""
    real = run.model.forward
    calls = []

    def forward(x):
        calls.append(x)
        if len(calls) == 20:
            pause()
        return real(x)

    run.model.forward = forward
    run.steps()


def every_rank_killed(root):
    run = Run(root / "all-killed")

    def member(tell):
        run.attribute(lambda index: time.sleep(0.01))

    members = [as_rank(rank, 3, member) for rank in range(3)]
    time.sleep(0.4)
    for child, reading in members:
        os.kill(child, signal.SIGKILL)
        os.close(reading)
    statuses = [os.waitpid(child, 0)[1] for child, _ in members]
    told([as_rank(0, 1, lambda tell: run.attribute())])
    return {"killed": all(map(os.WIFSIGNALED, statuses)), "contents": contents(run.directory)}


def scored(root, kill):
    """Two ranks score together, the first to begin killed within a piece or not; the pieces that each did."""
    import trak
    from trak.scoring import Scorer
    from trak.store import Tiles

    run = Run(root / f"scored-{kill}")
    told([fork(lambda tell: run.attribute())])
    real, begun = Scorer.score_tiles, root / f"begun-{kill}"

    def member(tell, first):
        def tiles(scorer, progress=lambda scores: None):
            found = real(scorer, progress)

            def blocks(piece):
                begun.touch()
                if first and kill:
                    signal.pause()
                time.sleep(0.4)
                yield from found.compute(piece)
                tell(str(piece))

            return Tiles(found.count, found.shape, blocks)

        Scorer.score_tiles = tiles
        trak.Attribution.open(run.directory).scores  # noqa: B018

    first = as_rank(0, 2, lambda tell: member(tell, True))
    while not begun.exists():
        time.sleep(0.01)
    second = as_rank(1, 2, lambda tell: member(tell, False))
    if kill:
        time.sleep(0.5)
        os.kill(first[0], signal.SIGKILL)
        os.close(first[1])
        os.waitpid(first[0], 0)
    did = told([second] if kill else [first, second])
    return {"did": [sorted(map(int, one)) for one in did], "contents": contents(run.directory)}


def by_mistake(root):
    """The same run twice, and two runs with other data, side by side."""
    same, other = Run(root / "same"), Run(root / "other")
    told([fork(lambda tell: same.attribute(lambda index: time.sleep(0.002))) for _ in range(2)])

    def member(shift):
        def work(tell):
            data = examples(lambda index: time.sleep(0.005))
            data.x += shift
            try:
                other.attribute(data=data)
            except ValueError as error:
                tell(f"stopped {error}")
            else:
                tell("completed")

        return work

    found = told([fork(member(shift)) for shift in (0.0, 1.0)])
    return {"same": contents(same.directory), "other": [words for one in found for words in one]}


def job_array(root):
    """The example's tasks, one after the other; and in random order, some at once, one killed, one twice."""
    import importlib.util

    import numpy as np

    from trak.__main__ import main as command_line

    spec = importlib.util.spec_from_file_location("job", EXAMPLE)
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    job.TRAIN, job.BATCH, job.PER_TASK, job.TARGETS, job.EPOCHS = 80, 10, 20, 10, 1
    one, many = root / "one-by-one", root / "array"

    def start(output, command, task=0, kill=False):
        def work(tell):
            if kill:
                real = job.trak.TRAKer.load_checkpoint

                def load_checkpoint(traker, checkpoint, model_id):
                    if model_id == 1 and traker.store.table(0).is_done(np.arange(20, 40)).all():
                        os.kill(os.getpid(), signal.SIGKILL)
                    real(traker, checkpoint, model_id)

                job.trak.TRAKer.load_checkpoint = load_checkpoint
            job.main([command, "--output", str(output), "--task", str(task)])

        return fork(work)

    def missing(tell):
        command_line(["info", str(many / "store"), "--missing"])
        command_line(["info", str(many / "store"), "--missing", "--per-task", "20", "--checkpoints", "2"])

    def printed():
        path = root / "printed"

        def work(tell):
            with open(path, "w") as handle:
                os.dup2(handle.fileno(), 1)
                sys.stdout = os.fdopen(1, "w", closefd=False)
                missing(tell)
                sys.stdout.flush()

        done(work)
        return path.read_text().split("\n")[:2]

    told([start(one, "prepare")])
    for task in range(4):
        told([start(one, "featurize", task)])
    shutil.copytree(one, many, ignore=shutil.ignore_patterns("store"))
    killed, reading = start(many, "featurize", 1, kill=True)
    os.close(reading)
    os.waitpid(killed, 0)
    before = printed()
    order = random.Random(0).sample(range(4), 4)
    told([start(many, "featurize", task) for task in order[:2]])
    half = printed()
    told([start(many, "featurize", task) for task in (*order[2:], order[2])])
    after = printed()
    told([start(one, "finalize")])
    told([start(many, "finalize"), start(many, "finalize")])
    told([start(one, "score")])
    told([start(many, "score"), start(many, "score")])
    return {
        "different": differences(contents(many), contents(one)),
        "files": len(contents(one)),
        "missing": [before, half, after],
        "order": order,
    }


def locks(root):
    """What another process gets of rows that one has, before and after that is killed."""
    import numpy as np

    from trak.store.locks import row_locks

    root.mkdir()
    ready = root / "ready"

    def hold(tell):
        mine = row_locks(root)
        assert mine.acquire("rows", np.array([3, 4, 9]))
        assert mine.acquire("rows", np.array([20]))
        mine.release("rows", np.array([20]))
        assert row_locks(root) is mine
        ready.touch()
        signal.pause()

    holder, reading = fork(hold)
    while not ready.exists():
        time.sleep(0.01)
    mine = row_locks(root)
    asked = [("rows", [4]), ("rows", [0, 9]), ("rows", [5, 6, 7, 8]), ("rows", [0]), ("rows", [20]), ("other", [4])]
    before = [mine.acquire(what, np.array(rows)) for what, rows in asked]
    os.kill(holder, signal.SIGKILL)
    os.close(reading)
    os.waitpid(holder, 0)
    return {"before": before, "after": mine.acquire("rows", np.array([3, 4, 9]))}


def drive(root):
    """Everything, as JSON on the last line of stdout."""
    import numpy as np

    import trak.distributed.locking

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    for size, how in ((2, []), (3, ["gloo"])):
        subprocess.run(
            [*torchrun, f"--nproc-per-node={size}", __file__, "ranks", str(root), *how], env=environment, check=True
        )
    whole = Run(root / "whole")

    def alone(tell):
        attribution = whole.attribute()
        np.save(root / "scores.npy", attribution.scores)
        save_top(root / "top", attribution)

    done(alone)
    whole.directory = str(root / "whole-steps")
    done(lambda tell: whole.steps())
    scored_alone, stepwise = contents(root / "whole"), contents(root / "whole-steps")
    unscored = {path: digest for path, digest in scored_alone.items() if "/scores/" not in path}
    found = {"files": len(scored_alone)}
    for size in (2, 3):
        shared = contents(root / f"attribute-{size}")
        assert any("/tops/" in path for path in shared)
        found[f"torchrun-{size}"] = differences(without_tops(shared), scored_alone)
        found[f"torchrun-steps-{size}"] = differences(contents(root / f"steps-{size}"), stepwise)
        for rank in range(size):
            same = (root / f"scores-{size}-{rank}.npy").read_bytes() == (root / "scores.npy").read_bytes()
            found[f"scores-{size}-{rank}"] = same
            ours, best = np.load(root / f"top-{size}-{rank}.npz"), np.load(root / "top.npz")
            found[f"top-{size}-{rank}"] = all(np.array_equal(ours[name], best[name]) for name in best.files)
    found["loads"], loaded = loads(root)
    found["loads different"] = differences(loaded, unscored)
    found["killed"] = differences(stuck(root, "killed", True, attributed), unscored)
    found["killed in steps"] = differences(stuck(root, "killed-steps", True, stepped), stepwise)
    trak._utils.ranks.PATIENCE = 0.5
    found["hanging"] = differences(stuck(root, "hanging", False, attributed), unscored)
    found["hanging in steps"] = differences(stuck(root, "hanging-steps", False, stepped), stepwise)
    killed = every_rank_killed(root)
    found["all killed"] = [killed["killed"], differences(killed["contents"], unscored)]
    for kill in (False, True):
        together = scored(root, kill)
        found[f"scored, killed {kill}"] = [together["did"], differences(together["contents"], scored_alone)]
    mistakes = by_mistake(root)
    found["same twice"] = differences(mistakes["same"], unscored)
    found["other data"] = mistakes["other"]
    found["job array"] = job_array(root)
    found["claims"] = locks(root / "claims")
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    directory = tmp_path_factory.mktemp("distributed")
    yield report(__file__, directory, TQDM_DISABLE="1")
    shutil.rmtree(directory)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_of_torchrun_end_with_the_store_and_the_scores_of_one_process(found, size):
    assert found["files"] > 40
    assert found[f"torchrun-{size}"] == []
    assert found[f"torchrun-steps-{size}"] == []
    assert all(found[f"{what}-{size}-{rank}"] for what in ("scores", "top") for rank in range(size))


def test_ranks_share_the_batches_and_load_hardly_more_than_their_own(found):
    assert found["loads different"] == []
    assert all(found["loads"])
    # Of every checkpoint the first batch, and in the end the two batches that each of the others may have in work.
    ranks = len(found["loads"])
    assert sum(map(len, found["loads"])) <= CHECKPOINTS * (N + (ranks - 1) * BATCH * (1 + 2 * ranks))


@pytest.mark.parametrize("way", ["killed", "killed in steps", "hanging", "hanging in steps"])
def test_others_do_what_a_killed_or_hanging_rank_had_claimed(found, way):
    assert found[way] == []


def test_a_rerun_after_all_ranks_were_killed_ends_bit_identical(found):
    assert found["all killed"] == [True, []]


def test_ranks_share_the_scoring(found):
    did, different = found["scored, killed False"]
    assert all(did)
    assert sorted(piece for one in did for piece in one) == [0, 1, 2]
    assert different == []


def test_scores_are_completed_by_others_when_one_is_killed(found):
    assert found["scored, killed True"] == [[[0, 1, 2]], []]


def test_one_run_started_twice_by_mistake_completes_bit_identical(found):
    assert found["same twice"] == []


def test_runs_with_other_data_in_one_directory_are_told_so(found):
    assert any(words.startswith("stopped") for words in found["other data"])
    for words in found["other data"]:
        assert words == "completed" or "other data" in words


def test_tasks_of_a_job_array_in_any_order_killed_and_repeated_end_bit_identical(found):
    assert found["job array"]["files"] > 40
    assert found["job array"]["different"] == []


def test_info_prints_what_is_missing_as_job_arrays_take_it(found):
    before, half, after = found["job array"]["missing"]
    first, second = found["job array"]["order"][:2]
    left = sorted({0, 1, 2, 3} - {first, second})
    # Task 1, rows 20 to 39, was killed when one checkpoint had featurized them and the other none.
    assert before == ["0-19,40-79", "0-3"]
    assert after == ["", ""]
    assert sum(int(b) - int(a) + 1 for a, b in (run.split("-") for run in half[0].split(","))) == 40
    assert [i for run in half[1].split(",") for i in range(int(run.split("-")[0]), int(run.split("-")[-1]) + 1)] == left


def test_rows_are_one_processs_until_it_releases_them_or_ends(found):
    assert found["claims"] == {"before": [False, False, True, True, True, True], "after": True}


def test_a_distributed_sampler_is_refused_with_the_cure(tmp_path):
    import torch

    data = torch.utils.data.TensorDataset(torch.randn(8, 6), torch.zeros(8, dtype=torch.int64))
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=2, rank=0, shuffle=False)
    run = Run(tmp_path / "store")
    for options in ({}, {"index_key": 1}):
        with pytest.raises(ValueError, match=r"DistributedSampler.*plain DataLoader"):
            run_with_sampler(run, torch.utils.data.DataLoader(data, batch_size=4, sampler=sampler), options)


def run_with_sampler(run, loader, options):
    import trak

    return trak.attribute(
        run.model, "image_classification", run.states, loader, run.targets, run.directory, progress=False, **options
    )


if __name__ == "__main__":
    if sys.argv[1] == "ranks":
        ranks(Path(sys.argv[2]))
    else:
        drive(Path(sys.argv[1]))
