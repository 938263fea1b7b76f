"""Memory is measured in a process of its own: `python THIS_FILE DIR`."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROWS, WIDTH, TARGETS, TOP = 200_000, 2048, 100, 10
PIECE = 8192
GIGABYTE = 2**30


def anonymous():
    """Memory of this process that belongs to no file, in bytes."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


class Peak:
    """The most anonymous memory while it is entered, sampled."""

    def __enter__(self):
        self.bytes, self.samples, self._stop = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self):
        while not self._stop.is_set():
            self.bytes, self.samples = max(self.bytes, anonymous()), self.samples + 1
            self._stop.wait(0.002)

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()


def measure(directory):
    import numpy as np

    from trak.scoring import Damping, Scorer, ScoringConfig, TopKQuery
    from trak.store import FeatureStore, RowValues, StoreConfig

    rng = np.random.default_rng(0)
    config = StoreConfig(ROWS, WIDTH, {"kind": "sketch", "seed": 0}, "float32", {"w": [WIDTH]}, {"name": "fake"})
    store = FeatureStore.create(directory, config)
    table = store.add_checkpoint(0, "weights")
    q = rng.random(ROWS, dtype=np.float32)
    for start in range(0, ROWS, PIECE):
        indices = np.arange(start, min(start + PIECE, ROWS))
        features = rng.random((len(indices), WIDTH), dtype=np.float32) - np.float32(0.5)
        table.write(indices, RowValues(features, q[indices], q[indices], q[indices], indices.astype(np.uint64)))
    store.finalize(0, "identity", np.eye(WIDTH))
    phi_t = rng.standard_normal((TARGETS, WIDTH), dtype=np.float32)
    ones = np.ones(TARGETS, np.float32)
    experiment = store.add_experiment("t", TARGETS)
    experiment.add_targets(0).write(np.arange(TARGETS), RowValues(phi_t, ones, ones, ones, np.ones(TARGETS, np.uint64)))
    before = anonymous()
    begin = time.monotonic()
    with Peak() as peak:
        top = Scorer(experiment, [0], ScoringConfig(Damping(), "identity")).top(TopKQuery(TOP))
    seconds = time.monotonic() - begin
    # With K = I the damping is 3 · trace(K)/k = 3, so that the solution is φ_t / (1 + 3).
    some = [0, 41, 99]
    expected = np.concatenate([rows.astype(np.float64) @ phi_t[some].T for _, _, rows in table.features.blocks(PIECE)])
    expected *= q[:, None].astype(np.float64) / 4
    found = np.stack([expected[top.indices[t], i] for i, t in enumerate(some)])
    best = np.sort(expected, axis=0)[::-1][:TOP].T
    size = float(np.abs(expected).max())
    return {
        "seconds": seconds,
        "peak": peak.bytes,
        "more": peak.bytes - before,
        "samples": peak.samples,
        "file_bytes": sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file()),
        "shapes": [list(top.indices.shape), list(top.scores.shape)],
        "distinct": bool(all(len(set(row)) == TOP for row in top.indices.tolist())),
        "descending": bool((np.diff(top.scores, axis=1) <= 0).all()),
        "not_the_best_by": float(np.abs(found - best).max()) / size,
        "scores_off_by": float(np.abs(top.scores[some] - best).max()) / size,
    }


def test_the_top_of_200000_examples_for_100_targets_needs_less_than_a_gigabyte(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "helpers")]),
    }
    try:
        run = subprocess.run(
            [sys.executable, __file__, str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        shutil.rmtree(tmp_path)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["file_bytes"] > 1.6e9
    assert found["samples"] > 50
    assert found["peak"] < GIGABYTE
    assert found["shapes"] == [[TARGETS, TOP]] * 2
    assert found["distinct"]
    assert found["descending"]
    assert found["not_the_best_by"] < 1e-5
    assert found["scores_off_by"] < 1e-5


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
