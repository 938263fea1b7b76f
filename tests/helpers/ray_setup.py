"""A small Ray cluster on this machine, whose workers make chunks as small as the other tests do."""

import os
from pathlib import Path

import shared_runs

HELPERS = Path(__file__).parent
CHUNK = 16 * shared_runs.FEATURES * 4


def in_worker():
    import torch

    import trak.store.table

    torch.set_num_threads(1)
    trak.store.table.CHUNK_BYTES = trak.store.table.OBJECT_BYTES = CHUNK


def start(**options):
    """Initialize Ray, with two cores unless it joins a cluster."""
    import ray

    paths = os.pathsep.join([str(HELPERS.parents[1]), str(HELPERS)])
    environment = {"env_vars": {"PYTHONPATH": paths}, "worker_process_setup_hook": "ray_setup.in_worker"}
    options = options or {"num_cpus": 2, "include_dashboard": False}
    ray.init(logging_level="ERROR", log_to_driver=False, runtime_env=environment, **options)
