"""Stores that somebody damaged, or made to do harm: whatever is in them, opening them ends in an error or in numbers.

`python tests/chaos/hostile_stores.py --stores 10000` mutates a small store so many times and reads, scores and writes
each. Nothing may crash or hang, allocate far more than the store's size, touch a file outside of it, or raise anything
but the errors that the library documents. It prints what went wrong, by the mutation's seed.
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
import traceback
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "helpers")]

ROWS, WIDTH, TARGETS, CHUNK_ROWS = 11, 6, 3, 4
os.environ["TQDM_DISABLE"] = "1"
AT_ONCE, SECONDS, ALLOCATED = 100, 30, 256 * 2**20
"""Stores a process reads, seconds that one may take, and bytes by which memory may grow at most."""
VALUES = (
    None, True, -1, 0, 1, 0.5, 7, 2**31, 10**12, 2**63, 10**30, 1e308, "", "x" * 5000, "../../outside", "/etc/passwd",
    "NaN", "Infinity", "object", "|O8", "int8", "float32", "<f8", "bytes", "crc32c", "zstd", "sharding_indexed",
    "array", "group", "blosc", "pickle", [],
    {}, [0], [-1], [10**12], [10**12, 6], [11, 6, 1], [[[[[]]]]], {"name": "pickle"},
    {"format": 1}, {"name": "v2", "configuration": {"separator": "../"}}, {"name": "regular"}, ["../outside"],
)  # fmt: skip
NAMES = (
    "-1",
    "1.5",
    "99999999999999999999",
    "x",
    "..x",
    "a b",
    "\udcff".encode("utf-8", "surrogateescape"),
    "zarr",
    "é",
    "0 ",
    "c",
)
ALLOWED = (ValueError, OSError)
"""StoreError is a ValueError, FileNotFoundError an OSError."""


def build(directory):
    """A finished store of a checkpoint and an experiment."""
    import numpy as np

    import trak.store.table
    from trak.scoring import gram
    from trak.store import FeatureStore, RowValues

    trak.store.table.CHUNK_BYTES = CHUNK_ROWS * WIDTH * 4
    rng = np.random.default_rng(0)

    def values(count):
        columns = (rng.random((count, *shape)).astype("float32") for shape in ((WIDTH,), (), (), ()))
        return RowValues(*columns, rng.integers(0, 2**64, count, np.uint64))

    store = FeatureStore.create(directory, config())
    table = store.add_checkpoint(0, "weights-0")
    table.write(np.arange(ROWS), values(ROWS))
    store.finalize(0, "ggn", gram(table, "ggn"))
    store.add_experiment("t", TARGETS).add_targets(0).write(np.arange(TARGETS), values(TARGETS))
    use(directory)


def config():
    from trak.store import StoreConfig

    return StoreConfig(
        train_set_size=ROWS, proj_dim=WIDTH, projector={"kind": "sketch", "seed": 0}, dtype="float32",
        parameters={"weight": [3, 2]}, task={"name": "regression", "settings": {}},
    )  # fmt: skip


def use(directory):
    """What people do with a store, each step whatever became of the others; the errors that are not allowed."""
    import numpy as np

    from trak.attribution.results import StoredAttribution
    from trak.scoring import gram
    from trak.store import FeatureStore, RowValues, open_store
    from trak.store.repair import repair
    from trak.store.summary import describe, missing, summarize

    def read():
        store = open_store(directory)
        for model_id in store.checkpoints():
            store.verify(model_id)
            store.gram(model_id, "ggn")

    def write():
        store = FeatureStore.create(directory, config())
        wrong = RowValues(np.ones((2, WIDTH), "float32"), *[np.ones(2, "float32")] * 3, np.ones(2, np.uint64))
        store.add_checkpoint(0, "weights-0").write(np.array([1, 9]), wrong)
        store.add_checkpoint(1, "weights-1").write(np.array([1, 9]), wrong)
        store.add_experiment("t", TARGETS).add_targets(0).write(np.array([0, 2]), wrong)

    def finalize():
        store = FeatureStore.create(directory, config())
        store.finalize(0, "identity", gram(store.table(0), "identity"))

    steps = {
        "info": lambda: summarize(describe(directory)),
        "missing": lambda: missing(directory),
        "read": read,
        "top": lambda: StoredAttribution.open(directory, "t").top(2),
        "scores": lambda: StoredAttribution.open(directory, "t", damping=3.0).scores,
        "write": write,
        "finalize": finalize,
        "repair": lambda: repair(directory),
    }
    found = []
    for name, step in steps.items():
        try:
            step()
        except ALLOWED:
            pass
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            mine = [frame for frame in traceback.extract_tb(error.__traceback__) if "/trak/" in frame.filename]
            line = f"{mine[-1].filename.rsplit('/trak/', 1)[1]}:{mine[-1].lineno}" if mine else ""
            found.append(f"{name}: {type(error).__name__} at {line} ({where.name}): {str(error)[:100]}")
    return found


def mutate(root, rng):
    """Damage the store, and tell how."""
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.choice((metadata, metadata, metadata, content, content, tree, consolidated))
        files = sorted(path for path in root.rglob("*") if path.is_file())
        # What a mutation before has left may be no file, no folder or no JSON any more.
        with suppress(OSError, ValueError, RecursionError, TypeError):
            told.append(kind(root, files, rng))
    return "; ".join(told)


def metadata(root, files, rng):
    """Another value somewhere in a JSON file, or none."""
    file = rng.choice([path for path in files if path.name == "zarr.json"] or files)
    try:
        document = json.loads(file.read_bytes())
        spots = list(places(document))
    except ValueError:
        return f"{file.relative_to(root)} is no JSON"
    if not spots:
        return f"{file.relative_to(root)} is empty"
    holder, key, path = rng.choice(spots)
    if rng.random() < 0.2:
        del holder[key]
        what = "gone"
    else:
        holder[key] = rng.choice(VALUES)
        what = f"= {str(holder[key])[:40]}"
    file.write_text(json.dumps(document))
    return f"{file.relative_to(root)} {path} {what}"


def places(document, path=""):
    """Every (container, key, path) in a JSON document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items):
        yield document, key, f"{path}.{key}"
        yield from places(value, f"{path}.{key}")


def content(root, files, rng):
    """Other bytes in a file."""
    file = rng.choice(files)
    data = bytearray(file.read_bytes())
    kind = rng.choice(("flip", "cut", "longer", "zeros", "noise", "empty", "deep"))
    if kind == "flip" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(len(data) + 1) :]
    elif kind == "longer":
        data += rng.randbytes(rng.randrange(1, 100))
    elif kind == "zeros":
        data = bytearray(len(data))
    elif kind == "noise":
        data = bytearray(rng.randbytes(len(data)))
    elif kind == "deep":
        data = bytearray(b"[" * 100_000)
    else:
        data = bytearray()
    file.write_bytes(data)
    return f"{file.relative_to(root)} {kind}"


def tree(root, files, rng):
    """Files and folders that are not what they were."""
    path = rng.choice([*files, *(p for p in root.rglob("*") if p.is_dir())])
    kind = rng.choice(("gone", "folder", "file", "renamed", "swapped", "link out", "link to itself", "pipe", "copied"))
    told = f"{path.relative_to(root)} {kind}"
    if kind == "renamed":
        path.rename(path.with_name(os.fsdecode(rng.choice(NAMES))))
    elif kind == "copied" and path.is_dir():
        shutil.copytree(path, path.with_name(os.fsdecode(rng.choice(NAMES))), dirs_exist_ok=True)
    elif kind == "swapped":
        other = rng.choice(files)
        if path.is_file() and other != path:
            mine, theirs = path.read_bytes(), other.read_bytes()
            path.write_bytes(theirs)
            other.write_bytes(mine)
    elif kind != "copied":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.write_bytes(rng.randbytes(20))
        elif kind == "link out":
            path.symlink_to(root.parent / "outside" / ("folder" if rng.random() < 0.5 else "file"))
        elif kind == "link to itself":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
    return told


def consolidated(root, files, rng):
    """Consolidated metadata that names what is elsewhere."""
    file = root / "zarr.json"
    try:
        document = json.loads(file.read_bytes())
        child = json.loads((root / "checkpoints" / "zarr.json").read_bytes())
        name = rng.choice(("../outside", "checkpoints/../../outside", "checkpoints/7", "checkpoints/x", "/etc"))
        inside = {"kind": "inline", "must_understand": False, "metadata": {"checkpoints": child, name: child}}
        document["consolidated_metadata"] = inside
        file.write_text(json.dumps(document))
    except (ValueError, OSError, TypeError):
        return "nothing to consolidate"
    return f"consolidated {name}"


def outside(directory):
    """What must not change: paths, sizes and contents beside the store."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in sorted(directory.rglob("*"))
        if "store" not in path.relative_to(directory).parts[:1]
    }


def batch(seeds, template, directory, tell):
    """Try some mutations; tells every seed, and what was wrong with it."""
    import trak.store.table

    trak.store.table.CHUNK_BYTES = CHUNK_ROWS * WIDTH * 4
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28,) * 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        shutil.rmtree(directory, ignore_errors=True)
        store = directory / "store"
        shutil.copytree(template, store)
        (directory / "outside" / "folder" / "c").mkdir(parents=True)
        (directory / "outside" / "file").write_bytes(b"mine" * 100)
        before = outside(directory)
        what = mutate(store, random.Random(seed))
        tell("begin", seed, what)
        signal.alarm(SECONDS)
        wrong = use(store)
        signal.alarm(0)
        grown = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        if grown > ALLOCATED:
            wrong.append(f"memory grew by {grown / 2**20:.0f} MiB")
            peak += grown
        if outside(directory) != before:
            wrong.append("files outside were touched")
        for words in wrong:
            tell("wrong", seed, words)


def _batch(seeds, template, directory, tell):
    batch(seeds, template, directory, lambda *words: tell(json.dumps(words)))


def run(stores, first=0):
    """Wrong things found, as (seed, mutation, words)."""
    import torch
    from processes import done, fork

    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as root:
        template = Path(root) / "template"
        done(lambda tell: build(template))  # threads that this process had would be missing in its children
        seeds = deque(range(first, first + stores))
        while seeds:
            some = [seeds.popleft() for _ in range(min(AT_ONCE, len(seeds)))]
            child, reading = fork(partial(_batch, some, template, Path(root) / "tried"))
            with os.fdopen(reading, "rb") as pipe:
                told = [json.loads(line.split(b" ", 1)[1]) for line in pipe]
            _, status = os.waitpid(child, 0)
            mutations = {seed: what for kind, seed, what in told if kind == "begin"}
            found += [(seed, mutations[seed], words) for kind, seed, words in told if kind == "wrong"]
            if status:
                last = max(mutations, default=some[0])
                how = "hangs" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else f"ends {status}"
                found.append((last, mutations.get(last), how))
                seeds.extendleft(reversed([seed for seed in some if seed > last]))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    chosen = parser.parse_args()
    found = run(chosen.stores, chosen.first)
    for seed, what, words in found:
        print(f"{seed}: {what}\n    {words}")
    print(f"{chosen.stores} stores, {len({seed for seed, *_ in found})} with something wrong")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
