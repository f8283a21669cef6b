"""Prices and failures: counted by package, host and optical module, or refused."""

import itertools
import json
import math

import pytest
from test_train import DENSE, made

import cmxjax as cmx
from cmxjax.answers.solve import solve
from cmxjax.cli import main
from cmxjax.goodput import failures_per_s, goodput_of
from cmxjax.specs.files import shipped
from cmxjax.specs.renamed import DEVICE_HOUR, DEVICE_MTBF
from cmxjax.specs.scenario import validate_scenario, with_overrides
from cmxjax.specs.system_file import figures_of
from cmxjax.specs.system_load import Reference, load_system, read_system_file

HOUR, DAY = 3600.0, 86400.0
DECODE = {
    "model": "llama-3.1-8b",
    "phase": "decode",
    "layout": {"devices": 8, "tp": 8},
    "workload": {"sequences_per_device": 8, "kv_tokens": 1024},
}
PRICE = "system.operations.package_hour_usd"


def machine_of(system: str, **changes):
    return made({**DENSE, "system": system}, **changes).machine


def predicted(raw, **changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return cmx.predict(validate_scenario(with_overrides(raw, dotted), "test"), "none")


# --- Failures


def test_rates_of_packages_hosts_and_modules_add_up():
    machine = machine_of("cloudmatrix384")
    o = machine.operations
    # 3 supernodes: 1152 packages, 144 hosts, 18 optical modules a package
    by_hand = 1152 / o.package_mtbf_s + 144 / o.host_mtbf_s
    by_hand += 3 * 6912 / o.optical_module_mtbf_s
    assert float(failures_per_s(machine, 2304.0)) == pytest.approx(float(by_hand))
    # half of one: modules that join it alone, 14 a package
    half = 192 / o.package_mtbf_s + 24 / o.host_mtbf_s + 2688 / o.optical_module_mtbf_s
    assert float(failures_per_s(machine, 384.0)) == pytest.approx(float(half))
    # a node needs none, a die its package and its host
    node = 8 / o.package_mtbf_s + 1 / o.host_mtbf_s
    assert float(failures_per_s(machine, 16.0)) == pytest.approx(float(node))
    die = 1 / o.package_mtbf_s + 1 / o.host_mtbf_s
    assert float(failures_per_s(machine, 1.0)) == pytest.approx(float(die))


def test_the_run_of_llama_3_is_interrupted_as_often_as_published():
    # Llama 3, section 3.3.4: 419 in 54 days on 16384 H100, more than 90 % effective
    run = goodput_of(machine_of("dgx-h100"), 405e9, 16384.0)
    assert 54 * DAY / float(run.mtbf_s) == pytest.approx(419, rel=0.01)
    assert 0.9 < float(run.fraction) < 1.0


def test_modules_of_a_clos_network_fail_as_another_source_says():
    # UB-Mesh, arXiv:2503.20377: 13.8 h for the network of 8192 NPUs. It says nothing of
    # modules; those of CloudMatrix384 come within a few percent.
    machine = machine_of("cloudmatrix384")
    modules = 8192 * 6912 / 384
    network = float(machine.operations.optical_module_mtbf_s) / modules
    assert network == pytest.approx(13.8 * HOUR, rel=0.2)


@pytest.mark.parametrize("name", ["dgx-h100", "cloudmatrix384", "gb200-nvl72"])
def test_more_devices_fail_more_often(name):
    machine = machine_of(name)
    sizes = [1, 2, 4, 8, 9, 16, 17, 64, 72, 73, 768, 769, 4096]
    rates = [float(failures_per_s(machine, float(n))) for n in sizes]
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(rates))
    assert rates[-1] > rates[0]


def test_without_failures_and_checkpoints_nothing_is_lost():
    never = {
        f"system__operations__{of}_mtbf_s": 1e20
        for of in ("package", "host", "optical_module")
    }
    machine = machine_of("dgx-h100", **never)
    assert float(goodput_of(machine, 1e9, 64.0).fraction) == pytest.approx(1.0, abs=1e-6)


# --- Prices


@pytest.mark.parametrize("name", shipped("systems"))
def test_every_machine_has_a_price_of_its_own_with_its_width(name):
    figure = figures_of(read_system_file(name))["operations.package_hour_usd"]
    assert figure.si > 0.0
    assert figure.prior_sigma >= 0.2
    assert figure.source != "practice" or figure.kind == "assumed"


def test_there_is_no_price_for_all():
    prices = {
        figures_of(read_system_file(name))["operations.package_hour_usd"].si
        for name in shipped("systems")
    }
    assert len(prices) > 15


def test_a_token_costs_its_share_of_a_package_hour():
    found = predicted({**DECODE, "system": "cloudmatrix384"})
    per_package = found.tokens_per_s_per_package
    assert found.cost_per_token_usd == pytest.approx(2.5 / HOUR / per_package)
    assert found.tokens_per_s_per_kw * found.energy_per_token_j == pytest.approx(1e3)
    dearer = predicted({**DECODE, "system": "cloudmatrix384"}, **{PRICE: "5 USD"})
    assert dearer.cost_per_token_usd == pytest.approx(2.0 * found.cost_per_token_usd)
    # the width of an assumed price is in that of the cost, one that is set has none
    rate = found.sigma["tokens_per_s"]
    assert found.sigma["cost_per_token_usd"] == pytest.approx(
        math.hypot(0.6, rate), rel=0.02
    )
    assert dearer.sigma["cost_per_token_usd"] == pytest.approx(rate, rel=0.05)


@pytest.mark.slow
def test_requests_pay_for_all_pools():
    found = cmx.predict(cmx.load_scenario("deepseek-r1-serve-cloudmatrix384"))
    devices = sum(pool["devices"] for pool in found.pools.values())
    by_hand = 2.5 * devices / 2 / HOUR / found.tokens_per_s
    assert found.cost_per_token_usd == pytest.approx(by_hand)


def test_the_answer_says_what_its_costs_rest_on(capsys):
    assumed = predicted({**DECODE, "system": "cloudmatrix384"})
    assert f"assumed, change with --set: {PRICE}" in str(assumed)
    listed = predicted({**DECODE, "system": "dgx-h100"})
    assert "crusoe" in str(listed)
    assert PRICE not in str(listed)
    said = listed.to_dict()["operations"][PRICE]
    assert (said["si"], said["kind"], said["source"]) == (3.9, "published", "crusoe")
    given = predicted({**DECODE, "system": "dgx-h100"}, **{PRICE: "3 USD"})
    assert "3 USD a package-hour; set by the user" in str(given)


def own_machine(folder, **operations) -> str:
    """A machine that is like H100 but for its operations."""
    lines = [
        f'{key} = {{ value = {value}, unit = "{unit}", source = "practice",'
        f' locator = "a test", kind = "assumed", sigma = 0 }}'
        for key, (value, unit) in operations.items()
    ]
    path = folder / "mine.toml"
    head = 'base = "cloudmatrix384"\nname = "mine"\ntitle = "mine"\n[operations]\n'
    path.write_text(head + "\n".join(lines), encoding="utf-8")
    return str(path)


def test_without_a_price_there_is_no_cost(tmp_path, capsys):
    mine = own_machine(tmp_path, package_hour_usd=(0, "USD"))
    found = predicted({**DECODE, "system": mine})
    answer = found.to_dict()
    assert answer["cost_per_token_usd"] is None
    assert PRICE not in answer["operations"]
    assert f"set {PRICE}" in str(found)
    path = tmp_path / "job.toml"
    path.write_text(
        f'system = "{mine}"\nmodel = "llama-3.1-8b"\nphase = "decode"\n'
        "layout = { devices = 8, tp = 8 }\n"
        "workload = { sequences_per_device = 8, kv_tokens = 1024 }\n",
        encoding="utf-8",
    )
    asked = ["sensitivity", str(path), "--quantity", "cost_per_token"]
    assert main(asked) == 2
    assert "no price of mine is known" in capsys.readouterr().err


def test_older_names_count_devices(tmp_path):
    figures = load_system(Reference("cloudmatrix384", ((DEVICE_HOUR, "1 USD"),))).figures
    assert figures["operations.package_hour_usd"].si == 2.0
    old = machine_of("cloudmatrix384", **{f"system.{DEVICE_MTBF}": "50000 h"})
    expected = 768 / (50000 * HOUR)
    assert float(failures_per_s(old, 768.0)) == pytest.approx(expected)
    in_file = own_machine(
        tmp_path, device_hour_usd=(1.5, "USD"), device_mtbf_s=(50000, "h")
    )
    figures = load_system(Reference(in_file)).figures
    assert figures["operations.package_hour_usd"].si == 3.0
    assert float(failures_per_s(machine_of(in_file), 768.0)) == pytest.approx(expected)
    # what is set later under the newer name holds
    changed = Reference(in_file, (("operations.package_hour_usd", "4 USD"),))
    assert load_system(changed).figures["operations.package_hour_usd"].si == 4.0


def test_the_price_at_which_two_machines_cost_the_same():
    one = validate_scenario({**DECODE, "system": "cloudmatrix384"}, "test")
    ours = predicted({**DECODE, "system": "cloudmatrix384"})
    target = ours.cost_per_token_usd / 3.0
    found = solve(one, PRICE, f"cost_per_token={target!r}USD/token", "none")
    assert found.values[PRICE] == pytest.approx(2.5 / 3.0)
    old = solve(one, f"system.{DEVICE_HOUR}", "cost_per_token=1USD/Mtokens", "none")
    by_hand = 1e-6 * HOUR * ours.tokens_per_s_per_package
    assert old.values == {PRICE: pytest.approx(by_hand)}


# --- A run


def test_a_run_takes_its_tokens_over_what_is_left_of_the_rate():
    found = predicted(DENSE, workload__tokens=15e12)
    wall = 15e12 / found.tokens_per_s / found.goodput
    assert found.run_time_s == pytest.approx(wall)
    assert found.run_energy_j == pytest.approx(found.power_w * wall)
    assert found.run_cost_usd == pytest.approx(1.95 * 64 * wall / HOUR)
    assert found.run_failures == pytest.approx(wall / found.mtbf_s)
    assert found.run_cost_usd == pytest.approx(15e12 * found.cost_per_token_usd)
    assert found.run_time_s == pytest.approx(15.0 * found.trillion_tokens_time_s)
    for name in ("run_time_s", "run_energy_j", "run_cost_usd", "run_failures"):
        assert found.sigma[name] >= 0.99 * found.sigma["step_time_s"], name
    assert found.sigma["run_cost_usd"] > found.sigma["run_time_s"]
    assert "run_time_s" not in predicted(DENSE).values


def test_failures_have_an_error_bar_of_their_own():
    found = predicted(DENSE)
    # two independent rates with half a sigma each: between those of one and of both
    assert 0.3 < found.sigma["mtbf_s"] < 0.5
    assert 0.0 < found.sigma["goodput"] < 0.05
    assert math.isfinite(found.sigma["checkpoint_interval_s"])


@pytest.mark.parametrize("tokens", [0.0, -1.0, math.nan, math.inf, "15e12", True])
def test_tokens_of_a_run_are_a_positive_number(tokens):
    with pytest.raises(cmx.SpecError, match=r"workload\.tokens"):
        made(DENSE, workload__tokens=tokens)


def test_a_run_without_a_length_is_refused_by_name(tmp_path, capsys):
    assert (
        main(["sensitivity", "gpt-3-175b-train-dgx-a100", "--quantity", "run_cost"]) == 2
    )
    assert "workload.tokens" in capsys.readouterr().err


def test_json_names_the_figures_behind_failures(capsys):
    main(["predict", "gpt-3-175b-train-dgx-a100", "--json"])
    answer = json.loads(capsys.readouterr().out)
    known = answer["operations"]
    assert known["system.operations.package_mtbf_s"]["si"] == 79200 * HOUR
    assert set(answer["sigma"]) >= {"cost_per_token_usd", "goodput", "mtbf_s"}


def test_the_keys_are_listed(capsys):
    main(["keys", "train"])
    assert "workload.tokens" in capsys.readouterr().out
