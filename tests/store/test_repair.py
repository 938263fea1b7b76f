import json
import os

import numpy as np
import pytest
import torch
from processes import contents

import trak
import trak.store.table
from trak.__main__ import main
from trak.store.repair import repair

N, TARGETS, BATCH, K = 24, 6, 4, 8
FEATURES = "checkpoints/1/features/c/1/0"
DONE = "checkpoints/1/done/c/1"


class Counted(torch.utils.data.Dataset):
    """Says which examples were loaded."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.x, self.y = torch.randn(N, 5, generator=generator), torch.arange(N) % 3

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.x[index], self.y[index]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Attributes into tmp_path/"store"; returns the attribution and the rows that were written by the run."""
    monkeypatch.setattr(trak.store.table, "CHUNK_BYTES", 10 * K * 4)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    states = [{name: torch.randn_like(value) for name, value in model.state_dict().items()} for _ in range(2)]
    targets = [(torch.randn(3, 5), torch.arange(3)) for _ in range(2)]
    written = []
    real = trak.store.table.Table.write

    def write(table, indices, values):
        written.extend((table.group.path, int(i)) for i in indices[~table.is_done(indices)])
        real(table, indices, values)

    monkeypatch.setattr(trak.store.table.Table, "write", write)

    def go():
        written.clear()
        found = trak.attribute(
            model, "image_classification", states, torch.utils.data.DataLoader(Counted(), BATCH), targets,
            tmp_path / "store", proj_dim=K, device="cpu", progress=False,
        )  # fmt: skip
        return found.scores.copy(), sorted(written)

    go()
    return go


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 16
    path.write_bytes(data)


def test_a_healthy_store_is_left_as_it_is(run, tmp_path, capsys):
    before = contents(tmp_path / "store")
    assert repair(tmp_path / "store") == []
    assert main(["repair", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out == "nothing is corrupt\n"
    assert contents(tmp_path / "store") == before


@pytest.mark.parametrize("column", ["features/c/1/0", "output/c/1", "data_hash/c/1", "checksum/c/1"])
def test_rows_with_a_flipped_bit_are_computed_again_and_nothing_else(run, tmp_path, column):
    store = tmp_path / "store"
    before, (scores, _) = contents(store), run()
    path = store / "checkpoints" / "1" / column
    row_bytes = path.stat().st_size // 8  # 24 rows in 3 chunks
    flip(path, 2 * row_bytes)
    flip(path, 3 * row_bytes)
    found, scores_too = repair(store)
    assert (found.where, found.repaired) == ("checkpoints/1", True)
    assert found.what.startswith("2 corrupt rows")
    assert (scores_too.where, scores_too.repaired) == ("experiments/targets/scores", True)
    again, written = run()
    assert written == [("checkpoints/1", 10), ("checkpoints/1", 11)]
    np.testing.assert_array_equal(again, scores)
    assert contents(store) == before


@pytest.mark.parametrize("length", [0, 3, 8 * K * 4 - 1])
def test_a_truncated_chunk_is_computed_again(run, tmp_path, length):
    store = tmp_path / "store"
    before = contents(store)
    os.truncate(store / FEATURES, length)
    assert [found.repaired for found in repair(store)] == [True, True]
    _, written = run()
    first = 8 + length // (K * 4)
    assert written == [("checkpoints/1", row) for row in range(first, 16)]
    assert contents(store) == before


@pytest.mark.parametrize("lost", [[FEATURES], [DONE], [FEATURES, DONE]])
def test_a_lost_chunk_is_noticed_and_computed_again(run, tmp_path, lost):
    store = tmp_path / "store"
    before = contents(store)
    for name in lost:
        (store / name).unlink()
    with pytest.raises(trak.store.StoreError, match=r"row 8 .*trak repair"):
        trak.Attribution.open(store).top(2)
    assert [found.repaired for found in repair(store)] == [True, True]
    _, written = run()
    assert written == [("checkpoints/1", row) for row in range(8, 16)]
    assert contents(store) == before


def test_targets_with_a_flipped_bit_are_computed_again(run, tmp_path):
    store = tmp_path / "store"
    before = contents(store)
    flip(store / "experiments/targets/targets/0/features/c/0/0", 4 * K * 4)
    assert [found.where for found in repair(store)] == ["experiments/targets/targets/0", "experiments/targets/scores"]
    _, written = run()
    assert written == [("experiments/targets/targets/0", 4)]
    assert contents(store) == before


@pytest.mark.parametrize("damage", ["contents", "metadata"])
def test_a_damaged_gram_matrix_is_computed_again(run, tmp_path, damage):
    store = tmp_path / "store"
    before = contents(store)
    if damage == "contents":
        flip(store / "checkpoints/0/gram_ggn/c/0/0", 9)
    else:
        (store / "checkpoints/0/gram_ggn/zarr.json").write_text("[")
    found, _ = repair(store)
    assert (found.where, found.repaired) == ("checkpoints/0/gram_ggn", True)
    _, written = run()
    assert written == []
    assert contents(store) == before


def test_scores_with_a_flipped_bit_are_computed_again(run, tmp_path):
    store = tmp_path / "store"
    before = contents(store)
    (file,) = (store / "experiments/targets/scores").glob("*/c/0/0")
    flip(file, 40)
    (found,) = repair(store)
    assert found.where.startswith("experiments/targets/scores/")
    _, written = run()
    assert written == []
    assert contents(store) == before


def test_metadata_that_can_not_be_repaired_are_named_with_what_to_do(run, tmp_path, capsys):
    store = tmp_path / "store"
    (store / "checkpoints/1/features/zarr.json").write_text("{")
    assert main(["repair", str(store), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().err.removeprefix("trak: "))
    assert not found["repaired"]
    assert found["where"] == "checkpoints/1"
    assert "delete checkpoints/1 and run the same script again" in found["what"]


def test_the_command_says_what_it_did_and_what_to_do(run, tmp_path, capsys):
    flip(tmp_path / "store" / FEATURES, 0)
    assert main(["repair", str(tmp_path / "store")]) == 0
    out = capsys.readouterr().out
    assert "checkpoints/1: 1 corrupt rows" in out
    assert "run the script that made the store again" in out
