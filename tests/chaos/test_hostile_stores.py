import subprocess
import sys
from pathlib import Path


def test_no_damage_to_a_store_crashes_hangs_reaches_outside_or_raises_what_is_not_documented():
    # The first of those that the command at the head of the script tries.
    script = Path(__file__).with_name("hostile_stores.py")
    found = subprocess.run([sys.executable, script, "--stores", "80"], stdout=subprocess.PIPE, text=True)
    assert found.returncode == 0, found.stdout
