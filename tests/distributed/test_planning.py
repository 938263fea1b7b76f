"""The calculator: its formulas against values worked out by hand, and what it says of a real store."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

import trak
from trak.cli import main
from trak.distributed.planning import Constants, Line, Workload, limits, phases
from trak.distributed.planning.constants import DTYPES
from trak.distributed.planning.phases import featurizing, finalizing, query, scores
from trak.distributed.planning.workload import step_seconds

# Figures that are easy to reckon with.
CONSTANTS = Constants(
    machine="paper", open_seconds=1.0, batch_seconds=0.5, row_seconds=dict.fromkeys(DTYPES, Line(0.001, 1e-5)),
    hash_seconds=1e-6, step_ratio=2.0, verify_seconds=Line(0.01, 1e-5), finalize_seconds=3.0,
    gram_seconds=dict.fromkeys(DTYPES, 1e-5), gram_flops=1e6, query_seconds=0.25, reopen_seconds=0.75,
    cholesky_flops=1e6, solve_flops=2e6, eigen_seconds=Line(0.5, 1e-6), damping_seconds=Line(1e-5, 1e-7),
    stream_seconds=dict.fromkeys(DTYPES, 1e-6),
    product_flops=1e7, top_seconds=Line(1e-4, 1e-5), score_seconds=1e-6, read_bandwidth=1e5, write_bandwidth=1e5,
    process_bytes=1e6,
)  # fmt: skip
WORK = Workload(
    examples=1000, params=10, k=100, checkpoints=2, targets=50, workers=2, step_seconds=0.01, batch=300,
    example_bytes=500, memory=1e9,
)  # fmt: skip
SHARED = ["plan", "--examples", "1e6", "--params", "1e8"]


def approx(**values):
    return {name: pytest.approx(value, rel=1e-12) for name, value in values.items()}


def test_featurizing_is_what_its_formula_gives_by_hand():
    found = featurizing(WORK, CONSTANTS)
    # 2,000 rows: 2 x 0.01 s model, 500e-6 s hash, 0.001 + 100e-5 s row; 2 x 4 batches of 0.5 s; by two workers.
    assert found.parts == approx(opening=2, model=20, hashes=0.5, rows=2, batches=2)
    # Float32 row: 400 bytes of features, 3 x 4 of columns, 8 of hash, 4 of checksum, 1 of done.
    assert found.bytes_written == 2 * 1000 * 425
    assert found.seconds == pytest.approx(26.5)
    assert found.worker_hours == pytest.approx(2 * 26.5 / 3600)
    assert found.memory == 1e6 + 12 * 4 * 300 * 100


def test_featurizing_waits_for_storage_where_that_is_slower():
    assert featurizing(replace(WORK, write_bandwidth=1000), CONSTANTS).seconds == pytest.approx(850)


def test_finalizing_is_what_its_formula_gives_by_hand():
    found = finalizing(WORK, CONSTANTS)
    # One checkpoint for each worker. A row: 0.01 + 425e-5 s; 100 x 1e-5 + 1.125 x 10^4 / 10^6.
    assert found.parts == approx(**{"opening": 3, "checksums": 14.25, "Gram matrix": 12.25})
    assert (found.bytes_read, found.bytes_written) == (0, 2 * 8 * 100**2)
    assert found.seconds == pytest.approx(29.5 + 1.6)
    assert found.memory == 1e6 + 4 * 8 * 100**2 + 3 * 8 * 1000 * 100


def test_rows_that_do_not_fit_in_memory_are_read_twice_by_finalizing_and_again_by_queries():
    small = replace(WORK, memory=1e6)
    assert finalizing(small, CONSTANTS).bytes_read == 2 * 850_000
    assert query(small, CONSTANTS).bytes_read == 850_000 + 2 * 160_000
    assert query(small, CONSTANTS, opened=True).bytes_read == 850_000 + 2 * 160_000
    # By each of two workers the Gram matrices of two checkpoints.
    assert query(WORK, CONSTANTS).bytes_read == 2 * 160_000


def test_a_query_is_what_its_formula_gives_by_hand():
    found = query(WORK, CONSTANTS, opened=True)
    # 50 targets by two workers: 2 x (1 + (50 x (0.02 + 0.0005 + 0.002) + 0.5) / 2). 1,000 rows for each worker.
    assert found.parts == approx(
        targets=3.625, opening=2, checksums=14.25, damping=0, Cholesky=2 / 3, solve=1, products=1.1, strongest=0.3
    )
    assert found.seconds == pytest.approx(sum(found.parts.values()) + (850_000 + 2 * 160_000) / 1e5)
    assert "checksums" not in query(WORK, CONSTANTS).parts
    assert query(WORK, CONSTANTS).parts["opening"] == pytest.approx(0.5)
    # From 100 targets on, one checkpoint in ten chooses the damping.
    many = replace(WORK, targets=100, checkpoints=11)
    assert query(many, CONSTANTS).parts["damping"] == pytest.approx(2 * (0.5 + 1 + 1000 * (1e-5 + 1e-7 * 100**2)))


def test_a_query_keeps_64_workers_busy_at_most():
    many, all_busy = (query(replace(WORK, workers=workers), CONSTANTS) for workers in (1000, 64))
    assert many == all_busy
    assert many.workers == 64


def test_all_scores_cost_a_query_and_their_file():
    found, asked = scores(WORK, CONSTANTS), query(WORK, CONSTANTS, opened=True)
    assert found.parts == approx(**{k: v for k, v in asked.parts.items() if k != "strongest"} | {"file": 0.05})
    assert found.bytes_written == 4 * 1000 * 50
    assert found.bytes_read == asked.bytes_read


def test_a_training_step_is_six_operations_for_each_parameter_and_token():
    assert step_seconds(7e9, 1000, 4.2e13) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_bytes_are_those_on_disk(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr("trak.store.table.CHUNK_BYTES", 2048)
    model = nn.Linear(6, 3)
    batch = torch.randn(70, 6), torch.randint(3, (70,))
    targets, options = tuple(t[:5] for t in batch), {"proj_dim": 48, "dtype": dtype, "progress": False}
    trak.attribute(model, "image_classification", model.state_dict(), [batch], [targets], tmp_path, **options)
    work = Workload(examples=70, params=21, k=48, dtype=dtype, targets=5)
    rows = tmp_path / "checkpoints" / "0"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "c" in path.relative_to(tmp_path).parts]
    assert sum(path.stat().st_size for path in files) == work.stored_bytes + 4  # and the Gram matrix's checksum
    assert len([path for path in (rows / "features" / "c").rglob("*") if path.is_file()]) == work.chunks > 1


def margins(work):
    return [(limit.what, limit.margin) for limit in limits(work, phases(work, CONSTANTS))]


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"k": 20_000, "memory": 1e9, "examples": 100, "step_seconds": 1e3}, "memory of Gram matrix and factor"),
        ({"examples": 2**36, "k": 1, "step_seconds": 1.0, "write_bandwidth": 1e18}, "row numbers in claims"),
        ({"read_bandwidth": 1.0, "examples": 10_000}, "storage of all scores"),
        ({"batch": 1, "example_bytes": 1, "step_seconds": 1e-3}, "batches' fixed cost beside the same"),
        ({"write_bandwidth": 1.0}, "writing rows meanwhile"),
    ],
)
def test_what_breaks_first_stands_first(changed, first):
    quick = replace(
        CONSTANTS, cholesky_flops=1e18, solve_flops=1e18, product_flops=1e18, gram_flops=1e18,
        verify_seconds=Line(0, 0), read_bandwidth=1e18,
        gram_seconds=dict.fromkeys(DTYPES, 0.0), stream_seconds=dict.fromkeys(DTYPES, 0.0),
    )  # fmt: skip
    work = replace(WORK, **changed)
    found = limits(work, phases(work, quick))
    assert found[0].what == first
    assert found[0].margin < 1
    assert [limit.margin for limit in found] == sorted(limit.margin for limit in found)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"examples": 0}, "examples must be an integer, 1 or more"),
        ({"k": 2.5}, "k must be an integer"),
        ({"workers": float("inf")}, "workers must be an integer"),
        ({"step_seconds": -1.0}, "step_seconds must be a number, 0 or more"),
        ({"memory": float("nan")}, "memory must be a number"),
        ({"read_bandwidth": 0.0}, "read_bandwidth must be a number"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
    ],
)
def test_sizes_that_can_not_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(WORK, **wrong)


def test_constants_are_read_as_they_were_written(tmp_path):
    CONSTANTS.save(tmp_path / "c.json")
    assert Constants.load(tmp_path / "c.json") == CONSTANTS
    assert "core" in Constants.default().machine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: [], "must hold an object of constants, got a list"),
        (lambda found: {k: v for k, v in found.items() if k != "step_ratio"}, "lacks 'step_ratio'"),
        (lambda found: found | {"speed": 1}, "has an unknown 'speed'"),
        (lambda found: found | {"gram_flops": 0}, "gram_flops in .* must be more than 0"),
        (lambda found: found | {"hash_seconds": -1}, "hash_seconds in .* must be a number, 0 or more"),
        (lambda found: found | {"hash_seconds": "fast"}, "hash_seconds in .* must be a number"),
        (lambda found: found | {"top_seconds": 1}, "top_seconds in .* must have 'fixed' and 'each'"),
        (lambda found: found | {"gram_seconds": {"float32": 1}}, "gram_seconds in .* must have an entry for each of"),
    ],
)
def test_constants_that_can_not_be_used_are_refused(tmp_path, capsys, change, message):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(change(asdict(CONSTANTS))))
    with pytest.raises(ValueError, match=message):
        Constants.load(path)
    assert main([*SHARED, "--constants", str(path)]) == 1
    assert capsys.readouterr().err.startswith("trak: ")


def test_json_holds_what_the_formulas_give(tmp_path, capsys):
    CONSTANTS.save(tmp_path / "c.json")
    options = ["--k", "1e2", "--checkpoints", "2", "--targets", "50", "--workers", "2", "--step-seconds", "0.01"]
    options += ["--batch", "300", "--example-bytes", "500", "--memory", "1e9", "--constants", str(tmp_path / "c.json")]
    assert main(["plan", "--examples", "1e3", "--params", "10", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["constants"] == "paper"
    assert found["work"] == asdict(WORK)
    expected = phases(WORK, CONSTANTS)
    assert [phase["seconds"] for phase in found["phases"]] == [cost.seconds for cost in expected]
    assert [limit["what"] for limit in found["limits"]] == [name for name, _ in margins(WORK)]


def test_the_device_that_options_name_is_reckoned_with(capsys):
    def planned(*options):
        assert main([*SHARED, *options, "--json"]) == 0
        return {phase["name"]: phase["parts"] for phase in json.loads(capsys.readouterr().out)["phases"]}

    slow, fast = (
        planned(),
        planned("--tokens", "10", "--flops", "6e12", "--matmul-flops", "1e13", "--float64-flops", "1e12"),
    )
    default = Constants.default()
    assert fast["featurizing"]["model"] == pytest.approx(default.step_ratio * 1e6 * 1e-3)
    assert fast["finalizing"]["Gram matrix"] == pytest.approx(1e6 * 1.125 * 2048**2 / 1e13)
    assert fast["query, store open"]["Cholesky"] == pytest.approx(2048**3 / 3 / 1e12)
    assert fast["finalizing"]["checksums"] == slow["finalizing"]["checksums"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step-seconds", "1", "--flops", "1e12"], "--step-seconds (got 1) or --flops (got 1e+12), not both"),
        (["--flops", "0"], "--flops must be more than 0"),
        (["--float64-flops", "nan"], "--float64-flops must be more than 0"),
        (["--k", "0"], "k must be an integer, 1 or more"),
        (["--constants", "nowhere.json"], "nowhere.json"),
    ],
)
def test_options_that_can_not_be_are_an_error_in_one_line(options, message, capsys):
    assert main([*SHARED, *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("trak: ")
    assert message in printed.err
    assert not printed.out


def test_the_table_names_every_phase_and_what_breaks_first(capsys):
    assert main([*SHARED, "--k", "1e5"]) == 0
    printed = capsys.readouterr().out
    for cost in phases(WORK, CONSTANTS):
        assert f"\n{cost.name} " in printed
    assert "what breaks first:\n  " in printed
    assert "TOO MUCH" in printed


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    assert "trak plan --examples" in capsys.readouterr().out
