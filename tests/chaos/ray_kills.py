"""Parts of a Ray cluster are killed while it attributes: workers at random, a node, the driver, and the head.

`python tests/chaos/ray_kills.py` kills 20 workers in a run, and each of the others once, in five minutes or so;
`--seed` gives other moments, `--parts` less. What is left must be what one process leaves; prints what differed, and
ends with status 1 if anything did.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "helpers")]
os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}

SLOW = 0.1
"""Seconds that an example takes to load, so that there is time to kill."""
PARTS = ("workers", "driver", "head", "node")
LIMIT = 300
"""Seconds that a run may take."""


def drive(directory, address):
    """What the user runs: attributes on the cluster at an address."""
    import ray_setup
    from shared_runs import Run

    from trak.distributed import Ray

    seen = Path(f"{directory}-seen")
    seen.mkdir(exist_ok=True)

    def inside(index):
        (seen / str(os.getpid())).touch()
        time.sleep(SLOW)

    ray_setup.start(address=address)
    run = Run(directory)
    run.options["engine"] = Ray(num_workers=2)
    run.attribute(inside).scores  # noqa: B018


class Running:
    """A driver in a process of its own."""

    def __init__(self, directory, address):
        self.directory = directory
        self._log = open(f"{directory}.log", "wb")  # noqa: SIM115
        command = [sys.executable, __file__, "--drive", str(directory), "--address", address]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def workers(self):
        """Those of the cluster's processes that have loaded something and are alive."""
        return [path.name for path in Path(f"{self.directory}-seen").glob("*") if Path("/proc", path.name).exists()]

    def wait_for_work(self):
        """Until something was loaded, or the run is over."""
        while self.process.poll() is None and not self.workers():
            time.sleep(0.05)

    def end(self):
        """The exit status, and what it printed."""
        status = self.process.wait(LIMIT)
        self._log.close()
        return status, Path(self._log.name).read_text(errors="replace")


def start_cluster(nodes=0):
    """A head with two cores, or without and nodes with one each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0 if nodes else 2, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return cluster


def kill_workers(running, kills, rng):
    """Kill workers of a run; how many were killed before it was over."""
    killed = 0
    while killed < kills and running.process.poll() is None:
        time.sleep(rng.uniform(0, 4 * SLOW))
        with suppress(ProcessLookupError, IndexError):
            os.kill(int(rng.choice(running.workers())), signal.SIGKILL)
            killed += 1
    return killed


def later(running, rng):
    """A random moment of a run."""
    running.wait_for_work()
    time.sleep(rng.uniform(0, 10 * SLOW))


class Chaos:
    """What differed, in words, and how many workers were killed in how many runs."""

    def __init__(self, root, kills, seed):
        import shared_runs
        from processes import contents, done

        self.root, self.kills, self.rng = root, kills, random.Random(seed)
        self.wrong, self.killed, self.runs = [], 0, 0
        whole = shared_runs.Run(root / "whole")
        done(lambda tell: whole.attribute().scores)
        self.expected = contents(whole.directory)

    def compare(self, name, running):
        """Let a run end, which must leave what one process does."""
        from processes import contents, differences

        status, words = running.end()
        if status:
            self.wrong.append(f"{name}: ended with {status}: {words[-2000:]}")
        different = differences(contents(running.directory), self.expected)
        self.wrong.extend(f"{name}: {path} differs" for path in different)
        shutil.rmtree(running.directory)

    def workers(self):
        """Workers are killed at random moments."""
        cluster = start_cluster()
        while self.killed < self.kills:  # a run that was done early is followed by another
            running = Running(self.root / f"workers-{self.runs}", cluster.address)
            self.killed += kill_workers(running, self.kills - self.killed, self.rng)
            self.runs += 1
            self.compare("workers", running)
        cluster.shutdown()

    def driver(self):
        """The driver is killed, and started again."""
        cluster = start_cluster()
        running = Running(self.root / "driver", cluster.address)
        later(running, self.rng)
        running.process.kill()
        running.end()
        self.compare("driver", Running(self.root / "driver", cluster.address))
        cluster.shutdown()

    def head(self):
        """The head is killed, which ends the driver; it is started again with another cluster."""
        cluster = start_cluster()
        running = Running(self.root / "head", cluster.address)
        later(running, self.rng)
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        status, words = running.end()
        if status == 0 or not words.strip():
            self.wrong.append(f"head: ended with {status}: {words[-2000:]}")
        cluster.shutdown()
        cluster = start_cluster()
        self.compare("head", Running(self.root / "head", cluster.address))
        cluster.shutdown()

    def node(self):
        """One of two nodes is killed."""
        cluster = start_cluster(nodes=2)
        running = Running(self.root / "node", cluster.address)
        later(running, self.rng)
        cluster.remove_node(self.rng.choice(sorted(cluster.worker_nodes, key=id)), allow_graceful=False)
        self.compare("node", running)
        cluster.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.drive:
        drive(chosen.drive, chosen.address)
        return 0
    with tempfile.TemporaryDirectory() as root:
        chaos = Chaos(Path(root), chosen.kills, chosen.seed)
        for part in chosen.parts:
            getattr(chaos, part)()
    print(*chaos.wrong, json.dumps({"killed": chaos.killed, "runs": chaos.runs, "wrong": len(chaos.wrong)}), sep="\n")
    return bool(chaos.wrong)


if __name__ == "__main__":
    sys.exit(main())
