"""Models that fully_shard has spread over ranks. Ranks are torchrun's (`torchrun THIS_FILE ranks DIR`) or, where its
start adds nothing, forks of one process (`python THIS_FILE DIR`) that has imported torch once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import contents, differences, done, fork, report, wait

N, BATCH = 26, 4


def mlp():
    from torch import nn

    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def gpt2():
    """Its head is tied to its embedding, and its sequences are of several lengths."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, use_cache=False, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def llama():
    """Rotary positions, RMSNorm, a head of its own."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def cnn():
    from torch import nn

    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.GroupNorm(2, 6), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def tied():
    """An embedding and a head of one weight, which torch shards as one unit."""
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.middle, self.head = nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 7)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.middle(self.embedding(tokens).mean(1))))

    return Tied()


def computed():
    """Units whose results are the operations that use a parameter, or what is computed of one."""
    import torch
    from torch import nn

    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(8))

        def forward(self, x):
            return x * (1 + self.gain.square())

    class Quotient(Gain):
        def forward(self, x):
            return x / (2 + self.gain)

    class Divided(Gain):
        def forward(self, x):
            return x.square().neg().exp() / self.gain

    return nn.Sequential(nn.Linear(6, 8), Gain(), Quotient(), Divided(), nn.Linear(8, 3))


def checkpointed():
    """Activations are computed again in the backward pass, for which FSDP gathers again."""
    from torch import nn
    from torch.utils.checkpoint import checkpoint

    class Block(nn.Sequential):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    return nn.Sequential(nn.Linear(6, 8), *(Block(nn.Linear(8, 8), nn.Tanh()) for _ in range(2)), nn.Linear(8, 3))


def deep():
    from torch import nn

    return nn.Sequential(nn.Linear(6, 16), *(nn.Linear(16, 16) for _ in range(8)), nn.Linear(16, 3))


def numbers(*shape):
    import torch

    generator = torch.Generator().manual_seed(1)
    sizes = [BATCH] * (N // BATCH) + [N % BATCH]
    return [(torch.randn(size, *shape, generator=generator), torch.arange(size) % 3) for size in sizes]


def tokens(vocabulary, lengths, labelled):
    import torch

    generator = torch.Generator().manual_seed(1)
    drawn = [
        torch.randint(vocabulary, (min(BATCH, N - start), lengths[start // BATCH % len(lengths)]), generator=generator)
        for start in range(0, N, BATCH)
    ]
    return [(t, t[:, 0]) if labelled else {"input_ids": t} for t in drawn]


BLOCKS = ["transformer.h.0", "transformer.h.1"]
# Model, task, batches, units beside the model (a list is one unit), options.
CASES = {
    "mlp": (mlp, "image_classification", lambda: numbers(6), ["0", "2", "5"], {}),
    "frozen": (
        mlp,
        "image_classification",
        lambda: numbers(6),
        ["0", "2"],
        {"root": False, "frozen": ["0.weight", "4.bias"]},
    ),
    "chosen": (mlp, "image_classification", lambda: numbers(6), ["0", "2", "5"], {"grad_wrt": ["2.*", "5.weight"]}),
    "cnn": (cnn, "image_classification", lambda: numbers(1, 7, 7), ["0", "1"], {}),
    "tied": (tied, "image_classification", lambda: tokens(7, [5, 3], True), [["embedding", "head"], "middle"], {}),
    "computed": (computed, "image_classification", lambda: numbers(6), ["0", "1", "2", "3", "4"], {}),
    "checkpointed": (checkpointed, "image_classification", lambda: numbers(6), ["1", "2"], {}),
    "deep": (deep, "image_classification", lambda: numbers(6), [str(i) for i in range(1, 9)], {}),
    # A long batch takes two passes, the short one that another rank has at the same time takes one.
    "gpt2": (gpt2, "language_modeling", lambda: tokens(40, [4, 12], False), BLOCKS, {"memory_budget": 300_000}),
    "llama": (
        llama,
        "language_modeling",
        lambda: tokens(40, [8, 5, 12], False),
        ["model.layers.0", "model.layers.1"],
        {},
    ),
}


class Run:
    """What a user would run on every rank, or in one process with the whole model."""

    def __init__(self, name, directory, sharded):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        build, self.task, given, units, options = CASES[name]
        self.model, self.directory = build(), str(directory)
        self.options = {"proj_dim": 32, "device": "cpu", "logging_level": 40, **options}
        root, frozen = self.options.pop("root", True), self.options.pop("frozen", ())
        for parameter in frozen:
            self.model.get_parameter(parameter).requires_grad_(False)
        self.batches = given()
        self.targets = self.batches[1:2]
        shapes = self.model.state_dict()
        self.states = []
        for _ in range(2 if name == "mlp" else 1):
            drawn = {key: torch.rand_like(t) + 0.5 if t.is_floating_point() else t for key, t in shapes.items()}
            signed = {key: t * (2 * (torch.rand_like(t) > 0.5) - 1) if t.ndim > 1 else t for key, t in drawn.items()}
            for name, first in (("lm_head.weight", "transformer.wte.weight"), ("head.weight", "embedding.weight")):
                if first in signed:
                    signed[name] = signed[first]
            self.states.append(signed)
        if sharded:
            shard(self.model, units, root)

    def attribute(self, **options):
        import trak

        return trak.attribute(
            self.model, self.task, self.states, self.batches, self.targets, self.directory, progress=False,
            **{**self.options, **options},
        )  # fmt: skip

    def steps(self, pause=lambda number: None):
        import trak

        traker = trak.TRAKer(self.model, self.task, N, self.directory, **self.options)
        for model_id, state in enumerate(self.states):
            traker.load_checkpoint(state, model_id)
            for number, batch in enumerate(self.batches):
                pause(number)
                traker.featurize(batch)
        traker.finalize_features()
        for model_id, state in enumerate(self.states):
            traker.start_scoring_checkpoint("targets", state, model_id, len(self.targets[0][1]))
            for batch in self.targets:
                traker.score(batch)
        return traker.finalize_scores("targets")


def shard(model, units, root=True, **options):
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    size = torch.distributed.get_world_size()
    hybrid = {"mesh_shape": (2, 2), "mesh_dim_names": ("replicas", "parts")}
    options["mesh"] = init_device_mesh("cpu", **(hybrid if size == 4 else {"mesh_shape": (size,)}))
    for unit in units:
        fully_shard(
            [*map(model.get_submodule, unit)] if isinstance(unit, list) else model.get_submodule(unit), **options
        )
    if root:
        fully_shard(model, **options)
    return model


def ranks(size, work, directory, wrong=False):
    """What forks told that take themselves for ranks and share a process group; or with `wrong` how they ended."""
    meeting = directory / f"meeting-{time.monotonic_ns()}"

    def member(rank):
        def child(tell):
            import torch

            os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
            torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
            work(tell)
            torch.distributed.destroy_process_group()

        return fork(child)

    members = [member(rank) for rank in range(size)]
    if not wrong:
        return [[words for _, words in wait(*one)] for one in members]
    for _, reading in members:
        os.close(reading)
    return [os.waitpid(child, 0)[1] for child, _ in members]


def refused(tell, work):
    """Tell the ValueError that `work` ends with."""
    try:
        work()
    except ValueError as error:
        tell(str(error).replace("\n", " "))
    else:
        tell("")


def torchrun_rank(root):
    """One rank of torchrun: both ways, and what it got."""
    import numpy as np
    import torch

    torch.distributed.init_process_group("gloo")
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    np.save(root / f"scores-{size}-{rank}.npy", Run("mlp", root / f"attribute-{size}", True).attribute().scores)
    run = Run("mlp", root / f"steps-{size}", True)
    with torch.no_grad():  # what a user may do between the steps
        run.steps(lambda number: run.model(run.batches[0][0]))
    torch.distributed.destroy_process_group()


def same_as_whole(root):
    """The files that differ between stores of sharded and of whole models, by case and number of ranks."""
    sizes = {2: [name for name in CASES if name != "mlp"], 3: ["gpt2"], 4: ["chosen"]}

    def whole(tell):
        for name in sizes[2]:
            Run(name, root / "whole" / name, False).attribute()

    def parts(size):
        def work(tell):
            for name in sizes[size]:
                Run(name, root / str(size) / name, True).attribute()

        return work

    done(whole)
    for size in sizes:
        ranks(size, parts(size), root)
    return {
        f"{name}-{size}": differences(contents(root / str(size) / name), contents(root / "whole" / name))
        for size, names in sizes.items()
        for name in names
    }


def torchrun(root):
    """Both ways under torchrun: the files that differ from one process's with the whole model."""
    import numpy as np

    environment, found = {**os.environ, "OMP_NUM_THREADS": "1"}, {}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    for size in (2, 3):
        subprocess.run(
            [*command, f"--nproc-per-node={size}", __file__, "ranks", str(root)], env=environment, check=True
        )
    done(lambda tell: np.save(root / "scores.npy", Run("mlp", root / "attribute", False).attribute().scores))
    done(lambda tell: Run("mlp", root / "steps", False).steps())
    for size in (2, 3):
        for way in ("attribute", "steps"):
            found[f"{way}-{size}"] = differences(contents(root / f"{way}-{size}"), contents(root / way))
        found[f"scores-{size}"] = [
            (root / f"scores-{size}-{rank}.npy").read_bytes() == (root / "scores.npy").read_bytes()
            for rank in range(size)
        ]
    return found


def gathered(root):
    """Bytes that were gathered at once and the bytes of the model's parts; and how much else FSDP did."""

    def work(tell):
        import torch
        from torch.distributed.fsdp._fully_shard import _fsdp_param_group as internals

        from trak.inputs.fsdp import units

        run = Run("deep", root / "deep", True)
        groups = [group for unit in units(run.model) for group in unit._get_fsdp_state()._fsdp_param_groups]
        whole, *blocks = (sum(4 * p.numel() for p in unit.parameters()) for unit in units(run.model))
        found = {"whole": whole, "block": max(blocks), "root": whole - sum(blocks)}
        found |= {"units": 0, "buffers": 0, "tensor": 0, "reductions": 0}

        def watched(owner, name, look):
            real = getattr(owner, name)

            def watching(*args, **options):
                result = real(*args, **options)
                look(*args)
                return result

            setattr(owner, name, watching)

        def held(group, *args):
            outputs = [t for one in groups for p in one.fsdp_params for t in p.all_gather_outputs]
            pending = [one._all_gather_result.all_gather_output for one in groups if one._all_gather_result]
            for name, tensors in (("units", outputs), ("buffers", pending)):
                found[name] = max(found[name], sum(t.untyped_storage().nbytes() for t in tensors))

        watched(internals.FSDPParamGroup, "unshard", held)
        watched(internals.FSDPParamGroup, "wait_for_unshard", held)
        watched(internals, "foreach_reduce", lambda *args: found.update(reductions=found["reductions"] + 1))
        watched(
            torch.distributed.tensor.DTensor,
            "full_tensor",
            lambda t: found.update(tensor=max(found["tensor"], 4 * t.numel())),
        )
        run.attribute()
        found["gradients"] = sum(p.grad is not None for p in run.model.parameters())
        tell(json.dumps(found))

    return [json.loads(words[0]) for words in ranks(2, work, root)]


def left_as_found(root):
    """Whether the weights, flags and a training step's gradients are the same after an attribution as before."""

    def work(tell):
        import torch

        from trak.gradients import differentiable

        run = Run("chosen", root / "left", True)

        def step():
            x, y = run.batches[0]
            torch.nn.functional.cross_entropy(run.model(x), y).backward()
            found = [p.grad.full_tensor() for p in run.model.parameters()]
            run.model.zero_grad()
            return found

        def state():
            return [(name, p.requires_grad, p.full_tensor()) for name, p in run.model.named_parameters()]

        before, weights = step(), state()
        run.attribute()
        after, found = step(), state()
        same = all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(weights, found, strict=True))
        with torch.no_grad(), differentiable(run.model, ["0.weight"]):
            run.model(run.batches[0][0])
        tell(json.dumps([same, all(map(torch.equal, before, after)), all(map(torch.equal, before, step()))]))

    return [json.loads(words[0]) for words in ranks(2, work, root)]


def interrupted(root):
    """A rank killed in the middle, whether the other stopped, and the rerun, with the batches that it computed."""

    def killed(tell):
        def pause(number):
            if number == 5 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)

        Run("mlp", root / "killed", True).steps(pause)

    def again(tell):
        import trak.attribution.traker

        real = trak.attribution.session.featurize

        def featurize(engine, projector, batch, *args, **options):
            tell("computed")
            return real(engine, projector, batch, *args, **options)

        trak.attribution.session.featurize = featurize
        Run("mlp", root / "killed", True).steps()

    statuses = ranks(2, killed, root, wrong=True)
    computed = ranks(2, again, root)
    return {
        "ends": [os.WIFSIGNALED(statuses[1]), os.WIFEXITED(statuses[0]) and os.WEXITSTATUS(statuses[0]) > 0],
        "computed": [len(words) for words in computed],
        "different": differences(contents(root / "killed"), contents(root / "steps")),
    }


def mixed_precision(root):
    """Features with parameters gathered in bfloat16, of two ranks and of the model in bfloat16 in one process."""
    import numpy as np

    def features(tell, sharded):
        import torch

        import trak

        run = Run("mlp", root / f"bfloat16-{sharded}", False)
        if sharded:
            policy = torch.distributed.fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16)
            shard(run.model, ["0", "2", "5"], mp_policy=policy)
        else:
            run.model.bfloat16()
            run.batches = run.targets = [(x.bfloat16(), y) for x, y in run.batches]
            run.targets = run.targets[1:2]
            run.options["engine"] = "hooks"
        run.states = run.states[:1]
        run.attribute()
        tell(json.dumps(trak.store.open_store(run.directory).table(0).features.read().tolist()))

    (parts, _) = ranks(2, lambda tell: features(tell, True), root)
    ((_, whole),) = done(lambda tell: features(tell, False))
    return [bool(np.array_equal(json.loads(parts[0]), json.loads(whole))), bool(np.any(json.loads(whole)))]


def checkpoints(root):
    """Fingerprints of one checkpoint in every form that can be loaded, and the whole model's."""

    def work(tell):
        import torch
        from torch.distributed import checkpoint as distributed

        from trak.inputs.checkpoints import load_into

        run = Run("cnn", root / "unused", True)
        state, path = run.states[0], root / f"state-{os.environ['RANK']}.pt"
        torch.save({"model": state}, path)
        other = Run("cnn", root / "unused", False).model
        found = [load_into(other, state), load_into(run.model, state)]
        parts = {name: t.detach().clone() for name, t in run.model.state_dict().items()}
        distributed.save(parts, checkpoint_id=root / "distributed")

        def load():
            own = run.model.state_dict()
            distributed.load(own, checkpoint_id=root / "distributed")
            run.model.load_state_dict(own)
            return run.model

        for checkpoint in (path, parts, other, load):
            with torch.no_grad():
                for p in run.model.parameters():
                    p.zero_()
            found.append(load_into(run.model, checkpoint))
        tell(json.dumps(found))
        refused(tell, lambda: load_into(run.model, {**state, "3.bias": torch.zeros(4)}))

    return ranks(3, work, root)


def errors(root):
    """What is said of what can't be done."""

    def work(tell):
        import torch
        from torch.distributed.tensor import DeviceMesh, distribute_tensor

        import trak
        from trak.modelout_functions import AbstractModelOutput

        run = Run("mlp", root / "errors", True)
        for engine in ("functional", "loop"):
            refused(tell, lambda engine=engine: run.attribute(engine=engine))
        run.batches = run.batches[int(os.environ["RANK"]) :]
        refused(tell, lambda: run.attribute(train_set_size=N))

        class Odd(torch.nn.Linear):
            def forward(self, x):
                return torch.einsum("bi,oi->bo", x, self.weight) + self.bias

        class Wrong(torch.nn.Linear):
            pass

        @trak.gradients.register_layer(Wrong)
        def wrong(module, inputs, g):
            return {"weight": 2 * g[:, :, None] * inputs[0][:, None, :], "bias": g}

        for name, kind in (("odd", Odd), ("wrong", Wrong)):
            run = Run("mlp", root / name, False)
            run.model[2] = kind(8, 8)
            shard(run.model, ["0", "2", "5"])
            refused(tell, run.attribute)
        run = Run("mlp", root / "other", False)
        mesh = DeviceMesh("cpu", [0, 1])
        weight = distribute_tensor(run.model[0].weight.detach(), mesh, [torch.distributed.tensor.Shard(0)])
        run.model[0].weight = torch.nn.Parameter(weight)
        refused(tell, run.attribute)

        class Published(AbstractModelOutput):
            def get_output(self, model, weights, buffers, image, label):
                raise AssertionError

            def get_out_to_loss_grad(self, model, weights, buffers, batch):
                raise AssertionError

        run = Run("mlp", root / "published", True)
        run.task = Published()
        refused(tell, run.attribute)

    return ranks(2, work, root)


def drive(root):
    """Everything, as JSON on the last line of stdout."""
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.distributed.tensor  # noqa: F401

    for name in CASES:  # imports what the forks need
        Run(name, root / "unused", False)
    parts = (
        same_as_whole, torchrun, gathered, left_as_found, interrupted, mixed_precision, checkpoints, errors,
    )  # fmt: skip
    found = {}
    for part in parts:
        start = time.monotonic()
        found[part.__name__] = part(root)
        print(f"{part.__name__}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharded")
    yield report(__file__, directory, TQDM_DISABLE="1")
    shutil.rmtree(directory)


@pytest.mark.parametrize("case", [*(f"{name}-2" for name in CASES if name != "mlp"), "gpt2-3", "chosen-4"])
def test_stores_of_sharded_models_are_bit_by_bit_those_of_whole_ones(found, case):
    assert found["same_as_whole"][case] == []


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_of_torchrun_end_with_the_store_and_the_scores_of_one_process(found, size):
    assert found["torchrun"][f"attribute-{size}"] == []
    assert found["torchrun"][f"steps-{size}"] == []
    assert found["torchrun"][f"scores-{size}"] == [True] * size


def test_no_more_is_gathered_than_the_root_and_one_unit_and_the_next_in_its_buffer(found):
    for rank in found["gathered"]:
        padding = 2 * 4 * 2 * 16  # two parameters of the root have an odd number of rows
        assert rank["root"] < rank["units"] <= rank["root"] + rank["block"] + padding
        assert 0 < rank["buffers"] <= max(rank["block"], rank["root"] + padding)
        assert 0 < rank["tensor"] <= rank["block"]
        assert rank["whole"] > 3 * (rank["units"] + rank["buffers"])


def test_no_weight_gradient_is_kept_or_reduced(found):
    assert [(rank["gradients"], rank["reductions"]) for rank in found["gathered"]] == [(0, 0), (0, 0)]


def test_weights_flags_and_training_are_as_before(found):
    assert found["left_as_found"] == [[True, True, True]] * 2


def test_others_stop_when_a_rank_is_killed_and_a_rerun_computes_what_is_missing_and_ends_bit_identical(found):
    # The first four batches of seven were done; of the rest, of seven for the other checkpoint and of one for the
    # targets of each, the ranks take turns, and go along with the other for the last.
    assert found["interrupted"]["ends"] == [True, True]
    assert found["interrupted"]["computed"] == [2 + 4 + 1 + 1] * 2
    assert found["interrupted"]["different"] == []


def test_bfloat16_parameters_give_the_features_of_the_model_in_bfloat16(found):
    assert found["mixed_precision"] == [True, True]


def test_every_form_of_a_checkpoint_has_the_whole_models_fingerprint(found):
    fingerprints = {one for rank in found["checkpoints"] for one in json.loads(rank[0])}
    assert len(fingerprints) == 1
    assert all("of another shape: 3.bias" in rank[1] for rank in found["checkpoints"])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "engine='functional' .* use engine='hooks'"),
        (1, "engine='loop' .* use engine='hooks'"),
        (2, "rank 1 was given other examples than rank 0"),
        (3, "'2.weight' cannot be computed for a sharded model: the hooks engine has no rule"),
        (
            4,
            "'2.weight' cannot be computed for a sharded model: the hooks engine disagrees with single-example "
            "autograd",
        ),
        (5, "'0.weight' is a DTensor, but no module was given to fully_shard"),
        (6, "Published.get_output is given all weights"),
    ],
)
def test_every_rank_is_told_what_can_not_be_done(found, number, words):
    for rank in found["errors"]:
        assert re.search(words, rank[number])


if __name__ == "__main__":
    if sys.argv[1] == "ranks":
        torchrun_rank(Path(sys.argv[2]))
    else:
        drive(Path(sys.argv[1]))
