"""Stores on an S3 server: the contract of every store, several writers at once, and a server that fails."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import obstore
import obstore.exceptions
import pytest
import s3
from processes import differences
from shared_runs import Run
from test_feature_store import CONFIG, StoreContract

import trak
from trak.__main__ import main
from trak.store import FeatureStore, StoreError, open_store
from trak.store.object_store import open_bucket

WRITERS = Path(__file__).parents[1] / "chaos" / "s3_writers.py"


@pytest.fixture(scope="module", autouse=True)
def _server():
    with s3.server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


class TestS3(StoreContract):
    @pytest.fixture(scope="class", autouse=True)
    def _bucket(self, _server):
        type(self).bucket, type(self).made = s3.new_bucket(), 0

    def fresh(self):
        type(self).made += 1
        return f"{self.bucket}/store-{self.made}"

    def contents(self, location):
        return s3.objects(location)

    def put(self, location, key, data):
        obstore.put(open_bucket(location).store, key, data)

    def delete(self, location, key):
        obstore.delete(open_bucket(location).store, key)


def test_changes_of_one_object_by_several_are_all_kept():
    bucket = open_bucket(f"{s3.new_bucket()}/run")

    def work():
        for _ in range(20):
            bucket.change("count", lambda found: str(int(found or b"0") + 1).encode())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bytes(obstore.get(bucket.store, "count").bytes()) == b"80"


def test_of_two_configurations_the_first_wins_and_the_second_is_told():
    url, answers = f"{s3.new_bucket()}/run", []

    def create(width):
        try:
            answers.append(FeatureStore.create(url, CONFIG.__class__(**{**vars(CONFIG), "proj_dim": width})))
        except ValueError as error:
            answers.append(error)

    threads = [threading.Thread(target=create, args=[width]) for width in (4, 5, 6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [answer for answer in answers if isinstance(answer, FeatureStore)]
    refused = [str(answer) for answer in answers if isinstance(answer, ValueError)]
    assert len(made) == 1
    assert open_store(url).config == made[0].config
    assert len(refused) == 3
    assert all(f"proj_dim={made[0].config.proj_dim}" in words for words in refused)


@pytest.mark.parametrize(
    "url", ["s3://AKIAKEY:hidden@bucket/run", "s3://bucket/run?X-Amz-Signature=hidden", "gs://user:hidden@bucket/run"]
)
def test_credentials_in_a_url_are_refused_without_repeating_them(url):
    for use in (lambda: FeatureStore.create(url, CONFIG), lambda: open_store(url)):
        with pytest.raises(ValueError, match=r"bucket/run was given with credentials.*environment") as raised:
            use()
        assert "hidden" not in str(raised.value)


def test_refused_credentials_are_an_error_that_says_so_without_them(monkeypatch):
    url = f"{s3.new_bucket()}/run"
    with s3.server(refuse=True) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(PermissionError, match=r"S3Store.*refuses this with the credentials at hand") as raised:
            FeatureStore.create(url, CONFIG)
    assert s3.CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)


def test_a_server_that_is_gone_is_an_error_that_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr("trak.store.object_store._RETRIES", {"max_retries": 0})
    url = f"{s3.new_bucket()}/run"
    with s3.server() as environment:
        monkeypatch.setenv("AWS_ENDPOINT_URL", environment["AWS_ENDPOINT_URL"])
    with pytest.raises(OSError, match=r"can't be reached .*run the same script again"):
        FeatureStore.create(url, CONFIG)


def test_requests_are_repeated_for_two_minutes_and_in_one_place(monkeypatch):
    url, calls = f"{s3.new_bucket()}/run", []
    bucket, now = open_bucket(url), [0.0]
    assert bucket.store.retry_config["retry_timeout"].total_seconds() == 120

    async def fails():
        calls.append(now[0])
        now[0] += 121  # as long as obstore has repeated the request
        raise obstore.exceptions.GenericError("503")

    monkeypatch.setattr("trak.store.object_store.time.monotonic", lambda: now[0])
    with pytest.raises(OSError, match="fails or can't be reached"):
        asyncio.run(bucket._answered(fails))
    assert len(calls) == 1


def test_a_url_of_an_object_store_needs_obstore(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ImportError, match=r"s3://bucket/run needs obstore: pip install 'trak-attribution\[remote\]'"):
        FeatureStore.create("s3://bucket/run", CONFIG)


def test_damaged_objects_are_named_and_repaired():
    url = f"{s3.new_bucket()}/run"
    Run(url).attribute().scores  # noqa: B018
    before, store = s3.contents(url), open_bucket(url).store
    for key, cut in {"0/features/c/1/0": False, "1/features/c/0/0": True, "1/output/c/2": True}.items():
        data = bytearray(obstore.get(store, f"checkpoints/{key}").bytes())
        data[5] ^= 1
        obstore.put(store, f"checkpoints/{key}", bytes(data[: len(data) // 2] if cut else data))
    with pytest.raises(StoreError, match=r"chunk [01] of checkpoints/[01].*trak repair"):
        trak.Attribution.open(url).top(3)
    assert main(["repair", url]) == 0
    Run(url).attribute().scores  # noqa: B018
    assert differences(s3.contents(url), before) == []


@pytest.fixture(scope="module")
def found():
    run = subprocess.run([sys.executable, WRITERS, "--kills", "3"], stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["ranks", "failing", "killed", "twice", "parts"])
def test_several_writers_leave_what_one_does(found, name):
    assert found[name]["different"] == []
    assert found[name]["errors"] == []


def test_the_work_is_dealt_out_among_ranks(found):
    loads = found["ranks"]["loads"]
    assert max(map(len, loads)) < 1.7 * found["ranks"]["all"] / len(loads)


def test_requests_did_fail(found):
    counts = found["failing"]["counts"]
    assert counts["errors"] > 0.05 * counts["requests"]
    assert counts["drops"] > 0.02 * counts["requests"]


def test_what_is_stored_holds_no_credentials(found):
    assert found["ranks"]["secrets"] == []


def test_scores_of_a_bucket_equal_those_of_a_directory(found):
    assert found["ranks"]["scores differ by"] <= 1e-6
