"""Fixtures of analysis' tests."""

import pytest


@pytest.fixture(params=[1 << 22, 30], ids=["one block", "blocks of 4 rows"])
def blocks(request, monkeypatch):
    monkeypatch.setattr("trak.evaluation.validation._SCORES_AT_ONCE", request.param)
