"""Runs that are killed, run side by side, or out of room. All of them are forks of one process (`python THIS_FILE DIR`)
that has imported torch once, which takes longer than everything else here."""

import errno
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from processes import contents, differences, done, fork, report, wait

PHASES = ("featurize", "finalize", "score", "finalize_scores")
KILLS, KILLS_IN_A_PHASE, RETRIES = 12, 2, 10
MUST_BE_HIT = ("featurize", "finalize", "score")
N, TARGETS, BATCH, FEATURES = 32, 10, 8, 64


class Script:
    """What a user would run, and run again; it tells its phase through a pipe."""

    def __init__(self, directory):
        import torch

        torch.manual_seed(0)
        self.directory = str(directory)
        self.model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        self.checkpoints = [
            {name: torch.randn_like(value) for name, value in self.model.state_dict().items()} for _ in range(2)
        ]
        self.train = [(torch.randn(BATCH, 6), torch.randint(3, (BATCH,))) for _ in range(N // BATCH)]
        self.targets = [(torch.randn(TARGETS // 2, 6), torch.randint(3, (TARGETS // 2,))) for _ in range(2)]

    def traker(self):
        import trak

        return trak.TRAKer(
            self.model, "image_classification", N, self.directory, device="cpu", proj_dim=FEATURES, logging_level=30
        )

    def run(self, enter=lambda phase: None):
        enter("featurize")
        traker = self.traker()
        for model_id, checkpoint in enumerate(self.checkpoints):
            traker.load_checkpoint(checkpoint, model_id)
            for batch in slowly(self.train):
                traker.featurize(batch)
        enter("finalize")
        traker.finalize_features()
        enter("score")
        for model_id, checkpoint in enumerate(self.checkpoints):
            traker.start_scoring_checkpoint("t", checkpoint, model_id, TARGETS)
            for batch in slowly(self.targets):
                traker.score(batch)
        enter("finalize_scores")
        return traker.finalize_scores("t")

    def featurize_some(self, orders, ready=lambda: None):
        """Every `order` of indices is featurized batch by batch, as one process among several would."""
        import torch

        inputs, labels = (torch.cat(parts) for parts in zip(*self.train, strict=True))
        traker = self.traker()
        ready()
        for model_id, checkpoint in enumerate(self.checkpoints):
            traker.load_checkpoint(checkpoint, model_id)
            for order in orders:
                for batch in slowly([order[i : i + BATCH] for i in range(0, len(order), BATCH)]):
                    traker.featurize((inputs[batch], labels[batch]), inds=batch)


def slowly(loader):
    for batch in loader:
        time.sleep(0.02)
        yield batch


def kill_at(script, delay, phase=None):
    """Kill a run `delay` seconds after it began, or after it entered `phase`; returns the phase it was in, if alive."""
    child, reading = fork(lambda tell: script.run(tell))
    current, begin, told = None, time.monotonic() if phase is None else None, b""
    while True:
        left = None if begin is None else max(0.0, begin + delay - time.monotonic())
        ready, _, _ = select.select([reading], [], [], left)
        if not ready:
            break
        piece = os.read(reading, 2**16)
        if not piece:
            current = None
            break
        told += piece
        for line in told.decode().splitlines():
            current = line.split(" ", 1)[1]
            if current == phase and begin is None:
                begin = time.monotonic()
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return current if os.WIFSIGNALED(status) else None


def kills(root):
    script = Script(root / "whole")
    begin = time.monotonic()
    told = done(lambda tell: script.run(tell))
    end = time.monotonic()
    starts = {phase: at for at, phase in told}
    stops = dict(zip(PHASES, [*(starts[phase] for phase in PHASES[1:]), end], strict=True))
    expected = contents(root / "whole")
    rng = random.Random(0)
    plan = [(None, rng.uniform(0, end - begin)) for _ in range(KILLS)]
    plan += [(phase, rng.uniform(0, stops[phase] - starts[phase])) for phase in PHASES for _ in range(KILLS_IN_A_PHASE)]
    attempts = []
    # A phase of milliseconds may be over before the kill comes: then it is tried again.
    plan += [(phase, 0.0) for phase in MUST_BE_HIT for _ in range(RETRIES)]
    for i, (phase, delay) in enumerate(plan):
        hit = {attempt["killed_in"] for attempt in attempts if attempt["half_way"]}
        if i >= KILLS + len(PHASES) * KILLS_IN_A_PHASE and phase in hit:
            continue
        directory = root / f"killed-{i}"
        script.directory = str(directory)
        killed_in = kill_at(script, delay, phase)
        left = contents(directory) if directory.exists() else {}
        done(lambda tell: script.run(tell))
        attempts.append(
            {
                "killed_in": killed_in,
                "half_way": left != expected,
                "different": differences(contents(directory), expected),
                "partial": [str(path) for path in directory.rglob("*-partial")],
            }
        )
        shutil.rmtree(directory)
    script.directory = str(root / "often")
    often = 0
    for number in range(1, 30):
        killed_in = kill_at(script, (end - begin) * number / 10)
        often += killed_in is not None
        if killed_in is None:
            break
    done(lambda tell: script.run(tell))
    return {
        "seconds": end - begin,
        "files": len(expected),
        "attempts": attempts,
        "often": often,
        "different_after_often": differences(contents(root / "often"), expected),
    }


def side_by_side(root):
    even, odd = list(range(0, N, 2)), list(range(1, N, 2))
    one, two = Script(root / "one"), Script(root / "two")
    done(lambda tell: one.featurize_some([even, odd]))
    gate_reading, gate_writing = os.pipe()

    def member(order):
        def work(tell):
            os.close(gate_writing)
            os.read(gate_reading, 1)
            two.featurize_some([order], lambda: tell("start"))
            tell("stop")

        return work

    members = [fork(member(even)), fork(member(odd))]
    os.close(gate_writing)
    spans = [[at for at, _ in wait(*each)] for each in members]
    os.close(gate_reading)
    return {
        "different": differences(contents(root / "two"), contents(root / "one")),
        "files": len(contents(root / "one")),
        "overlap": min(stop for _, stop in spans) - max(start for start, _ in spans),
    }


def full_disk(root):
    """What happens when a file may grow no further, and when a file can't be made any more."""
    import trak.store.table

    trak.store.table.CHUNK_BYTES = 16 * FEATURES * 4
    script, whole = Script(root / "full"), Script(root / "enough")
    done(lambda tell: whole.run())
    found = {}

    def limited(tell):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * FEATURES * 4, resource.RLIM_INFINITY))
        try:
            script.run()
        except OSError as error:
            tell(json.dumps([type(error).__name__, error.errno, str(error), rows_done(script.directory)]))

    def exhausted(tell):
        real, calls = os.posix_fallocate, []

        def fallocate(*arguments):
            calls.append(arguments)
            if len(calls) > 7:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*arguments)

        os.posix_fallocate = fallocate
        try:
            script.run()
        except OSError as error:
            tell(json.dumps([type(error).__name__, error.errno, str(error), rows_done(script.directory)]))

    def late(tell):
        traker = script.traker()
        traker.load_checkpoint(script.checkpoints[0], 0)
        traker.featurize(script.train[0])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * FEATURES * 4, resource.RLIM_INFINITY))
        try:
            traker.featurize(script.train[1])
        except OSError as error:
            tell(json.dumps([type(error).__name__, error.errno, str(error), rows_done(script.directory)]))

    for name, work in (("limited", limited), ("exhausted", exhausted), ("late", late)):
        script.directory = str(root / name)
        told = done(work)
        done(lambda tell: script.run())
        found[name] = {
            "told": json.loads(told[0][1]) if told else None,
            "different": differences(contents(script.directory), contents(whole.directory)),
        }
    return found


def rows_done(directory):
    from trak.store import open_store

    return int(open_store(directory).table(0).is_done().sum())


def read_only(root):
    """A directory that its user may read and not write, with scores in it and without."""
    script = Script(root / "read-only")
    done(lambda tell: script.run())
    before = contents(script.directory)
    # The user that the children become must be able to get there.
    for directory in [root, *root.parents]:
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    paths = [Path(script.directory), *Path(script.directory).rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def visit(tell):
        import numpy as np

        from trak import Attribution
        from trak.store import open_store

        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            script.traker()
        except OSError as error:
            tell(json.dumps([type(error).__name__, str(error)]))
        store = open_store(script.directory)
        tell(json.dumps(store.table(0).is_done().all().item()))
        attribution = Attribution.open(script.directory, "t")
        scores = attribution.scores
        tell(json.dumps(bool(np.isfinite(scores).all() and np.abs(scores).max() > 0)))
        top = attribution.top(3)
        tell(json.dumps(bool(np.allclose(np.sort(scores, axis=0)[::-1][:3].T, top.scores, rtol=1e-5))))
        try:
            _ = Attribution.open(script.directory, "t", damping=1.0).scores
        except OSError as error:
            tell(json.dumps([type(error).__name__, str(error)]))

    told = [json.loads(words) for _, words in done(visit)]
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return {"told": told, "changed": differences(contents(script.directory), before)}


def drive(root):
    """Everything, as JSON on the last line of stdout."""
    import logging

    import torch

    logging.getLogger("trak").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    # A kill leaves the page cache as it is, so that waiting for the disk would only take time.
    os.fdatasync = lambda descriptor: None
    # Nothing that starts a thread may run before forking: the gradients, and no store.
    from trak.gradients import choose_engine, differentiable
    from trak.tasks import make_task

    warm = Script(root / "warm")
    names = tuple(name for name, _ in warm.model.named_parameters())
    with differentiable(warm.model, names):
        choose_engine("auto", warm.model, make_task("image_classification"), names, warm.train[0])
    found = {}
    for scenario in (kills, side_by_side, full_disk, read_only):
        directory = root / scenario.__name__
        directory.mkdir()
        begin = time.monotonic()
        found[scenario.__name__] = scenario(directory)
        print(f"{scenario.__name__}: {time.monotonic() - begin:.1f} s", file=sys.stderr)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    directory = tmp_path_factory.mktemp("interruptions")
    yield report(__file__, directory, TQDM_DISABLE="1")
    shutil.rmtree(directory)


def test_a_killed_run_continues_bit_identical(found):
    attempts = found["kills"]["attempts"]
    assert found["kills"]["files"] > 40
    assert len(attempts) >= KILLS + len(PHASES) * KILLS_IN_A_PHASE
    assert [attempt["different"] for attempt in attempts] == [[]] * len(attempts)
    assert [attempt["partial"] for attempt in attempts] == [[]] * len(attempts)


def test_kills_hit_every_phase_with_work_left(found):
    hit = [attempt for attempt in found["kills"]["attempts"] if attempt["killed_in"] and attempt["half_way"]]
    assert {attempt["killed_in"] for attempt in hit} >= {*MUST_BE_HIT}
    assert len(hit) >= 10


def test_a_run_killed_again_and_again_ends_bit_identical(found):
    assert found["kills"]["often"] >= 3
    assert found["kills"]["different_after_often"] == []


def test_two_processes_on_disjoint_indices_end_bit_identical_to_one(found):
    assert found["side_by_side"]["different"] == []
    assert found["side_by_side"]["files"] > 15
    assert found["side_by_side"]["overlap"] > 0


@pytest.mark.parametrize(
    "way, number, rows", [("limited", errno.EFBIG, 0), ("exhausted", errno.ENOSPC, 16), ("late", errno.EFBIG, 8)]
)
def test_a_full_disk_is_a_plain_error_and_the_same_run_goes_on_when_there_is_room(found, way, number, rows):
    name, found_number, message, stored = found["full_disk"][way]["told"]
    assert name == "OSError"
    assert found_number == number
    assert "no room to write checkpoints/0/" in message
    assert "run the same script again" in message
    assert stored == rows
    assert found["full_disk"][way]["different"] == []


def test_a_read_only_directory_is_refused_with_the_cure_and_its_scores_can_be_read(found):
    asked_to_featurize, *works, asked_for_other_scores = found["read_only"]["told"]
    for name, message in (asked_to_featurize, asked_for_other_scores):
        assert name == "PermissionError"
        assert "can't be written to" in message
        assert "choose another save_dir" in message
        assert "open_store" in message
    assert works == [True, True, True]
    assert found["read_only"]["changed"] == []


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
