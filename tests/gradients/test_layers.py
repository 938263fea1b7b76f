"""Every kind of layer, by every engine, against a loop of torch.autograd.grad over single examples."""

import contextlib
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Case
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import trak
from trak.gradients import (
    MEMORY_BUDGET,
    EngineSelector,
    FunctionalEngine,
    HooksEngine,
    LoopEngine,
    UnsupportedParameterError,
    choose_engine,
    differentiable,
)
from trak.gradients.base import collect
from trak.gradients.layers.registry import LAYERS
from trak.gradients.verification import misassigned
from trak.inputs import batches
from trak.tasks import Task, make_task
from trak.testing import Curved, LayerRuleContract, assert_equals_loop
from trak.testing.reference import gradients

peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")


numbers = st.integers(1, 4)


@st.composite
def convolutions(draw, dims):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = [draw(st.integers(1, 3)) for _ in range(dims)]
    dilation = [draw(st.integers(1, 2)) for _ in range(dims)]
    space = [draw(st.integers(5, 7)) for _ in range(dims)]
    stride = [draw(st.integers(1, 3)) for _ in range(dims)]
    padding = draw(st.sampled_from(["valid", "same", "numbers"]))
    if padding == "same":
        stride = [1] * dims
    if padding == "numbers":
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](
        groups * draw(numbers),
        groups * draw(numbers),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"])),
    )
    return layer, (torch.randn(draw(numbers), layer.in_channels, *space),)


@st.composite
def linears(draw):
    layer = nn.Linear(draw(numbers), draw(numbers), bias=draw(st.booleans()))
    leading = [draw(numbers) for _ in range(draw(st.integers(0, 3)))]
    return layer, (torch.randn(draw(numbers), *leading, layer.in_features),)


@st.composite
def transposed_linears(draw):
    layer = transformers.pytorch_utils.Conv1D(draw(numbers), draw(numbers))
    leading = [draw(numbers) for _ in range(draw(st.integers(1, 3)))]
    return layer, (torch.randn(draw(numbers), *leading, layer.nx),)


@st.composite
def embeddings(draw):
    rows = draw(st.integers(2, 7))
    padding = draw(st.sampled_from([None, 0, -1]))
    layer = nn.Embedding(rows, draw(numbers), padding_idx=padding)
    leading = [draw(numbers) for _ in range(draw(st.integers(1, 2)))]
    return layer, (torch.randint(rows, (draw(numbers), *leading)),)


@st.composite
def normalizations(draw):
    channels, affine = 2 * draw(numbers), draw(st.booleans())
    space = [draw(st.integers(2, 4)) for _ in range(draw(st.integers(1, 3)))]
    x = torch.randn(draw(numbers), channels, *space)
    normalized = space[-draw(st.integers(1, len(space))) :]
    batch_norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[len(space) - 1]
    instance_norm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[len(space) - 1]
    layer = draw(
        st.sampled_from(
            [
                nn.LayerNorm(normalized, bias=affine),
                nn.RMSNorm(normalized),
                nn.GroupNorm(2, channels),
                batch_norm(channels),
                instance_norm(channels, affine=True),
                instance_norm(channels, affine=True, track_running_stats=True),
                nn.PReLU(channels),
                nn.PReLU(),
            ]
        )
    )
    with torch.no_grad():
        layer(torch.randn(9, channels, *space))
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return layer, (x,)


class Attention(nn.Module):
    """What comes out of attention to another sequence, with its weights if they are asked for."""

    def __init__(self, attention, options):
        super().__init__()
        self.attention, self.options = attention, options

    def forward(self, q, kv, padding):
        if not self.attention.batch_first:
            q, kv = q.transpose(0, 1), kv.transpose(0, 1)
        kv = q if self.options["self_attention"] else kv
        rows, columns = (t.shape[1 if self.attention.batch_first else 0] for t in (q, kv))
        mask = torch.ones(rows, columns, dtype=torch.bool).triu(1) if self.options["mask"] else None
        padding = None if self.options["self_attention"] or not self.options["padding"] else padding
        result, weights = self.attention(
            q, kv, kv, key_padding_mask=padding, attn_mask=mask, need_weights=self.options["weights"]
        )
        result = result if self.attention.batch_first else result.transpose(0, 1)
        return result if weights is None else torch.cat((result.flatten(1), weights.flatten(1)), 1)


@st.composite
def attentions(draw):
    options = {name: draw(st.booleans()) for name in ("self_attention", "mask", "padding", "weights")}
    width = None if options["self_attention"] else draw(st.sampled_from([None, 3]))
    layer = nn.MultiheadAttention(
        4,
        draw(st.sampled_from([1, 2])),
        bias=draw(st.booleans()),
        add_bias_kv=draw(st.booleans()) if width is None else False,
        add_zero_attn=draw(st.booleans()),
        kdim=width,
        vdim=width,
        batch_first=draw(st.booleans()),
    )
    count, keys = draw(numbers), draw(st.integers(2, 4))
    padding = torch.zeros(count, keys, dtype=torch.bool)
    padding[:, -1] = True
    return Attention(layer, options), (torch.randn(count, 3, 4), torch.randn(count, keys, width or 4), padding)


KINDS = {
    "linear": linears(),
    "transposed linear": transposed_linears(),
    "conv1d": convolutions(1),
    "conv2d": convolutions(2),
    "conv3d": convolutions(3),
    "embedding": embeddings(),
    "normalization and prelu": normalizations(),
    "attention": attentions(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [HooksEngine, FunctionalEngine])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_layer_kind_equals_the_loop(engine, kind, data, seed):
    torch.manual_seed(seed)
    layer, batch = data.draw(KINDS[kind])
    if engine is FunctionalEngine and kind in ("attention", "normalization and prelu"):
        layer.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_equals_loop(engine, layer, batch)


class Tokens(nn.Module):
    """A class token, positions, a layer scale, one module called twice and parameters that are computed with."""

    def __init__(self, expand):
        super().__init__()
        self.expand = expand
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 6, 6))
        self.scale, self.shift, self.gain = (nn.Parameter(torch.randn(6)) for _ in range(3))
        self.inner, self.rows = nn.Linear(6, 6), nn.Embedding(9, 6)

    def forward(self, x):
        b, t, _ = x.shape
        token = self.token.expand(b, -1, -1) if self.expand == "expand" else self.token.repeat(b, 1, 1)
        x = torch.cat((token, x), 1) + self.positions[:, : t + 1]
        x = x + self.rows(torch.arange(t + 1)) + self.rows.weight[:2].mean(0)
        x = x + self.scale * self.inner(torch.tanh(self.inner(x)))
        x = (1 + self.gain.square()) * x / (2 + self.scale.abs()) - self.shift
        x += self.shift
        return x @ self.inner.weight.t()


class Nano(nn.Module):
    """A language model with its embedding tied to its head, and positions that carry no batch dimension."""

    def __init__(self, length):
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 6), nn.Embedding(length, 6)
        self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.norm, self.head = nn.RMSNorm(6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.block(x)))


class Relative(nn.Module):
    """Attention whose bias depends on relative positions alone, under a mask of each example, as T5's."""

    def __init__(self):
        super().__init__()
        self.inner, self.bias = nn.Linear(4, 4), nn.Embedding(20, 2)

    def forward(self, x, mask):
        length = x.shape[1]
        distance = torch.arange(length)[:, None] - torch.arange(length)
        bias = self.bias(distance + 10).permute(2, 0, 1).unsqueeze(0)
        bias = torch.where(mask[:, None, None, :], bias, torch.finfo(x.dtype).min)
        heads = self.inner(x).unflatten(-1, (2, 2)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias).transpose(1, 2).flatten(2)


class Kinds(nn.Module):
    """Several rows an example, with kinds that no input tells."""

    def __init__(self):
        super().__init__()
        self.tokens, self.kinds = nn.Embedding(11, 4), nn.Embedding(2, 4)

    def forward(self, ids):
        flat = ids.flatten(0, 1)
        kinds = torch.zeros(flat.shape, dtype=torch.long)
        return torch.tanh(self.tokens(flat) + self.kinds(kinds)).unflatten(0, ids.shape[:2])


def some_hidden(count):
    mask = torch.ones(count, 5, dtype=torch.bool)
    mask[0, 3:] = False
    return torch.randn(count, 5, 4), mask


class Checkpointed(nn.Module):
    """Activations that are computed again in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(4, 5), nn.Linear(5, 5), reentrant

    def forward(self, x):
        def inner(hidden):
            return torch.tanh(self.second(hidden))

        hidden = self.first(x)
        for _ in range(2):
            hidden = checkpoint(inner, hidden, use_reentrant=self.reentrant)
        return hidden


def lora():
    base = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0", "2"]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    return model


MODULES = {
    "tokens expanded": lambda: (Tokens("expand"), (torch.randn(4, 4, 6),)),
    "tokens repeated": lambda: (Tokens("repeat"), (torch.randn(5, 5, 6),)),
    "tied language model": lambda: (Nano(8).eval(), (torch.randint(11, (4, 8)),)),
    "positions as many as examples": lambda: (Nano(4).eval(), (torch.randint(11, (4, 4)),)),
    "relative positions under a mask": lambda: (Relative(), some_hidden(3)),
    "as many relative positions as examples": lambda: (Relative(), some_hidden(5)),
    "constants for several rows of an example": lambda: (Kinds(), (torch.randint(11, (3, 2, 4)),)),
    "in-place activations": lambda: (
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 2), nn.ELU(inplace=True)),
        (torch.randn(3, 1, 6, 6),),
    ),
    "gradient checkpointing": lambda: (Checkpointed(False), (torch.randn(3, 4),)),
    "weight norm": lambda: (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh()),
        (torch.randn(3, 4),),
    ),
    "frozen first layer": lambda: (
        nn.Sequential(nn.Linear(4, 5).requires_grad_(False), nn.Tanh(), nn.Linear(5, 2)),
        (torch.randn(3, 4),),
    ),
    "frozen last layer": lambda: (
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2).requires_grad_(False)),
        (torch.randn(3, 4),),
    ),
    "images of several frames": lambda: (
        nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(1, 2, 3), nn.Flatten(1), nn.Linear(8, 2), nn.Unflatten(0, (-1, 3))),
        (torch.randn(4, 3, 1, 4, 4),),
    ),
    "lora": lambda: (lora(), (torch.randn(3, 4),)),
}


@pytest.mark.parametrize("name", MODULES)
def test_module_equals_the_loop(name):
    torch.manual_seed(0)
    assert_equals_loop(HooksEngine, *MODULES[name]())


@pytest.mark.parametrize(
    "name", ["tied language model", "tokens expanded", "images of several frames", "relative positions under a mask"]
)
def test_batch_of_one_equals_the_loop(name):
    torch.manual_seed(0)
    model, batch = MODULES[name]()
    assert_equals_loop(HooksEngine, model, batches.take(batch, 1, 2))


class NextToken(Task):
    """Σ log p of a sequence's own tokens."""

    def output(self, model, batch):
        labels = batch.get("decoder_input_ids", batch["input_ids"])
        log_p = model(**batch).logits[:, :-1].log_softmax(-1)
        return log_p.gather(-1, labels[:, 1:, None]).squeeze(-1).sum(1)


class Similarity(Task):
    """⟨image, text⟩."""

    def output(self, model, batch):
        found = model(**batch)
        return (found.text_embeds * found.image_embeds).sum(-1)


def hugging_face(name):
    t = transformers
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    text, vision = {**small, "vocab_size": 99}, {**small, "image_size": 16, "patch_size": 4}
    ids, pixels, labels = torch.randint(5, 90, (3, 7)), torch.randn(3, 3, 16, 16), torch.randint(3, (3,))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    sentences = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    classify, tell = make_task("text_classification"), NextToken()
    see = make_task("image_classification")
    pair = {"text_config": {**text, "max_position_embeddings": 20}, "vision_config": vision}
    return {
        "resnet": lambda: (
            t.ResNetForImageClassification(
                t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=3)
            ),
            see,
            (pixels, labels),
        ),
        "vit": lambda: (t.ViTForImageClassification(t.ViTConfig(**vision, num_labels=3)), see, (pixels, labels)),
        "bert": lambda: (t.BertForSequenceClassification(t.BertConfig(**text, num_labels=3)), classify, sentences),
        "roberta": lambda: (
            t.RobertaForSequenceClassification(t.RobertaConfig(**text, num_labels=3, pad_token_id=0)),
            classify,
            sentences,
        ),
        "distilbert": lambda: (
            t.DistilBertForSequenceClassification(
                t.DistilBertConfig(vocab_size=99, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3)
            ),
            classify,
            sentences,
        ),
        "modernbert": lambda: (
            t.ModernBertForSequenceClassification(
                t.ModernBertConfig(
                    **text, num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
                )
            ),
            classify,
            sentences,
        ),
        "deberta": lambda: (
            t.DebertaV2ForSequenceClassification(
                t.DebertaV2Config(**text, num_labels=3, relative_attention=True, pos_att_type=["p2c", "c2p"])
            ),
            classify,
            sentences,
        ),
        "gpt2": lambda: (
            t.GPT2LMHeadModel(
                t.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=99, bos_token_id=1, eos_token_id=1)
            ),
            tell,
            {"input_ids": ids},
        ),
        "llama, tied": lambda: (
            t.LlamaForCausalLM(t.LlamaConfig(**text, num_key_value_heads=1, tie_word_embeddings=True)),
            tell,
            {"input_ids": ids},
        ),
        "gemma": lambda: (
            t.GemmaForCausalLM(t.GemmaConfig(**text, num_key_value_heads=1, head_dim=8)),
            tell,
            {"input_ids": ids},
        ),
        "t5": lambda: (
            t.T5ForConditionalGeneration(
                t.T5Config(
                    d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, vocab_size=99, decoder_start_token_id=0
                )
            ),
            tell,
            {"input_ids": ids, "decoder_input_ids": torch.randint(5, 90, (3, 5))},
        ),
        "clip": lambda: (
            t.CLIPModel(t.CLIPConfig(**pair, projection_dim=8)),
            Similarity(),
            {"input_ids": ids, "pixel_values": pixels},
        ),
        "siglip": lambda: (
            t.SiglipModel(t.SiglipConfig(**pair)),
            Similarity(),
            {"input_ids": ids, "pixel_values": pixels},
        ),
    }[name]()


@pytest.mark.parametrize(
    "name",
    [
        "resnet", "vit", "bert", "roberta", "distilbert", "modernbert", "deberta", "gpt2", "llama, tied", "gemma", "t5",
        "clip", "siglip",
    ],
)  # fmt: skip
def test_model_from_transformers_equals_the_loop(name):
    torch.manual_seed(0)
    model, task, batch = hugging_face(name)
    for p in model.parameters():
        p.data.add_(0.02 * torch.randn_like(p))
    assert_equals_loop(HooksEngine, model.eval(), batch, task)


def test_compiled_model_equals_the_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    compiled, batch = torch.compile(model), (torch.randn(5, 4),)
    names = [name for name, _ in compiled.named_parameters()]
    with differentiable(compiled, names):
        found = collect(HooksEngine(compiled, Curved(), names), batch)
    truth = gradients(model, Curved(), batch)
    for name, expected in truth.items():
        torch.testing.assert_close(found[f"_orig_mod.{name}"], expected, rtol=1e-5, atol=1e-6)


class Scale(nn.Module):
    """Made of an operation that no rule knows."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.einsum("bd,d->bd", x, self.gain)


@contextlib.contextmanager
def registered(rule):
    trak.gradients.register_layer(Scale)(rule)
    try:
        yield
    finally:
        del LAYERS[Scale]


def test_layer_that_nobody_knows_is_named_with_the_cure():
    model = nn.Sequential(nn.Linear(3, 4), Scale())
    names = [name for name, _ in model.named_parameters()]
    with (
        differentiable(model, names),
        pytest.raises(UnsupportedParameterError, match=r"'1.gain'.*register_layer") as caught,
    ):
        collect(HooksEngine(model, Curved(), names), (torch.randn(2, 3),))
    assert caught.value.names == ("1.gain",)


class TestRegisteredLayer(LayerRuleContract):
    @pytest.fixture(autouse=True)
    def _registered(self):
        with registered(lambda module, inputs, g: {"gain": g * inputs[0]}):
            yield

    def layer(self):
        return Scale()

    def inputs(self, count):
        return (torch.randn(count, 4),)


@pytest.mark.parametrize("first", [True, False])
def test_registered_layers_equal_the_loop(first):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4), Scale(), nn.Tanh(), Scale()]
    model = nn.Sequential(*layers[first:])
    with registered(lambda module, inputs, g: {"gain": g * inputs[0]}):
        assert_equals_loop(HooksEngine, model, (torch.randn(3, 4),))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_wrong_rule_for_a_layer_is_refused_or_replaced():
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Linear(3, 4), Scale()), (torch.randn(2, 3),)
    names = [name for name, _ in model.named_parameters()]
    message = r"rule of Scale .* shape \(2, 2\), expected \(2, 4\)"
    with (
        registered(lambda module, inputs, g: {"gain": g[:, :2]}),
        differentiable(model, names),
        pytest.raises(ValueError, match=message),
    ):
        collect(HooksEngine(model, Curved(), names), batch)
    with registered(lambda module, inputs, g: {"gain": -g * inputs[0]}), differentiable(model, names):
        engine = choose_engine("auto", model, Curved(), names, batch)
    assert [(part.name, part.parameters) for part in (engine.first, engine.second)] == [
        ("hooks", ("0.weight", "0.bias")),
        ("functional", ("1.gain",)),
    ]


@pytest.mark.parametrize("engine", ["hooks", "functional", "loop"])
def test_an_engine_asked_for_by_name_warns_of_gradients_that_are_not_autograds_and_of_no_others(engine):
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Linear(3, 4), Scale(), nn.Linear(4, 2)), (torch.randn(5, 3),)
    names = [name for name, _ in model.named_parameters()]
    for factor in (1, 1.01):
        with (
            registered(lambda module, inputs, g, by=factor: {"gain": by * g * inputs[0]}),
            differentiable(model, names),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            assert choose_engine(engine, model, Curved(), names, batch).name == engine
        wrong = engine == "hooks" and factor != 1
        assert len(caught) == wrong
        if wrong:
            assert "'1.gain' by engine='hooks' disagree with single-example autograd" in str(caught[0].message)


def test_input_changed_in_place_after_its_use_is_an_error():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            x.zero_()
            return y

    model = Careless()
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names), pytest.raises(RuntimeError, match=r"'linear.weight'.*modified in place"):
        collect(HooksEngine(model, Curved(), names), (torch.randn(2, 3),))


class TimeFirst(nn.Module):
    """Examples along the second dimension inside."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x.transpose(0, 1)))).transpose(0, 1)


@pytest.mark.parametrize(
    "model, batch",
    [
        (TimeFirst(), (torch.randn(4, 6, 3),)),
        (TimeFirst(), (torch.randn(4, 5, 3),)),
    ],
)
def test_auto_is_right_where_examples_are_not_along_the_first_dimension(model, batch):
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        found = collect(choose_engine("auto", model, Curved(), names, batch), batch)
    for name, expected in gradients(model, Curved(), batch).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


class Stubborn(nn.BatchNorm2d):
    """Normalizes by the batch in every mode."""

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)


@pytest.mark.parametrize("engine", ["auto", "hooks", "functional", "loop"])
@pytest.mark.parametrize(
    "norm, size", [(nn.BatchNorm2d(2, track_running_stats=False), 3), (Stubborn(2), 3), (Stubborn(2), 1)]
)
def test_statistics_of_the_batch_are_refused_with_the_module_and_the_cure(engine, norm, size):
    model, batch = nn.Sequential(nn.Conv2d(1, 2, 1), norm), (torch.randn(4, 1, size, size),)
    names = [name for name, _ in model.named_parameters()]
    where = "can't run on one example alone" if size == 1 else f"{type(norm).__name__} '1' gives an example another"
    with differentiable(model, names), pytest.raises(ValueError, match=rf"{where}.*running statistics.*GroupNorm"):
        choose_engine(engine, model, Curved(), names, batch)


def test_reentrant_checkpointing_is_refused_with_the_cure():
    model, batch = Checkpointed(True), (torch.randn(3, 4),)
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names), pytest.raises(RuntimeError, match="use_reentrant=False"):
        choose_engine("auto", model, Curved(), names, batch)


def test_autograd_computes_no_gradient_of_a_weight_and_leaves_those_stored():
    model, batch = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (torch.randn(5, 3),)
    computed = []
    for p in model.parameters():
        p.grad = torch.ones_like(p)
        p.register_hook(computed.append)
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        collect(HooksEngine(model, Curved(), names), batch)
    assert computed == []
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


@pytest.mark.parametrize("engine", [HooksEngine, LoopEngine])
def test_autocast_passes_are_projected_in_float32(engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))

    class Cast(Curved):
        def output(self, model, batch):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                result = model(*batch)
            return torch.sin(result.float()).sum(1)

    batch = (torch.randn(6, 8),)
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        found = collect(engine(model, Cast(), names), batch)
    truth = gradients(model, Cast(), batch)
    for name, expected in truth.items():
        assert found[name].dtype == torch.float32
        assert float((found[name] - expected).norm()) <= 2e-2 * float(expected.norm())


def test_functional_use_of_a_module_of_another_is_captured():
    class Borrowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 5)

        def forward(self, x):
            return F.linear(torch.tanh(self.inner(x)), self.inner.weight.mT.contiguous(), None)

    torch.manual_seed(0)
    assert_equals_loop(HooksEngine, Borrowing(), (torch.randn(4, 2, 3),))


def test_gradients_of_the_users_own_case_type_are_plain_tensors():
    case = Case(nn.Linear(3, 2), "image_classification", [(torch.randn(4, 3), torch.randint(2, (4,)))])
    names = ["weight", "bias"]
    with differentiable(case.model, names):
        found = collect(HooksEngine(case.model, make_task(case.task), names), case.batches[0])
    assert all(type(t) is Tensor for t in found.values())


class Recurring(nn.Module):
    """All that a recurrent layer returns: every output, and the last states of every layer and direction."""

    def __init__(self, kind, packed=False, initial=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.packed, self.initial = packed, initial
        self.inner, self.recurrent = nn.Linear(3, 3), kind(3, 4, **options)

    def forward(self, x, lengths, h):
        x, first = torch.tanh(self.inner(x)), self.recurrent.batch_first
        if self.packed:
            x = nn.utils.rnn.pack_padded_sequence(
                x if first else x.transpose(0, 1), lengths, batch_first=first, enforce_sorted=self.packed == "sorted"
            )
        elif not first:
            x = x.transpose(0, 1)
        count = self.recurrent.num_layers * (1 + self.recurrent.bidirectional)
        start = h[:, :count].transpose(0, 1).contiguous()
        pair = (start, start.sin()) if isinstance(self.recurrent, nn.LSTM) else start
        output, last = self.recurrent(x, pair if self.initial else None)
        if self.packed:
            output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=first, total_length=6)
        output = output if first else output.transpose(0, 1)
        last = last if isinstance(last, tuple) else (last,)
        return torch.cat([output.flatten(1), *(t.transpose(0, 1).flatten(1) for t in last)], 1)


def series(count=5):
    torch.manual_seed(1)
    return torch.randn(count, 6, 3), torch.tensor([3, 6, 1, 4, 6])[:count], torch.randn(count, 4, 4)


RELU = {"nonlinearity": "relu"}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("kind, options", [
    (nn.GRU, {}), (nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    (nn.GRU, {"bias": False, "bidirectional": True}), (nn.LSTM, {"batch_first": True, "num_layers": 2}),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True}), (nn.LSTM, {"bias": False, "batch_first": True}),
    (nn.RNN, {"bidirectional": True}), (nn.RNN, {**RELU, "num_layers": 2, "batch_first": True}),
])  # fmt: skip
def test_recurrent_layers_have_the_gradients_of_the_loop(kind, options, initial, packed):
    model = Recurring(kind, packed, initial, **options)
    assert_equals_loop(HooksEngine, model, series())
    assert_equals_loop(HooksEngine, model, series(1))
    with differentiable(model, names := [name for name, _ in model.named_parameters()]):
        outputs = HooksEngine(model, Curved(), names).gradients(series(), lambda *_: None)
    torch.testing.assert_close(outputs, Curved().output(model, series()).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", ["recurrent.weight_hh_l0", "recurrent.bias_ih_l0_reverse", "inner.weight"])
def test_recurrent_layers_some_of_whose_parameters_are_left_out(frozen):
    model = Recurring(nn.GRU, True, bidirectional=True)
    model.get_parameter(frozen).requires_grad_(False)
    assert_equals_loop(HooksEngine, model, series())


def test_recurrent_layers_that_run_twice_or_share_weights():
    model = Recurring(nn.LSTM, batch_first=True, bidirectional=True)
    model.recurrent.weight_ih_l0_reverse = model.recurrent.weight_ih_l0
    assert_equals_loop(HooksEngine, model, series())

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(3, 3, batch_first=True)

        def forward(self, x):
            return self.gru(self.gru(x)[0].flip(1))[0]

    assert_equals_loop(HooksEngine, Twice(), (series()[0],))


class Sorting(nn.Module):
    """Sorts a batch by hand, so that nothing tells the layer whose rows it gets."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x, lengths):
        lengths, order = lengths.sort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(x[order], lengths, batch_first=True)
        return self.head(self.gru(packed)[1][-1][order.argsort()])


@pytest.mark.parametrize("lengths", [[6, 5, 3, 4, 6], [3, 6, 1, 4, 6]])
def test_a_recurrent_layer_whose_rows_may_be_in_another_order_is_left_to_the_loop(lengths):
    torch.manual_seed(0)
    model, batch = Sorting(), (series()[0], torch.tensor(lengths))
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        with pytest.warns(UserWarning, match=r"GRU 'gru' \(4 parameters\) are computed one example at a time"):
            engine = choose_engine("auto", model, Curved(), names, batch)
        found = collect(engine, batch)
    for name, expected in gradients(model, Curved(), batch, names).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_recurrent_layers_are_covered_after_a_call_with_other_weights():
    model, batch = Recurring(nn.GRU), series()
    names = [name for name, _ in model.named_parameters()]
    expected = gradients(model, Curved(), batch, names)
    torch.func.functional_call(model, {name: p.detach() + 1 for name, p in model.named_parameters()}, batch)
    with differentiable(model, names):
        found = collect(HooksEngine(model, Curved(), names), batch)
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model, batch", [
    (Recurring(nn.LSTM, proj_size=2), series()),
    (Recurring(nn.GRU, "sorted"), (series()[0], torch.arange(6, 1, -1))),
])  # fmt: skip
def test_recurrent_layers_that_no_rule_covers_are_uncovered_and_as_they_were(model, batch):
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names), pytest.raises(UnsupportedParameterError, match="'recurrent"):
        HooksEngine(model, Curved(), names).gradients((*batch[:2], series()[2]), lambda *_: None)
    assert "forward" not in vars(model.recurrent)


class Sorted(nn.Module):
    """Sorts its examples by length, and puts them back at the end."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, lengths):
        order = lengths.argsort(descending=True, stable=True)
        return self.last(torch.tanh(self.inner(x[order])))[order.argsort()]


IN_ORDER = torch.tensor([6, 4, 1, 5, 2, 6])


@pytest.mark.parametrize("lengths", [IN_ORDER, IN_ORDER.flip(0), torch.full((6,), 3), torch.tensor([3, 3, 5, 1, 9, 9])])
def test_auto_is_right_where_a_model_sorts_its_examples_though_the_first_two_are_in_order(lengths):
    torch.manual_seed(0)
    model, batch = Sorted(), (torch.randn(6, 3), lengths)
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect(choose_engine("auto", model, Curved(), names, batch), batch)
    for name, expected in gradients(model, Curved(), batch).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_an_engine_asked_for_by_name_warns_of_a_model_that_sorts_its_examples():
    model, batch = Sorted(), (torch.randn(6, 3), IN_ORDER)
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names), pytest.warns(UserWarning, match="engine='hooks' disagree"):
        choose_engine("hooks", model, Curved(), names, batch)


def test_an_engine_that_is_wrong_for_a_later_batch_is_noticed():
    torch.manual_seed(0)
    model, same = Sorted(), torch.full((6,), 3)
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        engine = EngineSelector("auto", model, Curved(), names, MEMORY_BUDGET)
        for _ in range(3):
            assert engine((torch.randn(6, 3), same)).name == "hooks"
        with pytest.raises(ValueError, match=r"Sorted changes the order.*engine='loop', and another save"):
            engine((torch.randn(6, 3), IN_ORDER))


@pytest.mark.parametrize("sizes", [(1, 6), (1, 1, 4, 6), (6, 1), (2, 1, 6)])
def test_an_engine_is_right_whatever_the_number_of_examples_that_it_was_chosen_by(sizes):
    torch.manual_seed(0)
    model = TimeFirst()
    names = [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        engine = EngineSelector("auto", model, Curved(), names, MEMORY_BUDGET)
        for size in sizes:
            batch = (torch.randn(size, 6, 3),)
            found = collect(engine(batch), batch)
            for name, expected in gradients(model, Curved(), batch).items():
                torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


class Misplacing(HooksEngine):
    """Gives the gradients of examples to others."""

    places = ()

    def gradients(self, batch, sink):
        def misplaced(name, block, start):
            dense = block if isinstance(block, torch.Tensor) else block.dense()
            for row, place in enumerate(self.places[start : start + len(dense)]):
                sink(name, dense[row : row + 1].clone(), place)

        return super().gradients(batch, misplaced)


@given(places=st.integers(2, 16).flatmap(lambda size: st.permutations(range(size))))
@settings(deadline=None, max_examples=60)
def test_gradients_in_each_others_place_are_noticed_and_no_others(places):
    size = len(places)
    torch.manual_seed(size)
    model = nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(15, 4), nn.Tanh(), nn.LayerNorm(4))
    batch = (torch.randint(0, 7, (size, 3)),)
    names = [name for name, _ in model.named_parameters()]
    moved = sum(place != row for row, place in enumerate(places))
    with differentiable(model, names):
        engine = Misplacing(model, Curved(), names)
        engine.places = places
        wrong = misassigned(engine, batch, MEMORY_BUDGET)
    if not moved:
        assert wrong == []
    elif moved > size / 2:
        assert wrong


class Adapted(nn.Module):
    """A layer in bfloat16 with an adapter in float32: its gradients are rounded as the activations are."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).bfloat16()
        self.a, self.b = nn.Parameter(torch.randn(4, inputs) / 4), nn.Parameter(torch.randn(outputs, 4) / 10)

    def forward(self, x):
        y = self.base(x)
        return y + F.linear(F.linear(x.float(), self.a), self.b).to(y.dtype)


@pytest.mark.parametrize("seed", range(10))
def test_rounding_is_not_taken_for_examples_in_the_wrong_place(seed):
    torch.manual_seed(seed)
    layers = [Adapted(20, 64), nn.GELU(), Adapted(64, 64), nn.GELU(), Adapted(64, 64), nn.GELU(), Adapted(64, 4)]
    model, batch = nn.Sequential(*layers), (torch.randn(16, 20).bfloat16(),)
    names = [name for name, _ in model.named_parameters() if name.endswith(("a", "b"))]
    with differentiable(model, names):
        assert choose_engine("auto", model, Curved(), names, batch).name == "hooks"
        assert misassigned(HooksEngine(model, Curved(), names), batch, MEMORY_BUDGET) == []
    alike = nn.Linear(3, 4), (torch.ones(9, 3),)
    with differentiable(alike[0], ["weight", "bias"]):
        assert misassigned(HooksEngine(alike[0], Curved(), ["weight", "bias"]), alike[1], MEMORY_BUDGET) == []
