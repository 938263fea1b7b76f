"""One thread a process: the tests run side by side, and sums come out the same everywhere."""

import pytest
import torch

torch.set_num_threads(1)
# Contracts and comparisons in helpers explain their failures as tests do.
pytest.register_assert_rewrite("hugging_face", "store_contract", "task_contract", "token_tasks")


@pytest.fixture(scope="module")
def tokenizer():
    from hugging_face import make_tokenizer

    return make_tokenizer()
