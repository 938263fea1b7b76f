"""Builds, finalizes and queries a store of many rows in little memory: python benchmarks/big_store.py --examples 1e7

A linear classifier of 16 numbers and batches made on the fly, so that what is measured is what every row costs beyond
the model: hashing, sketching, writing, checksums, the Gram matrix, queries. The work runs in a process of its own whose
data (anonymous memory and private maps) the kernel limits to `--limit` GiB by RLIMIT_DATA: an allocation beyond it
fails. Two peaks are reported for each phase: of anonymous memory, which is what the process holds (RssAnon, sampled
each 5 ms), and of all resident pages (VmHWM, exact), mapped files among them, which are the kernel's cache.

"query" is the first top(10), with the solve; "again" the second; "reopened" is one by the store opened anew, checksums
and all, after its files were dropped from the cache, and tells the bytes that came from the disk. 10⁷ rows of k = 512
in float16 take 11 GB on disk, which are deleted in the end.
"""

import argparse
import gc
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GIGABYTE = 2**30
CLASSES, INPUTS = 10, 16


def status(what: str) -> int:
    """Memory of this process in bytes, as Linux tells it."""
    return int(re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def read_from_disk() -> int:
    """Bytes that this process has had read from storage."""
    return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


def drop_from_cache(files: list[Path]) -> None:
    for file in files:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Phases:
    """Seconds and peaks of memory of one phase after another."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # begins a new VmHWM
        peak, stop = [0], threading.Event()

        def sample() -> None:
            while not stop.wait(0.005):
                peak[0] = max(peak[0], status("RssAnon"))

        thread = threading.Thread(target=sample)
        thread.start()
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            stop.set()
            thread.join()
            anonymous = max(peak[0], status("RssAnon"))
            self.found[name] = {"seconds": seconds, "anonymous": anonymous, "resident": status("VmHWM")}
            print(
                f"{name:<12} {seconds:8.2f} s   anonymous {anonymous / 2**20:6.0f} MiB   "
                f"resident {self.found[name]['resident'] / 2**20:6.0f} MiB",
                file=sys.stderr,
                flush=True,
            )


class Made:
    """Batches of examples, always the same ones, made when they are asked for."""

    def __init__(self, examples: int, batch: int, seed: int = 0) -> None:
        self.examples, self.batch, self.seed = examples, batch, seed

    def __iter__(self) -> Iterator[Any]:
        import torch

        for start in range(0, self.examples, self.batch):
            generator = torch.Generator().manual_seed((self.seed << 40) + start)
            inputs = torch.randn(min(self.batch, self.examples - start), INPUTS, generator=generator)
            # Labels that a linear map could learn, but for some noise.
            noisy = inputs[:, :CLASSES] + 0.5 * torch.randn(len(inputs), CLASSES, generator=generator)
            yield inputs, noisy.argmax(1)


def classifier() -> Any:
    """A linear model that has learnt what there is to learn."""
    import torch

    model = torch.nn.Linear(INPUTS, CLASSES)
    torch.nn.init.eye_(model.weight)
    torch.nn.init.zeros_(model.bias)
    return model


def build(where: Path, examples: int, k: int, dtype: str, targets: int, batch: int) -> dict[str, Any]:
    """Everything, in this process: seconds and peaks of each phase, and what the query found."""
    import torch

    import trak

    # A process's first decomposition waits for a library to be loaded.
    torch.linalg.eigh(torch.linalg.cholesky(torch.eye(2)))
    phases = Phases()
    model = classifier()
    weights = model.state_dict()
    with phases.phase("opening"):
        traker = trak.TRAKer(model, "image_classification", examples, where, proj_dim=k, dtype=dtype)
        traker.load_checkpoint(weights, 0)
    with phases.phase("featurizing"), traker.overlapped():
        for made in Made(examples, batch):
            traker.featurize(made)
    with phases.phase("finalizing"):
        traker.finalize_features()
    with phases.phase("targets"):
        traker.start_scoring_checkpoint("targets", weights, 0, targets)
        for made in Made(targets, batch, seed=1):
            traker.score(made)
    attribution = traker.attribution("targets")
    with phases.phase("query"):
        top = attribution.top(10)
    with phases.phase("again"):
        attribution.top(10)
    files = [path for path in where.rglob("*") if path.is_file()]
    del traker, attribution
    gc.collect()  # what is mapped stays in the cache
    drop_from_cache(files)
    before = read_from_disk()
    with phases.phase("reopened"):
        again = trak.Attribution.open(where).top(10)
    if (again.indices != top.indices).any():
        raise AssertionError("the store opened anew gives another answer")
    return {
        "examples": examples, "k": k, "dtype": dtype, "targets": targets, "batch": batch,
        "threads": torch.get_num_threads(), "phases": phases.found, "files": len(files),
        "bytes": sum(path.stat().st_size for path in files), "bytes_read": read_from_disk() - before,
        "top": top.indices.tolist(),
    }  # fmt: skip


def limited(directory: Path, limit: int, **sizes: Any) -> dict[str, Any]:
    """What `build` returns in a process whose data is limited to so many bytes.

    Raises:
        subprocess.CalledProcessError: if it needs more.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    inside = json.dumps({"directory": str(directory), "limit": limit, **sizes})
    run = subprocess.run(
        [sys.executable, __file__, "--inside", inside], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(run.stdout.splitlines()[-1]))


def inside(directory: str, limit: int, **sizes: Any) -> None:
    import trak  # noqa: F401  what runs out of memory while it is imported may try for ever

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    print(json.dumps(build(Path(directory) / "store", **sizes)))


def measured(directory: Path | None, limit: float, **sizes: Any) -> dict[str, Any]:
    """`limited` to so many GiB, in a directory that is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="trak-big-store-") as made:
        return limited(Path(made), int(limit * GIGABYTE), **sizes)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--k", type=int, default=512, help="features of a row (default: 512)")
    parser.add_argument("--dtype", default="float16", help="of the stored features (default: float16)")
    parser.add_argument("--targets", type=int, default=100, help="targets of the query (default: 100)")
    parser.add_argument("--batch", type=int, default=4096, help="examples of a batch (default: 4096)")
    parser.add_argument("--limit", type=float, default=4, help="GiB of data the process may hold (default: 4)")
    parser.add_argument("--directory", type=Path, help="where the store is made (default: the temporary directory)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=float, default=1e6, help="rows of the store (default: 1e6)")
    add_sizes(parser)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/big_store.json"))
    parser.add_argument("--inside", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside is not None:
        inside(**chosen.inside)
        return
    sizes = {name: getattr(chosen, name) for name in ("k", "dtype", "targets", "batch")}
    found = measured(chosen.directory, chosen.limit, examples=int(chosen.examples), **sizes)
    peak = max(phase["anonymous"] for phase in found["phases"].values())
    total = sum(phase["seconds"] for phase in found["phases"].values())
    print(
        f"{found['examples']:,} rows, {found['bytes'] / 1e9:.2f} GB in {found['files']:,} files: {total:.0f} s, "
        f"at most {peak / GIGABYTE:.2f} GiB of anonymous memory where {chosen.limit:g} were allowed; "
        f"{found['bytes_read'] / 1e9:.2f} GB read by the reopened query"
    )
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
