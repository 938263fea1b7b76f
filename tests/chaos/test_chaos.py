"""Short forms of the scripts in this folder; CONTRIBUTING.md has the commands of the long ones."""

import subprocess
import sys
from pathlib import Path


def run(script, *options):
    command = [sys.executable, Path(__file__).with_name(script), *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True)


def test_no_damage_to_a_store_crashes_hangs_reaches_outside_or_raises_what_is_not_documented():
    found = run("hostile_stores.py", "--stores", "80")
    assert found.returncode == 0, found.stdout


def test_killed_ranks_and_full_disks_leave_what_one_run_leaves():
    found = run("kills.py", "--kills", "4", "--seed", "1")
    assert found.returncode == 0, found.stdout
    assert '"killed": 4' in found.stdout


def test_killed_workers_of_a_ray_cluster_leave_what_one_process_leaves():
    found = run("ray_kills.py", "--kills", "2", "--parts", "workers")
    assert found.returncode == 0, found.stdout
    assert '"killed": 2' in found.stdout
