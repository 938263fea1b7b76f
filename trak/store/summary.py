"""What a store holds, in words."""

import math
from typing import Any

from trak.store.checks import checked
from trak.store.feature_store import FeatureStore, open_store
from trak.store.location import Location, local_root
from trak.store.table import joined
from trak.version import __version__


def describe(where: Location) -> dict[str, Any]:
    """Configuration, checkpoints and experiments of a store, ready for JSON."""
    store, root = open_store(where), local_root(where)
    config = store.config
    return {
        "store": store.where,
        "library_version": __version__,
        "bytes": None if root is None else sum(p.stat().st_size for p in root.rglob("*") if p.is_file()),
        "configuration": {
            "train_set_size": config.train_set_size,
            "proj_dim": config.proj_dim,
            "projector": dict(config.projector),
            "dtype": config.dtype,
            "task": dict(config.task),
            "parameters": sum(math.prod(shape) for shape in config.parameters.values()),
            "parameter_tensors": len(config.parameters),
        },
        "checkpoints": [_checkpoint(store, model_id) for model_id in store.checkpoints()],
        "experiments": [_experiment(store, name) for name in store.experiments()],
    }


def missing(where: Location, checkpoints: int | None = None, per_task: int = 1) -> list[tuple[int, int]]:
    """Which training examples are not featurized by every checkpoint, or which tasks of `per_task` examples hold any,
    as ascending ranges (start, stop).

    `checkpoints` is the number of checkpoints that there should be, with model_ids from 0; by default those there are.
    """
    for name, value in (("checkpoints", checkpoints), ("per-task", per_task)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more, got {value}; give the number that the run has")
    store = open_store(where)
    there, everything = store.checkpoints(), [(0, store.config.train_set_size)]
    wanted = there if checkpoints is None else range(checkpoints)
    # Without any checkpoint nothing is featurized.
    of_each = [store.table(i).undone() if i in there else everything for i in wanted] or [everything]
    tasks = {(start // per_task, (stop - 1) // per_task + 1) for some in of_each for start, stop in some}
    return joined(sorted(tasks))


def as_array(ranges: list[tuple[int, int]]) -> str:
    """Ranges (start, stop) as job arrays take them: "0-3,7"."""
    return ",".join(f"{start}-{stop - 1}" if stop - start > 1 else str(start) for start, stop in ranges)


def _checkpoint(store: FeatureStore, model_id: int) -> dict[str, Any]:
    # An interrupted process may have left less than a table.
    table = store.table(model_id) if checked(store._checkpoint(model_id), "done") is not None else None
    return {
        "model_id": model_id,
        "fingerprint": store.fingerprint(model_id),
        "rows_done": 0 if table is None else len(table) - table.count_undone(),
        "finalized": [w for w in ("ggn", "identity") if store.is_finalized(model_id, w)],
    }


def _experiment(store: FeatureStore, name: str) -> dict[str, Any]:
    experiment = store.experiment(name)
    size, ids = experiment.num_targets, experiment.checkpoints()
    return {
        "name": name,
        "num_targets": size,
        "targets_done": {str(i): size - experiment.targets(i).count_undone() for i in ids},
        "scores": experiment.stored_scores(),
    }


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
