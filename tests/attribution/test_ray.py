"""Attribution and retraining by tasks on a Ray cluster of two workers; tests/chaos/ray_kills.py kills parts of it."""

import os
import threading

import numpy as np
import pytest
import ray
import ray_setup
import s3
import torch
from processes import contents, differences
from shared_runs import CHECKPOINTS, N, Run, examples

import trak
from trak.distributed import Pool, Ray
from trak.evaluation import RetrainingError, retrain_on


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with s3.server() as environment:
            for name, value in environment.items():
                patch.setenv(name, value)
            ray_setup.start()
            yield
            ray.shutdown()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    for name in ("CHUNK_BYTES", "OBJECT_BYTES"):
        monkeypatch.setattr(f"trak.store.table.{name}", ray_setup.CHUNK)


def on_ray(directory, **options):
    run = Run(directory)
    run.options["engine"] = Ray(num_workers=2, **options)
    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process's store, scores, and best and worst five."""
    directory = tmp_path_factory.mktemp("alone") / "store"
    found = Run(directory).attribute()
    return contents_of(directory, found), found.top(5), found.top(5, bottom=True)


def contents_of(directory, attribution):
    attribution.scores  # noqa: B018
    return contents(directory)


def test_a_directorys_store_and_scores_are_those_of_one_process(alone, tmp_path):
    expected, top, bottom = alone
    found = on_ray(tmp_path / "store").attribute()
    assert differences(contents_of(tmp_path / "store", found), expected) == []
    for best, ours in ((top, found.top(5)), (bottom, found.top(5, bottom=True))):
        np.testing.assert_array_equal(ours.indices, best.indices)
        np.testing.assert_array_equal(ours.scores, best.scores)


def test_an_object_stores_store_and_scores_are_those_of_one_process(alone):
    one, many = (f"{s3.new_bucket()}/run" for _ in range(2))
    Run(one).attribute().scores  # noqa: B018
    found = on_ray(many).attribute()
    found.scores  # noqa: B018
    assert differences(s3.contents(many), s3.contents(one)) == []
    np.testing.assert_array_equal(found.top(5).indices, alone[1].indices)


def test_a_list_of_batches_with_its_own_indices_is_dealt_out(alone, tmp_path):
    data, run = examples(), on_ray(tmp_path / "store")
    order = np.random.default_rng(0).permutation(N).reshape(-1, 4)
    batches = [(data.x[rows], data.y[rows], torch.tensor(rows)) for rows in order]
    targets = [(x, y, torch.arange(5) + 5 * part) for part, (x, y) in enumerate(run.targets)]
    found = trak.attribute(
        run.model, "image_classification", run.states, batches, targets, run.directory, progress=False, index_key=2,
        **run.options,
    )  # fmt: skip
    np.testing.assert_allclose(found.top(5).scores, alone[1].scores, rtol=1e-5)


def test_what_is_stored_is_not_done_again_and_an_interrupted_run_goes_on(alone, tmp_path):
    run, seen = on_ray(tmp_path / "store"), tmp_path / "seen"
    seen.mkdir()
    part = Run(tmp_path / "store")
    traker = trak.TRAKer(part.model, "image_classification", N, part.directory, **part.options)
    traker.load_checkpoint(part.states[0], 0)
    data = examples()
    for first in range(0, 24, 4):
        rows = np.arange(first, first + 4)
        traker.featurize((data.x[rows], data.y[rows]), inds=rows)
    found = run.attribute(lambda index: (seen / f"{index}-{os.urandom(4).hex()}").touch())
    assert differences(contents_of(tmp_path / "store", found), alone[0]) == []
    loads = [int(path.name.split("-")[0]) for path in seen.iterdir()]
    # All of the second checkpoint; of the first what is missing, and the batch by which changes would be noticed.
    assert sorted(loads) == sorted([*range(N), *range(24, N), *range(4)])
    for path in seen.iterdir():
        path.unlink()
    run.attribute(lambda index: (seen / f"{index}-{os.urandom(4).hex()}").touch())
    assert len(list(seen.iterdir())) == 4 * CHECKPOINTS


def test_other_data_is_noticed_and_nothing_stored_is_lost(tmp_path):
    run = on_ray(tmp_path / "store")
    run.attribute()
    before, data = contents(tmp_path / "store"), examples()
    data.x += 1
    with pytest.raises(ValueError, match="was featurized from other data") as raised:
        run.attribute(data=data)
    assert any("On the cluster" in note for note in raised.value.__notes__)
    assert differences(contents(tmp_path / "store"), before) == []


def test_an_example_that_is_not_finite_is_named(tmp_path):
    data = examples()
    data.x[17] = float("nan")
    with pytest.raises(ValueError, match=r"example 17 .*NaN"):
        on_ray(tmp_path / "store").attribute(data=data)


def test_a_loader_whose_batches_have_no_numbers_is_refused(tmp_path):
    run, data = on_ray(tmp_path / "store"), examples()

    class Loader:
        def __iter__(self):
            yield data.x, data.y

    with pytest.raises(TypeError, match=r"train is Loader.*list of batches, or a DataLoader"):
        trak.attribute(
            run.model, "image_classification", run.states, Loader(), run.targets, run.directory, **run.options
        )


def test_what_cant_be_sent_is_refused(tmp_path):
    run = on_ray(tmp_path / "store")
    run.model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"can't be sent to other processes.*lock"):
        run.attribute()


def test_a_relative_save_dir_and_paths_of_checkpoints_are_the_drivers(alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = on_ray("store")
    for i, state in enumerate(run.states):
        torch.save(state, f"{i}.pt")
    run.states = ["0.pt", "1.pt"]
    assert differences(contents_of(tmp_path / "store", run.attribute()), alone[0]) == []


@pytest.mark.parametrize(
    "options", [{"num_workers": 0}, {"num_workers": 1.5}, {"num_gpus_per_worker": -1}, {"max_retries": "many"}]
)
def test_numbers_that_cant_be_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value!r}"):
        Ray(**options)


def test_no_more_tasks_run_than_workers_were_asked_for(tmp_path):
    def task(number):
        import time

        (tmp_path / f"{number}").touch()
        time.sleep(0.1)
        count = len(list(tmp_path.iterdir()))
        (tmp_path / f"{number}").unlink()
        return count

    pool = Pool(Ray(num_workers=1))
    for number in range(4):
        pool.add(number, task, number)
    assert [found for _, found in pool] == [1] * 4


def test_a_process_that_always_dies_stops_the_run_with_a_message():
    pool = Pool(Ray(max_retries=1))
    pool.add(0, lambda: os._exit(1))
    with pytest.raises(RuntimeError, match=r"Ray cluster lost a task .*run the same script again"):
        list(pool)


def constant(indices, seed):
    model = torch.nn.Linear(6, 3)
    torch.nn.init.constant_(model.bias, float(len(indices)))
    return model


def retrained(runs, train, directory, **options):
    return retrain_on(
        runs, train, "image_classification", Run(directory).targets, train_set_size=N, save_dir=directory,
        progress=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["ray", Ray(num_workers=1)], ids=["by name", "engine"])
def test_retraining_on_a_cluster_equals_retraining_here(backend, tmp_path):
    runs = [(np.arange(count), seed) for seed, count in enumerate((3, 5, 8))]
    found = retrained(runs, constant, tmp_path / "ray", backend=backend)
    expected = retrained(runs, constant, tmp_path / "here", jobs=1)
    np.testing.assert_array_equal(found.outputs, expected.outputs)


def test_no_training_is_begun_after_a_failure_and_those_that_are_done_are_kept(tmp_path):
    def train(indices, seed):
        (tmp_path / str(seed)).touch()
        if seed == 4:
            raise ValueError("four")
        return constant(indices, seed)

    runs = [([1, 2], seed) for seed in range(20)]
    with pytest.raises(RetrainingError, match=r"run 4 .*four.* of 20 models are done"):
        retrained(runs, train, tmp_path / "store", backend=Ray(num_workers=2))
    assert len([path for path in tmp_path.iterdir() if path.name.isdecimal()]) <= 7
    assert retrained(runs[:4], train, tmp_path / "store", jobs=1).outputs.shape == (4, 10)
