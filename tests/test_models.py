"""Shipped models against the counts that their authors publish."""

import functools

import jax.numpy as jnp
import pytest

from cmxjax.job.layout import AXES, Layout, Routing
from cmxjax.job.workload import (
    BYTES,
    Decode,
    Dtypes,
    Prefill,
    Software,
    balance_of,
    sizes_of,
)
from cmxjax.model.architecture import (
    active_parameters,
    embedding_parameters,
    known_of,
    layer_parameters,
    total_parameters,
)
from cmxjax.model.latent import Latent
from cmxjax.specs.files import DATA, shipped
from cmxjax.specs.model_load import load_model, model_leaves, read_model_file
from cmxjax.specs.system_load import Reference
from cmxjax.switch import switch
from cmxjax.work.routing import expert_load
from cmxjax.work.serving import declared, decode_rows, prefill_rows
from cmxjax.work.table import matrix_flop, sizes_by_name, tabulate

WRITTEN = DATA / "models"
MODELS = [n for n in shipped("models") if (WRITTEN / f"{n}.toml").is_file()]
"""Written out; those read from a `config.json` have tests of their own."""
PUBLISHED = {name: read_model_file(name).published for name in MODELS}
WITH_ACTIVE = [n for n, p in PUBLISHED.items() if p and p.active_parameters]
WITH_CACHE = [n for n, p in PUBLISHED.items() if p and p.kv_elements_per_token]
MIXTURES = [name for name in MODELS if read_model_file(name).mixture]
EXACT = 1e-12


@functools.cache
def architecture(name: str):
    return load_model(Reference(name)).architecture


def cache_elements(name: str) -> float:
    a = architecture(name)
    return float(a.layers * a.attention.kv_width)


ONE_DEVICE = Layout(
    factor=jnp.ones((len(AXES), 1)),
    routing=Routing(redundant_experts=jnp.zeros(()), shared_replicas=jnp.zeros(())),
)
SOFTWARE = Software(
    sizes=sizes_of(Dtypes()),
    balance=balance_of("uniform"),
    low_latency=switch(True),
)


def flop_per_token(name: str, phase: str, context: float) -> float:
    """Matrix FLOP of one token's forward pass on one device, head included."""
    a, tokens = architecture(name), jnp.asarray(64.0)
    if phase == "decode":
        w = Decode(
            sequences_per_device=tokens,
            kv_tokens=jnp.asarray(context),
            draft_tokens=jnp.zeros(()),
            acceptance=jnp.ones((1,)),
            software=SOFTWARE,
        )
        features = decode_rows(a, w, ONE_DEVICE, jnp.ones(()))
    else:
        w = Prefill(
            tokens_per_device=tokens,
            prompt_tokens=jnp.asarray(context),
            cached_fraction=jnp.zeros(()),
            software=SOFTWARE,
        )
        features = prefill_rows(a, w, ONE_DEVICE, jnp.ones(()))
    load = expert_load(a, ONE_DEVICE, SOFTWARE.balance, jnp.zeros(()), tokens)
    features |= {"expert_rows": load.rows, "experts": load.active, "logit_rows": tokens}
    rows = declared(a, ONE_DEVICE, SOFTWARE.sizes, decodes=phase == "decode")
    named = sizes_by_name(a, SOFTWARE.sizes)
    flop = matrix_flop(tabulate([op for _, op in rows], features, named))
    times = {
        "mixer": a.layers,
        "dense": a.dense_layers,
        "routing": a.layers - a.dense_layers,
        "experts": a.layers - a.dense_layers,
        "tail": 1.0,
        "draft": 0.0,
    }
    return (
        sum(float(times[part.split(".")[0]] * f) for (part, _), f in zip(rows, flop))
        / 64.0
    )


def attention_flop_per_token(name: str, keys: float) -> float:
    """Score and value products: two FLOP per key, head and dimension of both."""
    a, at = architecture(name), architecture(name).attention
    if isinstance(at, Latent):
        width = at.nope_dim + at.rope_dim + at.value_dim
    else:
        width = 2.0 * at.head_dim
    return float(2.0 * a.layers * at.heads * keys * width)


def test_every_model_states_its_source_and_a_published_count():
    for name in MODELS:
        file = read_model_file(name)
        assert file.name == name
        assert file.source in file.sources
        assert file.locator
        assert file.published is not None, name


@pytest.mark.parametrize("name", MODELS)
def test_parameters_match_the_published_count(name):
    got, said = float(total_parameters(architecture(name))), PUBLISHED[name]
    assert got == pytest.approx(said.total_parameters, rel=said.tolerance)


@pytest.mark.parametrize("name", WITH_ACTIVE)
def test_active_parameters_match_the_published_count(name):
    got, said = float(active_parameters(architecture(name))), PUBLISHED[name]
    assert got == pytest.approx(said.active_parameters, rel=said.tolerance)


@pytest.mark.parametrize("name", WITH_CACHE)
def test_the_cache_per_token_matches_the_published_count_exactly(name):
    assert cache_elements(name) == PUBLISHED[name].kv_elements_per_token


@pytest.mark.parametrize("name", MODELS)
def test_a_stated_tolerance_is_at_most_4_percent(name):
    assert PUBLISHED[name].tolerance <= 0.04


@pytest.mark.parametrize("name", MODELS)
def test_leaves_of_a_model_are_those_of_its_architecture(name):
    a, leaves = architecture(name), model_leaves(read_model_file(name))
    for path, value in leaves.items():
        *group, last = path.split(".")
        own = ("intermediate", "norms", "norm_vectors")
        node = a.feed_forwards[0] if last in own and not group else a
        for part in group:
            node = getattr(node, part)
        if last not in ("router_vectors", "extra"):  # one leaf has all that is left
            assert float(getattr(node, last)) == value, path


def test_deepseek_r1_has_671_billion_parameters():
    got = float(total_parameters(architecture("deepseek-r1")))
    assert round(got / 1e9) == 671


def test_deepseek_r1_computes_with_37_billion_parameters_a_token():
    # 37.55e9 with the input embedding, 36.6e9 without: the paper prints 37
    a = architecture("deepseek-r1")
    with_embedding = float(active_parameters(a))
    without = with_embedding - float(a.vocabulary * a.hidden)
    assert without < 37e9 < with_embedding
    assert with_embedding == pytest.approx(37e9, rel=0.02)


def test_deepseek_r1_is_deepseek_v3():
    r1, v3 = read_model_file("deepseek-r1"), read_model_file("deepseek-v3")
    assert model_leaves(r1) == model_leaves(v3)


def test_236_billion_parameters_are_those_of_deepseek_v2():
    assert round(float(total_parameters(architecture("deepseek-v2"))) / 1e9) == 236


def test_deepseek_v3_caches_70272_bytes_a_token_in_bf16():
    got = cache_elements("deepseek-v3") * BYTES["bf16"]
    assert got == 61 * (512 + 64) * 2 == 70_272


def test_llama_70b_caches_327680_bytes_a_token_in_bf16():
    got = cache_elements("llama-3.1-70b") * BYTES["bf16"]
    assert got == 80 * 2 * 8 * 128 * 2 == 327_680


def test_llama_405b_caches_516_kilobytes_a_token_in_bf16():
    # Insights into DeepSeek-V3, arXiv 2505.09343, Table 1: 516.096 KB
    assert cache_elements("llama-3.1-405b") * BYTES["bf16"] == 516_096


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_token_costs_two_flop_a_weight_besides_attention(name, phase):
    a, keys = architecture(name), 2048.0
    got = flop_per_token(name, phase, keys)
    if phase == "prefill":
        attention = attention_flop_per_token(name, (keys + 1.0) / 2.0)
    elif isinstance(a.attention, Latent):
        # absorbed: the key is latent and rotary part, the value the latent
        at = a.attention
        width = 2.0 * at.latent_dim + at.rope_dim
        attention = float(2.0 * a.layers * at.heads * keys * width)
    else:
        attention = attention_flop_per_token(name, keys)
    tables = (1.0 - a.tied.on) * a.vocabulary * a.hidden
    weights = float(active_parameters(a) - tables - a.positions * a.hidden)
    # norms, biases and the router's bias are weights that no matrix product uses
    assert got - attention == pytest.approx(2.0 * weights, rel=1e-3)


@pytest.mark.parametrize("name", WITH_ACTIVE)
def test_a_token_costs_two_flop_a_published_active_weight(name):
    a, said = architecture(name), PUBLISHED[name]
    embedding = float(a.vocabulary * a.hidden)
    got = flop_per_token(name, "prefill", 1.0) - attention_flop_per_token(name, 1.0)
    expected = 2.0 * (said.active_parameters - embedding)
    assert got == pytest.approx(expected, rel=said.tolerance + 0.005)


@pytest.mark.parametrize(
    ("name", "gflop"),
    [("deepseek-v2", 155.0), ("deepseek-v3", 250.0), ("llama-3.1-405b", 2448.0)],
)
def test_training_a_token_costs_the_published_flop(name, gflop):
    # Insights into DeepSeek-V3, arXiv 2505.09343, Table 2: sequences of 4096 tokens,
    # causal; a backward pass costs two forward passes. The table leaves open what is
    # counted besides matrix products, hence 2 percent.
    forward = flop_per_token(name, "prefill", 4096.0)
    assert 3.0 * forward == pytest.approx(gflop * 1e9, rel=0.02)


@pytest.mark.parametrize("name", MIXTURES)
def test_all_experts_active_would_be_the_whole_model(name):
    a = architecture(name)
    dense, mixture = a.feed_forwards
    halves = dense, mixture.replace(topk=mixture.routed)
    everything = a.replace(feed_forwards=halves)
    got = float(active_parameters(everything))
    assert got == pytest.approx(float(total_parameters(a)), rel=EXACT)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(MIXTURES)))
def test_a_dense_model_is_wholly_active(name):
    a = architecture(name)
    assert float(active_parameters(a)) == float(total_parameters(a))


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_layers_and_embeddings(name):
    a = architecture(name)
    parts = layer_parameters(a, known_of(a).halves) + embedding_parameters(a)
    assert float(total_parameters(a)) == pytest.approx(float(parts), rel=EXACT)


def test_a_changed_leaf_changes_the_model_and_nothing_else():
    reference = Reference("llama-3.1-70b", (("layers", 40.0), ("dense_layers", 40.0)))
    half, whole = load_model(reference).architecture, architecture("llama-3.1-70b")
    assert float(half.layers) == 40.0
    assert float(half.hidden) == float(whole.hidden)
    layers = float(total_parameters(half) - embedding_parameters(half))
    both = float(total_parameters(whole) - embedding_parameters(whole))
    assert layers == pytest.approx(both / 2.0, rel=EXACT)
