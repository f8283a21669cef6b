"""Vision towers: their weights, patches and work; images in prefill and in pools."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_budgets import EQUATIONS, equations

import cmxjax as cmx
from cmxjax.job.layout import degree
from cmxjax.job.workload import Images
from cmxjax.model.architecture import total_parameters
from cmxjax.specs.errors import SpecError
from cmxjax.specs.huggingface.vision import vision_of
from cmxjax.specs.images import cut
from cmxjax.specs.model_load import load_model, read_model_file
from cmxjax.specs.scenario import load_scenario, validate_scenario
from cmxjax.specs.system_load import Reference
from cmxjax.specs.vision_file import VisionSpec
from cmxjax.specs.vision_file import vision_of as tower_of
from cmxjax.work.table import matrix_flop
from cmxjax.work.vision import encoder_of, share_of, vision_work, with_prompts

PREFILL = "qwen3-vl-prefill-cloudmatrix384"
GPUS = "qwen3-vl-prefill-gb200-nvl72"
SERVE = "qwen3-vl-serve-cloudmatrix384"
ORACLE = json.loads((Path(__file__).parent / "models/towers.json").read_text())["towers"]

PUBLISHED = {
    "qwen2-vl-7b": 0.675e9,  # arXiv 2409.12191: a ViT of 675M
    "qwen2.5-vl-7b": 0.67e9,
    "internvl3-78b": 5.54e9 + 172e6,  # InternViT-6B-448px-V2.5, and its projector
    "internvl3-8b": 304e6 + 27.5e6,  # InternViT-300M, and its projector
    "llama-4-scout": 0.87e9,
    "gemma-3-27b": 0.417e9 + 6.2e6,  # technical report, table 1, and its projector
    "kimi-k2.5": 0.417e9 + 54.3e6,  # a SigLIP of 400M (MoonViT), and its projector
}
"""As the models' own papers and cards say, which round."""


def spec_of(name: str) -> VisionSpec:
    row = ORACLE[name]
    around = {"model_type": row["model_type"]} | row["config"]
    read = vision_of(around, name, float(row["text_hidden"]))
    assert read.keys is not None, read.problem
    return VisionSpec.model_validate(read.keys)


@functools.cache
def problem(name: str = PREFILL, **changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return cmx.build(load_scenario(name, dotted), "none")


@functools.cache
def run(name: str = PREFILL, explains: bool = False, **changes):
    p = problem(name, **changes)
    call = cmx.explain if explains else cmx.metrics
    return jax.device_get(call(p.machine, p.model, p.workload, p.layout))


# --- Weights


@pytest.mark.parametrize("name", ORACLE)
def test_a_tower_has_the_parameters_that_its_class_builds(name):
    assert float(tower_of(spec_of(name)).parameters) == ORACLE[name]["parameters"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tower_has_about_the_parameters_that_are_published(name):
    count = float(tower_of(spec_of(name)).parameters)
    assert count == pytest.approx(PUBLISHED[name], rel=0.02)


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "internvl3-78b", "glm-4.5v"])
def test_layers_as_those_of_a_language_model_have_the_same_weights(name):
    v = tower_of(spec_of(name))
    assert float(total_parameters(encoder_of(v))) == float(v.layer_parameters)


@pytest.mark.parametrize(
    ("shipped", "row"),
    [
        ("qwen3-vl-235b-a22b", "qwen3-vl-235b-a22b"),
        ("qwen3.5-27b", "qwen3.5-27b"),
        ("qwen3.5-397b-a17b", "qwen3.5-397b-a17b"),
        ("gemma-3-27b", "gemma-3-27b"),
        ("llama-4-scout", "llama-4-scout"),
        ("llama-4-maverick", "llama-4-scout"),
        ("kimi-k2.5-int4", "kimi-k2.5"),
        ("kimi-k2.5-nvfp4", "kimi-k2.5"),
    ],
)
def test_shipped_models_have_their_towers(shipped, row):
    a = load_model(Reference(shipped)).architecture
    assert float(a.vision.parameters) == ORACLE[row]["parameters"]
    assert float(total_parameters(a)) == float(total_parameters(a.replace(vision=None)))


# --- Patches and tokens


@pytest.mark.parametrize(
    ("name", "size", "tiles", "patches", "tokens"),
    [
        ("qwen2.5-vl-7b", (1008, 1008), 1, 72 * 72, 36 * 36),
        ("qwen2.5-vl-7b", (1024, 1024), 1, 74 * 74, 37 * 37),  # rounded to 1036
        ("qwen2.5-vl-7b", (28, 28), 1, 16, 4),  # enlarged to 56 x 56
        ("qwen3-vl-8b", (1024, 1024), 1, 64 * 64, 32 * 32),
        ("qwen3-vl-8b", (768, 1024), 1, 48 * 64, 24 * 32),
        ("qwen3-vl-8b", (8192, 8192), 1, 256 * 256, 128 * 128),  # reduced to 4096
        ("gemma-3-27b", (300, 2000), 1, 64 * 64, 256),
        ("internvl3-8b", (448, 448), 1, 1025, 256),
        ("internvl3-8b", (448, 896), 3, 1025, 3 * 256),  # two tiles and the whole
        ("internvl3-8b", (1344, 1792), 13, 1025, 13 * 256),
        ("llama-4-scout", (336, 336), 1, 577, 144),
        ("llama-4-scout", (200, 300), 1, 577, 144),
        ("llama-4-scout", (672, 672), 5, 577, 5 * 144),
        ("llama-4-scout", (4000, 4000), 17, 577, 17 * 144),
        ("kimi-k2.5", (1000, 1000), 1, 72 * 72, 36 * 36),  # filled up to 1008
        ("glm-4.5v", (336, 336), 1, 24 * 24, 12 * 12),
    ],
)
def test_an_image_is_cut_as_by_hand(name, size, tiles, patches, tokens):
    got = cut(spec_of(name), *map(float, size))
    assert (got.tiles, got.patches, got.tokens) == (tiles, patches, tokens)


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "qwen3-vl-8b", "kimi-k2.5"])
def test_a_larger_image_has_no_fewer_tokens_up_to_the_limit(name):
    tokens = [
        cut(spec_of(name), x, x).tokens for x in np.arange(100.0, 1750.0, 50.0).tolist()
    ]
    assert tokens == sorted(tokens)


def test_a_tower_as_toml_is_the_same_as_from_a_config(tmp_path):
    name = "qwen3-vl-235b-a22b"
    file = read_model_file(name).vision
    keys = {k: v for k, v in file.model_dump(exclude_none=True).items() if v is not False}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    lines += ["gated = false", "padded = false"]
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "m"\ntitle = "m"\nkind = "assumed"\nsource = "s"\nlocator = "l"\n'
        "hidden = 4096\nlayers = 2\ndense_layers = 2\nintermediate = 64\n"
        'vocabulary = 100\n[sources.s]\ntitle = "s"\n[attention]\n'
        'kind = "grouped_query"\nheads = 8\nkv_heads = 8\nhead_dim = 64\n[vision]\n'
        + "\n".join(lines)
    )
    a = load_model(Reference(str(path))).architecture
    assert float(a.vision.parameters) == ORACLE[name]["parameters"]


# --- Work


def test_flop_are_those_by_hand():
    """Two per weight and row; scores and contexts of all pairs in a tile or window."""
    p = problem("qwen3-vl-prefill-gb200-nvl72", workload__images_per_prompt=1)
    v = tower_of(spec_of("qwen2.5-vl-7b"))
    place = with_prompts(p.workload, p.layout)
    images = place.images.replace(
        tiles=jnp.asarray(1.0), patches=jnp.asarray(5184.0), tokens=jnp.asarray(1296.0)
    )
    one = place._replace(images=images, mean=jnp.ones(()), ways=jnp.ones(()))
    table = vision_work(v, one, None)
    got = float(jnp.dot(matrix_flop(table.table), table.runs))
    attention = 4 * 1280 * 1280
    network = 3 * 1280 * 3420
    layers = 32 * 2 * 5184 * (attention + network)
    pairs = 2 * 2 * 5184 * 1280 * (4 * 5184 + 28 * 64)
    outer = 2 * 5184 * 1176 * 1280 + 2 * 1296 * (5120 * 5120 + 5120 * 3584)
    assert got == pytest.approx(layers + pairs + outer, rel=1e-12)


def images(per_prompt: float = 1.0, tiles: float = 1.0) -> Images:
    each = (per_prompt, tiles, 4096.0, 1024.0)
    names = ("per_prompt", "tiles", "patches", "tokens")
    leaves = {
        name: jnp.asarray(value, float) for name, value in zip(names, each, strict=True)
    }
    return Images(**leaves, splits_heads=False)


@pytest.mark.parametrize(
    ("count", "tiles", "ways", "fullest"),
    [
        (1.0, 1, 1, 1.0),
        (3.0, 1, 2, 2.0),  # three images on two devices
        (8.0, 1, 4, 2.0),
        (8.2, 1, 8, 0.8 * 1 + 0.2 * 2),  # eight or nine
        (1.6, 1, 1, 1.6),
        (1.0, 13, 4, 4.0),
        (0.3, 1, 4, 0.3),  # in three of ten batches
    ],
)
def test_the_fullest_device_gets_whole_tiles(count, tiles, ways, fullest):
    share = share_of(
        images(tiles=tiles), jnp.asarray(count), jnp.asarray(ways, float), None
    )
    assert float(share.tiles * share.often) == pytest.approx(fullest, rel=1e-12)


def test_a_batch_is_the_mean_of_batches_drawn_one_by_one():
    """Binomial or not: of two whole numbers around the mean."""
    rng, mean, ways = np.random.default_rng(0), 5.7, 4
    drawn = 5 + (rng.random(200_000) < 0.7)
    simulated = np.ceil(drawn / ways).mean()
    share = share_of(images(), jnp.asarray(mean), jnp.asarray(ways, float), None)
    assert float(share.tiles * share.often) == pytest.approx(simulated, rel=3e-3)


# --- Prefill


def text_only(**changes):
    return {"workload__images_per_prompt": 0, "workload__prompt_tokens": 3072} | changes


def test_no_images_are_the_same_as_none():
    one = problem(PREFILL, **text_only())
    raw = load_scenario(PREFILL).model_dump(exclude_none=True, mode="python")
    raw["workload"] = {"tokens_per_device": 8192.0, "prompt_tokens": 3072.0}
    raw["system"], raw["model"] = "cloudmatrix384", "qwen3-vl-235b-a22b"
    other = cmx.build(validate_scenario(raw, "test"), "none")
    assert jax.tree.structure(one.inputs) == jax.tree.structure(other.inputs)
    m = [jax.device_get(cmx.metrics(*p.inputs)) for p in (one, other)]
    for name, value in vars(m[0]).items():
        if hasattr(value, "dtype"):
            assert value == getattr(m[1], name), name
    assert one.model.vision is None
    assert m[0].vision_time_s is None


@pytest.mark.parametrize("name", [PREFILL, GPUS])
def test_a_prompt_with_images_takes_the_time_of_both(name):
    with_images, text = run(name), run(name, **text_only())
    assert with_images.vision_time_s > 0.0
    both = text.ttft_s + with_images.vision_time_s
    assert with_images.ttft_s == pytest.approx(both, rel=1e-9)
    assert with_images.memory_weights_bytes - text.memory_weights_bytes == pytest.approx(
        2.0 * ORACLE["qwen3-vl-235b-a22b"]["parameters"]
    )


@pytest.mark.parametrize("name", [PREFILL, GPUS])
def test_the_shipped_scenarios_say_plausible_things(name):
    """An image of 4096 patches takes 5.7 TFLOP in the tower, a fifth of it and more of
    what attention's vector work leaves."""
    m, p = run(name), problem(name)
    count = 8192 * 4 / 3072 * 2 / 4
    flop = count * 5.7e12
    peak = float(p.machine.chip.matrix_flop_per_s["bf16"])
    assert 0.15 < flop / m.vision_time_s / peak < 0.9
    assert m.memory_excess_bytes == 0.0
    assert m.ttft_s > m.vision_time_s


@pytest.mark.parametrize("name", [PREFILL, GPUS])
def test_the_breakdown_sums_to_the_step_and_names_the_tower(name):
    m = run(name, True)
    assert sum(m.breakdown.values()) == pytest.approx(m.ttft_s, rel=1e-12)
    tower = {k: v for k, v in m.breakdown.items() if k.startswith("vision.")}
    assert sum(tower.values()) == pytest.approx(m.vision_time_s, rel=1e-9)
    assert all(m.busy[name] >= share - 1e-15 for name, share in tower.items())


def test_more_and_larger_images_take_longer():
    sizes = [512, 768, 1024, 1536, 2048]
    times = [run(PREFILL, workload__image_size=s).vision_time_s for s in sizes]
    each = [problem(PREFILL, workload__image_size=s).workload.images for s in sizes]
    assert [float(x.tokens) for x in each] == sorted(float(x.tokens) for x in each)
    assert times == sorted(times)
    counts = [0.5, 1, 2, 3, 7]
    rising = [
        run(PREFILL, workload__images_per_prompt=n, workload__tokens_per_device=65536)
        for n in counts
    ]
    assert [m.vision_time_s for m in rising] == sorted(m.vision_time_s for m in rising)


def test_image_tokens_come_on_top_of_those_of_the_text():
    p = problem()
    assert float(p.workload.prompt_tokens) == 1024 + 2 * 1024
    answer = cmx.predict(load_scenario(PREFILL), "none")
    assert answer.images == {
        "text_tokens": 1024.0,
        "image_tokens": 2048.0,
        "prompt_tokens": 3072.0,
        "per_prompt": 2.0,
        "tiles": 1.0,
        "patches": 4096.0,
        "tokens": 1024.0,
    }
    assert answer.to_dict()["images"] == answer.images


def test_heads_split_over_tp_add_sums_and_no_gather():
    whole, split = run(PREFILL, True), run(PREFILL, True, layout__vision="tp")
    assert split.breakdown["vision.transfer"] > whole.breakdown["vision.transfer"]
    assert split.memory_weights_bytes < whole.memory_weights_bytes


def test_cached_prompts_encode_fewer_images():
    cached = run(PREFILL, workload__cached_fraction=0.5)
    assert cached.vision_time_s < 0.6 * run().vision_time_s


def test_pipeline_stages_wait_for_the_tower():
    layout = {"layout__devices": 16, "layout__ep": 8, "layout__pp": 2}
    changes = {"layout__overlapped_microbatches": 1}
    m = run(PREFILL, True, **layout, **changes)
    assert sum(m.breakdown.values()) == pytest.approx(m.ttft_s, rel=1e-12)
    assert m.vision_time_s == pytest.approx(2.0 * run().vision_time_s, rel=1e-9)


@pytest.mark.parametrize(("sharpness", "most"), [(None, 480), (8.0, 620)])
def test_a_tower_adds_little_to_the_program(sharpness, most):
    """A third of what the language model takes, relaxed as exact."""
    counts = []
    for changes in ({}, text_only()):
        p = problem(GPUS, **changes)
        s = None if sharpness is None else jnp.asarray(sharpness)
        program = jax.make_jaxpr(cmx.metrics)(*p.inputs, s).jaxpr
        counts.append(equations(program))
    assert counts[1] < EQUATIONS
    assert counts[0] - counts[1] < most


NAMES = ("machine", "model", "workload", "layout")


class Slope(NamedTuple):
    """A number of a job, by what holds it."""

    of: str
    path: tuple[str, ...]


SLOPES = [
    Slope("machine", ("chip", "memory_bytes_per_s")),
    Slope("model", ("vision", "hidden")),
    Slope("workload", ("images", "patches")),
    Slope("workload", ("images", "per_prompt")),
]


@pytest.mark.parametrize("sharpness", [None, pytest.param(8.0, marks=pytest.mark.slow)])
def test_gradients_are_finite_and_those_of_differences(sharpness):
    p = problem(GPUS)
    s = None if sharpness is None else jnp.asarray(sharpness)

    def log_time(trees):
        return jnp.log(cmx.metrics(*trees, s).ttft_s)

    trees = list(p.inputs)
    for of, path in SLOPES:  # off whole tiles, where slopes jump
        place = NAMES.index(of)
        trees[place] = scaled(trees[place], path, 1.0137)
    inputs = tuple(trees)
    slopes = jax.grad(log_time)(inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    if sharpness is None:
        return
    for of, path in SLOPES:
        place = NAMES.index(of)

        def moved(by, place=place, path=path):
            trees = list(inputs)
            trees[place] = scaled(trees[place], path, 1.0 + by)
            return log_time(tuple(trees))

        step = 1e-6
        rise = (moved(step) - moved(-step)) / (2.0 * step)
        leaf, slope = inputs[place], slopes[place]
        for name in path:
            leaf, slope = getattr(leaf, name), getattr(slope, name)
        assert float(leaf * slope) == pytest.approx(float(rise), rel=1e-4, abs=1e-8)


def scaled(tree, path, factor):
    first, *rest = path
    node = getattr(tree, first)
    new = scaled(node, rest, factor) if rest else node * factor
    return tree.replace(**{first: new})


def test_times_minus_rates_are_of_degree_one():
    answer = cmx.predict(load_scenario(PREFILL), "none")
    half = {
        "system.chip.memory_bytes_per_s": 0.5
        * float(answer.problem.system.chip.memory_bytes_per_s)
    }
    slower = cmx.predict(load_scenario(PREFILL, half), "none")
    assert slower.vision_time_s > answer.vision_time_s


def test_a_batch_of_jobs_is_each_by_itself():
    problems = [problem(GPUS, workload__images_per_prompt=n) for n in (1, 2, 3)]
    first = problems[0]
    works = cmx.stack([p.workload for p in problems])
    many = jax.vmap(lambda w: cmx.metrics(first.machine, first.model, w, first.layout))(
        works
    )
    for i, n in enumerate((1, 2, 3)):
        one = run(GPUS, workload__images_per_prompt=n)
        assert float(many.ttft_s[i]) == pytest.approx(one.ttft_s, rel=1e-12)


# --- What is refused


def mistakes(name: str = PREFILL, **changes) -> str:
    with pytest.raises(SpecError) as caught:
        problem(name, **changes)
    return str(caught.value)


def test_images_need_a_tower():
    said = mistakes(model="qwen3-235b-a22b")
    assert "workload.images_per_prompt" in said
    assert "no vision tower" in said


def test_images_need_a_size():
    raw = load_scenario(PREFILL).model_dump(exclude_none=True)
    raw |= {"system": "cloudmatrix384", "model": "qwen3-vl-235b-a22b"}
    del raw["workload"]["image_size"]
    with pytest.raises(SpecError, match="image_size"):
        cmx.build(validate_scenario(raw, "test"), "none")


def test_images_of_one_size_need_none():
    gemma = {"model": "gemma-3-27b", "layout": {"devices": 4, "tp": 4}}
    raw = {
        "system": "gb200-nvl72",
        "phase": "prefill",
        "workload": {
            "tokens_per_device": 8192,
            "prompt_tokens": 512,
            "images_per_prompt": 1,
        },
    }
    p = cmx.build(validate_scenario(raw | gemma, "test"), "none")
    assert float(p.workload.prompt_tokens) == 512 + 256


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_window_pattern", [1, 2]),  # may change the tower
        ("patch_size", "16"),
        ("num_heads", 7),  # don't divide
        ("deepstack_visual_indexes", 3),
        ("mlp_ratio", [4]),
        ("fullatt_block_indexes", ["last"]),
        ("hidden_size", None),
    ],
)
def test_a_tower_not_understood_is_refused_for_images_alone(tmp_path, key, value):
    config = json.loads(
        (
            Path(cmx.__file__).parent / "specs/data/models/qwen3-vl-235b-a22b.json"
        ).read_text()
    )
    config["vision_config"][key] = value
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    text = problem(PREFILL, model=str(path), **text_only())
    assert text.model.vision is None
    said = mistakes(model=str(path))
    assert "not understood" in said
    assert "vision_config" in said


def test_a_prompt_with_its_images_must_be_admitted():
    said = mistakes(workload__tokens_per_device=700)
    assert "2048 of images" in said


def test_heads_must_divide():
    said = mistakes(GPUS, layout__tp=8, layout__vision="tp", **{"model.vision.heads": 12})
    assert "vision.heads" in said


# --- Pools


@pytest.mark.slow
def test_parts_of_a_request_sum_to_it():
    m = run(SERVE, True)
    first = (m.encode_waiting_time_s, m.encode_time_s, m.encode_transfer_time_s)
    rest = (m.waiting_time_s, m.prefill_time_s, m.transfer_time_s)
    assert m.ttft_s == pytest.approx(sum(first) + sum(rest), rel=1e-12)
    assert m.request_time_s == pytest.approx(m.ttft_s + 512 * m.tpot_s, rel=1e-9)
    assert sum(m.breakdown.values()) == pytest.approx(m.request_time_s, rel=1e-9)


def test_the_embeddings_are_bytes_over_the_rate_of_the_outer_tier():
    # two images of 1024 tokens, four embeddings of 4096 elements, from one die
    tier = problem(SERVE).system.tiers["cluster"]
    expected = 2 * 1024 * 4 * 4096 * 2 / (25e9 * float(tier.efficiency))
    expected += float(tier.latency_s)
    assert run(SERVE).encode_transfer_time_s == pytest.approx(expected, rel=1e-9)


def test_the_pool_waits_as_by_pollaczek_and_khinchine():
    m = run(SERVE, workload__assignment="random")
    busy = 60 * m.encode_time_s / 32
    assert m.pools["encode"].utilization == pytest.approx(busy, rel=1e-9)
    wait = 0.5 * m.encode_time_s * busy / (1.0 - busy)
    assert m.encode_waiting_time_s == pytest.approx(wait, rel=1e-4)


def test_prefill_beside_an_encode_pool_is_that_of_text():
    # so few that each has a batch of its own, with a prompt in each group
    m, p = run(SERVE, workload__request_rate=1e-4), problem(SERVE)
    layout = p.layout.pools["prefill"].layout
    group = float(degree(layout, "tp") * degree(layout, "cp"))
    each = float(p.workload.prompt_tokens) / group
    alone = run(PREFILL, workload__tokens_per_device=each, **text_only())
    assert m.prefill_time_s == pytest.approx(alone.ttft_s, rel=1e-4)


def pooled(*roles: str, **changes):
    raw = load_scenario(SERVE).model_dump(exclude_none=True)
    raw |= {"system": "cloudmatrix384", "model": "qwen3-vl-235b-a22b"}
    raw["pools"] = [pool for pool in raw["pools"] if pool["role"] in roles]
    raw["workload"] |= {"ttft_limit": 3.0, "tpot_limit": 0.05} | changes
    del raw["workload"]["ttft_limit"], raw["workload"]["tpot_limit"]
    return cmx.build(validate_scenario(raw, "test"), "none")


@functools.cache
def served(*roles: str, **changes):
    return jax.device_get(cmx.metrics(*pooled(*roles, **changes).inputs))


@pytest.mark.slow
def test_without_a_pool_prefill_encodes_the_images_itself():
    apart, together = served("encode", "prefill", "decode"), served("prefill", "decode")
    assert together.encode_time_s is None
    assert together.prefill_time_s > apart.prefill_time_s
    assert together.pools["prefill"].memory_bytes > apart.pools["prefill"].memory_bytes


@pytest.mark.slow
def test_devices_that_do_both_encode_beside_decode_steps():
    with_images = served("decode")
    text = served("decode", images_per_prompt=0.0, prompt_tokens=3072.0)
    apart = served("encode", "decode")
    assert with_images.tpot_s > text.tpot_s
    assert apart.tpot_s == pytest.approx(text.tpot_s, rel=1e-6)
    assert with_images.pools["decode"].memory_bytes > text.pools["decode"].memory_bytes


def test_encode_pools_need_images_and_prompts():
    with pytest.raises(SpecError, match="no images"):
        pooled("encode", "prefill", "decode", images_per_prompt=0.0)
    said = mistakes(SERVE, pools__0__layout__devices=2, pools__0__layout__pp=2)
    assert "pools[0].layout.pp" in said


def test_a_slow_pool_binds():
    m = run(SERVE, pools__0__devices=4, workload__ttft_limit="100 s")
    assert m.excess_requests_per_s > 0.0
    assert m.capacity_requests_per_s == pytest.approx(
        m.pools["encode"].requests_per_s, rel=1e-9
    )


def test_several_devices_share_the_images_of_a_request():
    two = run(SERVE, pools__0__layout__devices=2, pools__0__layout__dp=2)
    one = run(SERVE)
    host = float(problem(SERVE).machine["encode"].runtime.prefill_batch_s)
    assert two.encode_time_s - host == pytest.approx(
        0.5 * (one.encode_time_s - host), rel=0.05
    )


@pytest.mark.slow
def test_gradients_of_pools_are_finite():
    p = problem(SERVE)

    def log_time(w):
        return jnp.log(cmx.metrics(p.machine, p.model, w, p.layout).ttft_s)

    slopes = jax.grad(log_time)(p.workload)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert float(slopes.images.patches) > 0.0
