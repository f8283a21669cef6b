"""Plans of capacity: sizes by brute force, spares and replays by hand."""

import json
import math

import jax
import numpy as np
import pytest

import cmxjax as cmx
import cmxjax.planning.plan as plan_module
from cmxjax.cli.main import main
from cmxjax.planning.fewest import predicted
from cmxjax.planning.fleet import spare_hosts
from cmxjax.planning.load import classes_on, mix_of
from cmxjax.planning.plan import plan
from cmxjax.planning.replay import Step, _generated
from cmxjax.report import plan_picture
from cmxjax.specs.errors import SpecError
from cmxjax.specs.trace_file import Trace, load_trace

NAME = "deepseek-r1-serve-cloudmatrix384"
RATE = 300.0
CLASS = """
request_rate = {rate}
prompt_tokens = 4096
output_tokens = 1024
ttft_limit = "5 s"
tpot_limit = "50 ms"
"""


@pytest.fixture(scope="module")
def planned():
    return plan([NAME], per_s=RATE, layouts="given")


def test_no_pool_is_larger_than_it_must_be(planned):
    """One instance less of any pool, and predictions say that it is too little."""
    (fleet,) = planned.fleets
    sized = fleet.sized
    roles = list(sized.instances)

    def capacity(role: str, count: int) -> float:
        counts = {**sized.instances, role: count}
        changes = {
            f"pools.{i}.devices": counts[r] * sized.devices[r]
            for i, r in enumerate(roles)
        }
        changes["workload.request_rate"] = RATE
        found = cmx.predict(cmx.load_scenario(NAME, changes))
        return float(found.pools[role]["requests_per_s"])

    for role, count in sized.instances.items():
        assert capacity(role, count) >= RATE * (1.0 - 1e-9)
        if count > 1:
            assert capacity(role, count - 1) < RATE
    devices = sum(n * sized.devices[role] for role, n in sized.instances.items())
    assert fleet.packages == devices / 2  # two dies a package


def test_equal_classes_are_one(planned, tmp_path):
    path = tmp_path / "mix.toml"
    parts = [f"[classes.{name}]{CLASS.format(rate=RATE / 2)}" for name in "ab"]
    path.write_text("title = 'twins'\n" + "\n".join(parts))
    twins = plan([NAME], mix=str(path), layouts="given")
    one, two = planned.fleets[0], twins.fleets[0]
    assert two.sized.instances == one.sized.instances
    assert two.sized.load == pytest.approx(one.sized.load)
    assert two.usd_per_token == pytest.approx(one.usd_per_token)
    assert two.energy_per_token_j == pytest.approx(one.energy_per_token_j)


def test_more_is_planned_for_growth_and_to_be_sure(planned):
    surer = plan([NAME], per_s=RATE, confidence=0.9, layouts="given")
    larger = plan([NAME], per_s=RATE, growth=1.5, layouts="given")
    (before,), (sure,), (grown,) = planned.fleets, surer.fleets, larger.fleets
    assert before.packages < sure.packages
    assert sure.sufficient >= 0.9 > before.sufficient
    assert before.packages < grown.packages
    # tokens of today pay for packages of tomorrow
    ratio = grown.all_packages / before.all_packages
    assert grown.usd_per_token == pytest.approx(ratio * before.usd_per_token)


def test_the_cost_is_that_of_the_packages_by_hand(planned):
    (fleet,) = planned.fleets
    price = fleet.problem.figures["operations.package_hour_usd"].si
    assert fleet.usd_per_hour == pytest.approx(fleet.all_packages * price)
    tokens = RATE * 1024 * 3600.0
    assert fleet.usd_per_token == pytest.approx(fleet.all_packages * price / tokens)


@pytest.mark.parametrize(("repair_s", "available"), [(4 * 3600.0, 0.999), (1e6, 0.99)])
def test_spares_are_enough_and_not_more(planned, repair_s, available):
    machine = next(iter(planned.fleets[0].problem.inputs[0].values()))
    down, spares = spare_hosts(machine, 480.0, available, repair_s)
    terms = [math.exp(-down) * down**k / math.factorial(k) for k in range(spares + 1)]
    assert sum(terms) >= available > sum(terms[:-1])
    # hosts of eight packages, each with its share of everything that fails
    o = machine.operations
    hosts = 480.0 / float(o.host_packages)
    each = float(o.host_packages) / float(o.package_mtbf_s) + 1 / float(o.host_mtbf_s)
    assert down == pytest.approx(hosts * each * repair_s, rel=0.01)


def test_one_program_gives_the_numbers_of_each_machine():
    """Also where attention is whole on each rank, which the program splits one way."""
    (c,) = classes_on("deepseek-r1-serve-gb200-nvl72", per_s=50.0)
    assert c.inputs[3].pools["decode"].layout.attention == "dp"
    own, shared = jax.device_get(cmx.metrics(*c.inputs)), predicted(*c.inputs)
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(shared), strict=True):
        assert other == pytest.approx(one, rel=1e-12)


def test_tokens_are_shared_as_by_hand():
    """Steps of 10 ms and 10 ms for each request: alone 20 ms a token, two 30 ms."""
    trace = Trace(np.zeros(2), np.ones(2), np.array([100.0, 10.0]))
    done = _generated(trace, np.array([0.0, 1.0]), Step(0.01, 0.01))
    # 50 tokens in the first second; then ten of each in 0.3 s; then 40 alone
    np.testing.assert_allclose(done, [1.3 + 40 * 0.02, 1.3])
    done = _generated(trace, np.array([0.0, 1.0]), Step(0.02, 0.0))
    np.testing.assert_allclose(done, [2.0, 1.2])


@pytest.mark.parametrize("assignment", ["in_turn", "random"])
def test_a_replayed_stream_waits_as_the_queue_says(tmp_path, assignment):
    """Requests of one kind that arrive at random: the simulation has mean and P90 of the
    chain, beside tokens that are at the rate of the model."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(1 / 80.0, 12_000))
    rows = [f"{t:.6f},4096,1024" for t in arrivals]
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows))
    changes = {"workload.assignment": assignment}
    (fleet,) = plan([NAME], trace=str(path), layouts="given", changes=changes).fleets
    (seen,) = fleet.classes.values()
    replayed, values = fleet.replayed, seen.values
    assert replayed.requests == 12_000
    assert replayed.ttft_s["mean"] == pytest.approx(values["ttft_s"], rel=0.1, abs=5e-3)
    assert replayed.ttft_s["p90"] == pytest.approx(
        values["ttft_p90_s"], rel=0.15, abs=5e-3
    )
    assert replayed.tpot_s["mean"] == pytest.approx(values["tpot_s"], rel=0.1)
    assert replayed.within > 0.9


def test_traces_of_others_are_read(tmp_path):
    azure = tmp_path / "azure.csv"
    lines = [
        f"2023-11-16 18:17:{i // 2:02d}.{5 * (i % 2)}000000,{100 + i},{10 + i}"
        for i in range(40)
    ]
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines))
    mooncake = tmp_path / "mooncake.jsonl"
    mooncake.write_text(
        "\n".join(
            json.dumps(
                {
                    "timestamp": 500 * i,
                    "input_length": 100 + i,
                    "output_length": 10 + i,
                    "hash_ids": [i],
                }
            )
            for i in range(40)
        )
    )
    for path in (azure, mooncake):
        trace = load_trace(str(path))
        np.testing.assert_allclose(trace.arrival_s, 0.5 * np.arange(40))
        np.testing.assert_allclose(trace.prompt_tokens, 100 + np.arange(40))
        assert trace.per_s == pytest.approx(2.0)
        assert trace.arrival_cv == pytest.approx(0.0, abs=1e-6)
    mix, of = mix_of(load_trace(str(azure)))
    tables = mix.classes.values()
    assert sum(t["request_rate"] for t in tables) == pytest.approx(2.0)
    assert len(of) == 40
    assert len(mix.classes) == 4
    tokens = sum(t["request_rate"] * t["output_tokens"] for t in tables)
    assert tokens == pytest.approx(2.0 * (10 + 19.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "first line must name"),
        ("arrival_s,prompt_tokens,output_tokens\n" + "0,1,1\n" * 3, "too few"),
        (
            "arrival_s,prompt_tokens,output_tokens\n" + "0,1,1\n" * 30,
            "all requests arrive",
        ),
        ("arrival_s,prompt_tokens,output_tokens\n" + "0,nan,1\n" * 30, "line 2: prompt"),
        ("arrival_s,prompt_tokens,output_tokens\n1\n", "line 2"),
        ("", "empty"),
    ],
)
def test_a_wrong_trace_is_named_with_its_line(tmp_path, text, said):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        load_trace(str(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((NAME, "--rate", "100"), "requests/s"),
        ((NAME, "--rate", "-1/s"), "must be above 0"),
        ((NAME, "--repair", "4"), "unit"),
        ((NAME, "--confidence", "2"), "probability"),
        ((NAME, "--growth", "0"), "factor above 0"),
        ((NAME, "--limit", "step_time=1s"), "limits on ttft and tpot"),
        (("deepseek-r1-decode-cloudmatrix384",), "needs phase 'serve'"),
        (("no-such-job",), "not shipped"),
        ((NAME, "--mix", "no.toml"), "no.toml"),
        ((NAME, "--pin", "cp=2"), "pin whole numbers from 1 of tp, dp"),
        ((NAME, "--pin", "tp=1.5"), "AXIS=NUMBER"),
        (("deepseek-r1-serve-xdeepserve",), "waits for other pools"),
    ],
)
def test_bad_input_is_one_message(capsys, arguments, said):
    assert main(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_the_command_prints_and_says_what_can_not_be(capsys, tmp_path):
    picture = tmp_path / "plan.svg"
    wanted = ["plan", NAME, "--rate", "100/s", "--picture", str(picture)]
    assert main([*wanted, "--layouts", "given"]) == 0
    out = capsys.readouterr().out
    for text in ("prefill of 32", "takes the load", "assumed", "fewest packages"):
        assert text in out
    assert picture.stat().st_size > 1000
    assert main(["plan", NAME, "--rate", "100/s", "--show", "cost"]) == 2
    assert "needs --picture" in capsys.readouterr().err
    tight = ["plan", NAME, "--limit", "tpot=1ms", "--layouts", "given", "--json"]
    assert main(tight) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["feasible"]
    assert "serves none within its limits" in found["reason"]


@pytest.mark.slow
def test_the_cost_over_the_rate_is_that_of_plans_for_those_rates(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plan_module, "SHARES", (0.5, 1.0))
    monkeypatch.setattr(plan_picture, "save", lambda figure, _: drawn.append(figure))
    picture = str(tmp_path / "cost.svg")
    wanted = ["plan", NAME, "--rate", "100/s", "--growth", "1.5", "--show", "cost"]
    assert main([*wanted, "--picture", picture]) == 0
    left, right = drawn[0].axes
    assert left.get_lines()[0].get_xdata().tolist() == pytest.approx([75.0, 150.0])
    for place, rate in enumerate((50.0, 100.0)):
        (fleet,) = cmx.plan([NAME], per_s=rate, growth=1.5).fleets
        assert left.get_lines()[0].get_ydata()[place] == fleet.all_packages
        cost = right.get_lines()[0].get_ydata()[place]
        assert cost == pytest.approx(1e6 * fleet.usd_per_token)
    assert "150 requests/s planned for" in drawn[0]._supxlabel.get_text()
