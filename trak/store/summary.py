"""What a store holds, in words."""

from pathlib import Path
from typing import Any

import numpy as np

from trak.store.checks import checked
from trak.store.feature_store import FeatureStore, open_store
from trak.store.location import Location, local_root
from trak.version import __version__


def describe(where: Location) -> dict[str, Any]:
    """Configuration, checkpoints and experiments of a store, ready for JSON.

    Raises:
        FileNotFoundError: if there is none.
        StoreError: if it is damaged.
    """
    store = open_store(where)
    return {
        "store": store.where,
        "library_version": __version__,
        "bytes": _bytes(where),
        "configuration": {
            "train_set_size": store.config.train_set_size,
            "proj_dim": store.config.proj_dim,
            "projector": dict(store.config.projector),
            "dtype": store.config.dtype,
            "task": dict(store.config.task),
            "parameters": sum(int(np.prod(shape)) for shape in store.config.parameters.values()),
            "parameter_tensors": len(store.config.parameters),
        },
        "checkpoints": [_checkpoint(store, model_id) for model_id in store.checkpoints()],
        "experiments": [_experiment(store, name) for name in store.experiments()],
    }


def missing(where: Location, checkpoints: int | None = None, per_task: int = 1) -> list[tuple[int, int]]:
    """Which training examples are not featurized by every checkpoint, or which tasks of `per_task` examples hold any,
    as ascending ranges (start, stop).

    Args:
        where: the store.
        checkpoints: number of checkpoints that there should be, with model_ids from 0; by default those there are.
        per_task: number of successive examples in a task.

    Raises:
        FileNotFoundError, StoreError: as `describe`.
        ValueError: if a number is less than 1.
    """
    for name, value in (("checkpoints", checkpoints), ("per-task", per_task)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more, got {value}; give the number that the run has")
    store = open_store(where)
    there, everything = store.checkpoints(), [(0, store.config.train_set_size)]
    wanted = there if checkpoints is None else range(checkpoints)
    # Without any checkpoint nothing is featurized.
    of_each = [store.table(i).undone() if i in there else everything for i in wanted] or [everything]
    tasks = sorted({(start // per_task, (stop - 1) // per_task + 1) for some in of_each for start, stop in some})
    found: list[tuple[int, int]] = []
    for start, stop in tasks:
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def as_array(ranges: list[tuple[int, int]]) -> str:
    """Ranges (start, stop) as job arrays take them: "0-3,7"."""
    return ",".join(f"{start}-{stop - 1}" if stop - start > 1 else str(start) for start, stop in ranges)


def _checkpoint(store: FeatureStore, model_id: int) -> dict[str, Any]:
    # An interrupted process may have left less than a table.
    table = store.table(model_id) if checked(store._checkpoint(model_id), "done") is not None else None
    finalized = sorted(w for w in ("ggn", "identity") if store.is_finalized(model_id, w))
    return {
        "model_id": model_id,
        "fingerprint": store.fingerprint(model_id),
        "rows_done": 0 if table is None else len(table) - table.count_undone(),
        "finalized": finalized,
    }


def _experiment(store: FeatureStore, name: str) -> dict[str, Any]:
    experiment = store.experiment(name)
    return {
        "name": name,
        "num_targets": experiment.num_targets,
        "targets_done": {
            str(i): experiment.num_targets - experiment.targets(i).count_undone() for i in experiment.checkpoints()
        },
        "scores": experiment.stored_scores(),
    }


def _bytes(where: Location) -> int | None:
    root = local_root(where)
    return None if root is None else sum(p.stat().st_size for p in Path(root).rglob("*") if p.is_file())


def summarize(found: dict[str, Any]) -> str:
    """What `describe` returned, as text."""
    config = found["configuration"]
    size = "" if found["bytes"] is None else f", {found['bytes']:,} bytes"
    lines = [
        f"{found['store']}{size}",
        f"  task {config['task']['name']}, {config['train_set_size']:,} training examples, k = {config['proj_dim']} "
        f"({config['projector']}), {config['dtype']}",
        f"  differentiated by {config['parameters']:,} parameters in {config['parameter_tensors']} tensors",
        f"checkpoints: {len(found['checkpoints'])}",
    ]
    for c in found["checkpoints"]:
        state = f"finalized ({', '.join(c['finalized'])})" if c["finalized"] else "not finalized"
        rows = f"{c['rows_done']:,} of {config['train_set_size']:,} rows"
        lines.append(f"  {c['model_id']}: {rows}, {state}, weights {c['fingerprint']}")
    lines.append(f"experiments: {len(found['experiments'])}")
    for e in found["experiments"]:
        done = ", ".join(f"{i}: {rows}" for i, rows in e["targets_done"].items()) or "none"
        lines.append(
            f"  {e['name']}: {e['num_targets']} targets (done by checkpoint: {done}), {len(e['scores'])} scores"
        )
    return "\n".join(lines)
