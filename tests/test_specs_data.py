"""The files that ship: sources, units, and totals that come out of the components."""

import functools
import json
import os
import re
import tomllib
from pathlib import Path

import pytest

import cmxjax.specs
from cmxjax.answers.predict import predict
from cmxjax.cli import main
from cmxjax.phases.metrics import metrics
from cmxjax.report.systems import COLUMNS, system_row
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.figures import check_figure
from cmxjax.specs.files import DATA, aliases, canonical, missing, shipped
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.related import warning_of
from cmxjax.specs.scenario import load_scenario, validate_scenario
from cmxjax.specs.system_file import figures_of
from cmxjax.specs.system_load import Reference, load_system, read_system_file
from cmxjax.units import UNITS, dimension_of

SYSTEMS = shipped("systems")
MEASUREMENTS = shipped("measurements")
FILES = sorted(Path(str(DATA)).rglob("*.toml"))
ALTERNATIVES = [
    (name, chosen) for name in SYSTEMS for chosen in read_system_file(name).alternatives
]
EXACT = 1e-12
"""Totals are products of the printed figures, so they agree to rounding."""


@functools.cache
def totals(system: str, dtype: str = "bf16", alternatives: str | None = None):
    named = {"base": system, "alternatives": alternatives} if alternatives else system
    raw = {"phase": "system", "system": named, "dtypes": {"activation": dtype}}
    p = build(validate_scenario(raw, "test"), "none")
    return metrics(*p.inputs)


def per_package(system: str, field: str, **options) -> float:
    m = totals(system, **options)
    return float(getattr(m, field) / m.packages)


def figures_in(node):
    """Every table of a TOML file that looks like a figure."""
    if isinstance(node, dict):
        if "value" in node and "kind" in node:
            yield node
        for item in node.values():
            yield from figures_in(item)
    elif isinstance(node, list):
        for item in node:
            yield from figures_in(item)


def test_files_ship_in_every_group():
    for group in ("systems", "models", "measurements", "scenarios"):
        assert shipped(group), group


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_validates_and_builds(name):
    loaded = load_system(Reference(name))
    assert loaded.system.name == name
    assert loaded.title
    assert loaded.system.scale_up_tier in loaded.system.tier_order


@pytest.mark.parametrize("name", shipped("scenarios"))
def test_every_scenario_validates_and_builds(name):
    problem = build(load_scenario(name), "none")
    assert problem.scenario.phase in ("decode", "prefill", "train", "serve")
    assert problem.model is not None


LONG = ("serving-b200", "serving-h100", "serving-h200")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LONG))
        for name in MEASUREMENTS
    ],
)
def test_every_measurement_validates_and_builds(name):
    for row in load_measurements(name):
        assert build(row.scenario, "none").system.name
        assert row.below is None or build(row.below, "none").system.name
        assert 0.0 < row.relative_sigma < 1.0


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_source_of_a_system_file_is_used(name):
    file = read_system_file(name)
    sets = [alternative.set for alternative in file.alternatives.values()]
    used = [figure for found in (figures_of(file), *sets) for figure in found.values()]
    assert set(file.sources) - {"practice"} <= {figure.source for figure in used}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_figure_says_its_unit_source_locator_and_kind(name):
    file = read_system_file(name)
    for path, figure in figures_of(file).items():
        assert figure.unit in UNITS, path
        assert figure.source in file.sources, path
        assert figure.locator.strip(), path
        assert figure.kind in ("published", "derived", "assumed"), path


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_unit_contradicts_its_leaf(name):
    for path, figure in figures_of(read_system_file(name)).items():
        assert UNITS[figure.unit].dimension == dimension_of(path), path
        assert check_figure(path, figure) is None, path


@pytest.mark.parametrize("name", SYSTEMS)
def test_only_assumed_figures_rest_on_practice_or_on_relatives(name):
    for path, figure in figures_of(read_system_file(name)).items():
        if figure.source in ("practice", "relatives"):
            assert figure.kind == "assumed", path


def test_every_default_is_an_assumption_with_its_width():
    defaults = tomllib.loads((DATA / "defaults.toml").read_text("utf-8"))
    for figure in figures_in(defaults):
        assert figure["kind"] == "assumed"
        assert "sigma" in figure


@pytest.mark.parametrize("name", SYSTEMS)
def test_usable_memory_is_not_more_than_what_is_fitted(name):
    chip = load_system(Reference(name)).system.chip
    assert 0.9 * chip.memory_bytes <= chip.memory_usable_bytes <= chip.memory_bytes


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_network_draws_less_than_the_whole_system(name):
    power = load_system(Reference(name)).system.power
    assert 0.0 <= power.network_w < power.all_in_w


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_mentions_a_path_of_somebodys_machine(path):
    local = r"/(home|root|tmp|work|Users|mnt)/|\b[A-Z]:\\|file://"
    assert not re.search(local, path.read_text("utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_source_has_a_title_and_a_full_address_if_any(path):
    for name, source in tomllib.loads(path.read_text("utf-8")).get("sources", {}).items():
        assert source["title"].strip(), name
        assert re.match(r"https?://\S+$|$", source.get("url", "")), name


def test_all_files_ship_inside_the_package():
    package = Path(cmxjax.specs.__file__).parent
    assert all(package in path.parents for path in FILES)
    assert len(FILES) > 30


def test_systems_that_are_not_announced_say_so():
    marked = [name for name in SYSTEMS if read_system_file(name).hypothetical]
    assert marked == ["ascend-910d", "ascend-920"]
    for name in marked:
        assert "hypothetical" in read_system_file(name).title


def test_announced_systems_say_so():
    marked = {name for name in SYSTEMS if read_system_file(name).announced}
    assert marked == {"ascend-950pr", "ascend-950dt", "ascend-970", "atlas-350"} | {
        "atlas-950-superpod",
        "atlas-960-superpod",
        "vera-rubin-nvl72",
    }
    for name in marked:
        assert "(announced)" in read_system_file(name).title
        assert "announced" in warning_of(read_system_file(name))
    assert warning_of(read_system_file("hgx-b200")) == ""


@pytest.mark.parametrize("name", ["ascend-910d", "ascend-920"])
def test_hypothetical_hardware_is_mostly_assumed_and_never_certain(name):
    file = read_system_file(name)
    chip = [f for path, f in figures_of(file).items() if path.startswith("chip.matrix")]
    assert all(figure.prior_sigma >= 0.2 for figure in chip)
    leaves = list(figures_of(file).values())
    assert sum(figure.kind == "assumed" for figure in leaves) > 0.9 * len(leaves)


# --- Ascend 910C: a package of two dies


def test_a_910c_package_computes_752_tflops_in_bf16():
    got = per_package("cloudmatrix384", "peak_flop_per_s")
    assert got == pytest.approx(752e12, rel=EXACT)


def test_a_910c_package_computes_1504_tops_in_int8():
    got = per_package("cloudmatrix384", "peak_flop_per_s", dtype="int8")
    assert got == pytest.approx(1504e12, rel=EXACT)


def test_a_910c_package_holds_128_gb():
    got = per_package("cloudmatrix384", "memory_bytes")
    assert got == pytest.approx(128e9, rel=EXACT)


def test_a_910c_package_reads_3200_gb_per_second():
    got = per_package("cloudmatrix384", "memory_bandwidth_bytes_per_s")
    assert got == pytest.approx(3.2e12, rel=EXACT)


def test_a_910c_package_sends_392_gb_per_second_each_way():
    got = per_package("cloudmatrix384", "fabric_bandwidth_bytes_per_s")
    assert got == pytest.approx(2 * 392e9, rel=EXACT)


def test_the_unified_bus_port_of_a_die_is_seven_lanes_of_224_gbit():
    tier = load_system(Reference("cloudmatrix384")).system.tiers["supernode"]
    assert float(tier.bytes_per_s) == pytest.approx(7 * 224e9 / 8, rel=EXACT)


def test_a_910c_die_has_24_cube_cores():
    chip = load_system(Reference("cloudmatrix384")).system.chip
    assert float(chip.matrix_cores) == 24.0


# --- CloudMatrix384: 384 packages


def test_cloudmatrix384_joins_384_packages_of_two_dies():
    m = totals("cloudmatrix384")
    assert float(m.packages) == 384.0
    assert float(m.devices) == 768.0


def test_cloudmatrix384_holds_49_152_tb():
    assert float(totals("cloudmatrix384").memory_bytes) == pytest.approx(
        49.152e12, rel=EXACT
    )


def test_cloudmatrix384_reads_1228_8_tb_per_second():
    got = float(totals("cloudmatrix384").memory_bandwidth_bytes_per_s)
    assert got == pytest.approx(1228.8e12, rel=EXACT)


def test_cloudmatrix384_computes_288_8_pflops_with_752_per_package():
    got = float(totals("cloudmatrix384").peak_flop_per_s)
    assert got == pytest.approx(384 * 752e12, rel=EXACT)
    assert got == pytest.approx(288.8e15, rel=5e-4)  # printed to four digits


def test_the_press_total_of_300_pflops_needs_780_per_package():
    m = totals("cloudmatrix384", alternatives="semianalysis")
    assert float(m.peak_flop_per_s / m.packages) == pytest.approx(780e12, rel=EXACT)
    assert float(m.peak_flop_per_s) == pytest.approx(299.52e15, rel=EXACT)


def test_the_press_total_of_269_tb_per_second_needs_seven_400_gbit_modules():
    m = totals("cloudmatrix384", alternatives="semianalysis")
    got = float(m.fabric_bandwidth_bytes_per_s)
    assert got == pytest.approx(384 * 2 * 7 * 400e9 / 8, rel=EXACT)
    assert round(got / 1e12) == 269


def test_the_keynote_rounds_fp16_to_800_tflops_per_package():
    got = per_package(
        "cloudmatrix384", "peak_flop_per_s", dtype="fp16", alternatives="keynote"
    )
    assert got == pytest.approx(800e12, rel=EXACT)


def test_the_planning_simulator_has_707_8_tflops_per_package_in_bf16():
    got = per_package("cloudmatrix384", "peak_flop_per_s", alternatives="msmodeling")
    assert got == pytest.approx(707.8e12, rel=EXACT)


def test_cloudmatrix384_draws_559378_w_all_in():
    assert float(totals("cloudmatrix384").power_w) == 559_378.0


def test_the_revised_power_is_4_1_times_that_of_nvl72():
    revised = totals("cloudmatrix384", alternatives="semianalysis-revised").power_w
    assert float(revised) == 600e3
    ratio = float(revised / totals("gb200-nvl72").power_w)
    assert ratio == pytest.approx(4.1, abs=0.05)


def test_cloudmatrix384_has_6912_optical_modules():
    # 384 x 7 x 2 scale-up and 384 x 4 scale-out modules
    assert float(totals("cloudmatrix384").optical_modules) == 384 * 14 + 384 * 4


def test_cloudmatrix384_has_192_cpus_and_448_switch_chips():
    m = totals("cloudmatrix384")
    assert float(m.cpus) == 192.0
    assert float(m.switches) == 48 * 7 + 7 * 16


def test_a_cluster_of_cloudmatrix384_scales_to_165_thousand_packages():
    tiers = load_system(Reference("cloudmatrix384")).system.tiers
    packages = tiers["node"].size * tiers["supernode"].size * tiers["cluster"].size
    assert float(packages) == pytest.approx(165e3, rel=5e-3)  # printed to three digits


# --- GB200 NVL72


def test_nvl72_joins_72_gpus():
    m = totals("gb200-nvl72")
    assert float(m.packages) == float(m.devices) == 72.0


@pytest.mark.parametrize(
    ("dtype", "pflops"), [("bf16", 180.0), ("fp8", 360.0), ("fp4", 720.0)]
)
def test_nvl72_computes_its_published_dense_peak(dtype, pflops):
    got = float(totals("gb200-nvl72", dtype=dtype).peak_flop_per_s)
    assert got == pytest.approx(pflops * 1e15, rel=EXACT)


def test_nvl72_holds_13_824_tb_of_which_13_4_are_usable():
    m = totals("gb200-nvl72")
    assert float(m.memory_bytes) == pytest.approx(13.824e12, rel=EXACT)
    assert float(m.memory_usable_bytes) == pytest.approx(72 * 186e9, rel=EXACT)


def test_nvl72_reads_576_tb_per_second():
    got = float(totals("gb200-nvl72").memory_bandwidth_bytes_per_s)
    assert got == pytest.approx(576e12, rel=EXACT)


def test_nvl72_moves_130_tb_per_second_over_nvlink():
    got = float(totals("gb200-nvl72").fabric_bandwidth_bytes_per_s)
    assert got == pytest.approx(72 * 1.8e12, rel=EXACT)
    assert round(got / 1e12) == 130


def test_nvl72_draws_145_kw_all_in():
    assert float(totals("gb200-nvl72").power_w) == 145e3


# --- The others, against their data sheets


@pytest.mark.parametrize(
    ("name", "dtype", "peak", "memory", "memory_rate", "link_rate"),
    [
        ("dgx-a100-80g", "bf16", 312e12, 80e9, 2.039e12, 300e9),
        ("dgx-h100", "bf16", 989.4e12, 80e9, 3.35e12, 450e9),
        ("dgx-h100", "fp8", 1978.9e12, 80e9, 3.35e12, 450e9),
        ("hgx-h200", "bf16", 989.5e12, 141e9, 4.8e12, 450e9),
        ("hgx-h800", "fp8", 1978.9e12, 80e9, 3.35e12, 200e9),
        ("hgx-h20", "bf16", 148e12, 96e9, 4.0e12, 450e9),
        ("atlas-800-a2", "bf16", 353.9e12, 64e9, 1.6e12, 196e9),
        ("atlas-800-a2", "int8", 752e12, 64e9, 1.6e12, 196e9),
        ("atlas-800-a3", "int8", 752e12, 64e9, 1.6e12, 196e9),
        ("hgx-b200", "fp4", 9e15, 180e9, 8e12, 900e9),
        ("hgx-b300", "fp4", 13.5e15, 288e9, 8e12, 900e9),
        ("gb300-nvl72", "fp4", 15e15, 288e9, 8e12, 900e9),
        ("gb300-nvl72", "bf16", 2.5e15, 288e9, 8e12, 900e9),
        ("vera-rubin-nvl72", "fp8", 17.5e15, 288e9, 22e12, 1.8e12),
        ("gh200", "bf16", 989e12, 141e9, 4.8e12, 450e9),
        ("hgx-h20-3e", "fp8", 296e12, 141e9, 4.8e12, 450e9),
        ("a100-pcie-8", "bf16", 312e12, 80e9, 1.935e12, 32e9),
        ("rtx-pro-6000-8", "fp4", 1871.2e12, 102.6e9, 1.792e12, 64e9),
        ("mi300x-8", "fp8", 2615e12, 192e9, 5.3e12, 448e9),
        ("mi325x-8", "fp8", 2615e12, 256e9, 6e12, 448e9),
        ("mi355x-8", "fp4", 10066e12, 288e9, 8e12, 535.5e9),
        ("gaudi-3-8", "fp8", 1677e12, 128e9, 3.7e12, 525e9),
        ("tpu-v5p", "bf16", 459e12, 95 * 2**30, 2.765e12, 600e9),
        ("tpu-v6e", "bf16", 918e12, 32 * 2**30, 1.638e12, 400e9),
        ("tpu-v7x", "fp8", 4614e12, 192 * 2**30, 8e12, 600e9),
        ("ascend-950dt", "fp4", 1783e12, 96e9, 4e12, 840e9),
        ("ascend-950pr", "fp8", 1e15, 128e9, 1.6e12, 1e12),
        ("ascend-970", "fp4", 8e15, 288e9, 14.4e12, 2e12),
    ],
)
def test_a_device_has_its_published_dense_rates(
    name, dtype, peak, memory, memory_rate, link_rate
):
    m = totals(name, dtype=dtype)
    got = [m.peak_flop_per_s, m.memory_bytes, m.memory_bandwidth_bytes_per_s]
    got = [float(x / m.devices) for x in (*got, m.fabric_bandwidth_bytes_per_s / 2)]
    assert got == pytest.approx([peak, memory, memory_rate, link_rate], rel=EXACT)


@pytest.mark.parametrize(
    ("name", "devices", "dtype", "peak", "links"),
    [
        ("atlas-950-superpod", 8192, "fp8", 8e18, 16.3e15),
        ("atlas-960-superpod", 15488, "fp4", 60e18, 34e15),
        ("gb300-nvl72", 72, "fp4", 1.08e18, 130e12),
        ("vera-rubin-nvl72", 72, "fp4", 2.52e18, 260e12),
        ("tpu-v6e", 256, "bf16", 235e15, None),
        ("tpu-v7x", 9216, "fp8", 42.5e18, None),
    ],
)
def test_totals_announced_for_whole_machines_follow(name, devices, dtype, peak, links):
    m = totals(name, dtype=dtype)
    assert float(m.devices) == devices
    assert float(m.peak_flop_per_s) == pytest.approx(peak, rel=0.04)  # printed rounded
    if links is not None:
        got = float(m.fabric_bandwidth_bytes_per_s)
        assert got == pytest.approx(links, rel=0.01)


def test_the_bins_of_a3_and_the_memory_of_atlas_950():
    upper = totals("atlas-800-a3")
    lower = totals("atlas-800-a3", alternatives="bin-560", dtype="fp16")
    assert float(upper.peak_flop_per_s / upper.packages) == pytest.approx(752e12)
    assert float(lower.peak_flop_per_s / lower.packages) == pytest.approx(560e12)
    announced = float(totals("atlas-950-superpod").memory_bytes)
    assert announced == pytest.approx(1152e12, rel=0.03)  # 1,024 GB a TB
    page = totals("atlas-950-superpod", dtype="fp8", alternatives="product-page")
    assert float(page.devices) == 1024
    assert float(page.peak_flop_per_s) == pytest.approx(1e18, rel=0.06)


# --- Bases and names


def test_a_base_gives_what_a_file_leaves_out():
    base, own = read_system_file("mi300x-8"), read_system_file("mi355x-8")
    assert own.engines == base.engines
    assert own.tiers[0].mesh
    assert own.tiers[0].size == base.tiers[0].size
    assert own.tiers[0].bytes_per_s.si == pytest.approx(535.5e9)
    assert read_system_file("gb300-nvl72").relatives[0] == "gb200-nvl72"
    assert own.alternatives.keys() == {"inferencex-links"}
    assert "fp4" not in base.chip.matrix_flop_per_s
    assert read_system_file("a100-pcie-8").fabrics == {}
    assert "bloom" not in read_system_file("a100-pcie-8").sources


@pytest.mark.parametrize(
    ("base", "message"), [("h1000", "base: system = 'h1000'"), ("loop", "in a row")]
)
def test_a_wrong_base_is_named(tmp_path, base, message):
    path = tmp_path / "own.toml"
    base = str(path) if base == "loop" else base
    path.write_text(f'base = "{base}"\nname = "own"\ntitle = "Own"\n')
    with pytest.raises(SpecError, match=re.escape(message)):
        read_system_file(str(path))


def test_a_users_machine_may_be_a_shipped_one_but_for_a_figure(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'base = "b200"\nname = "own"\ntitle = "Own"\n'
        'sources.me.title = "Mine"\n[chip]\n'
        'memory_bytes = { value = 200, unit = "GB", source = "me", locator = "p. 1",'
        ' kind = "published" }\n'
    )
    chip = load_system(Reference(str(path))).system.chip
    assert float(chip.memory_bytes) == float(chip.memory_usable_bytes) == 200e9
    assert float(chip.matrix_flop_per_s["fp8"]) == 4.5e15


def test_a_machine_changes_when_one_that_it_builds_on_does(tmp_path):
    below, above, top = (tmp_path / f"{name}.toml" for name in ("below", "above", "top"))
    of = {below: "b200", above: below, top: above}
    for path, base in of.items():
        path.write_text(f'base = "{base}"\nname = "{path.stem}"\ntitle = "Own"\n')

    def memory() -> float:
        return float(load_system(Reference(str(top))).system.chip.memory_bytes)

    assert memory() == load_system(Reference("b200")).system.chip.memory_bytes
    below.write_text(below.read_text().replace("b200", "h100"))
    os.utime(below, (1, 1))  # whatever the clock of the file system
    assert memory() == load_system(Reference("h100")).system.chip.memory_bytes
    below.unlink()
    with pytest.raises(SpecError, match="below.toml: no such file"):
        memory()


def test_names_of_users_lead_to_machines_that_ship():
    known = aliases("systems")
    assert not known.keys() & set(SYSTEMS)
    assert set(known.values()) <= set(SYSTEMS)
    for name in ("h100", "b200", "gb300", "mi300x", "910b", "910c", "rubin", "h20"):
        assert load_system(Reference(name)).system.name == known[name]
    assert canonical("systems", "MI300X") == "mi300x-8"
    assert canonical("systems", "HGX_B300") == "hgx-b300"
    assert "did you mean mi300x" in (missing("systems", "mi300") or "")


# --- The two side by side


@pytest.mark.parametrize(
    ("field", "ratio"),
    [
        ("memory_bytes", 49.152 / 13.824),  # 3.556, printed as 3.6
        ("memory_bandwidth_bytes_per_s", 1228.8 / 576),  # 2.133, printed as 2.1
        ("power_w", 559_378 / 145_000),  # 3.858, printed as 3.9
        ("peak_flop_per_s", 384 * 752 / 180e3),  # 1.604; 1.66 needs 780 per package
        ("power_per_memory", 559_378 / 49.152 / (145_000 / 13.824)),  # 1.1
        ("power_per_memory_bandwidth", 559_378 / 1228.8 / (145_000 / 576)),  # 1.8
    ],
)
def test_the_ratio_to_nvl72_follows_from_the_components(field, ratio):
    got = getattr(totals("cloudmatrix384"), field) / getattr(totals("gb200-nvl72"), field)
    assert float(got) == pytest.approx(ratio, rel=EXACT)


def test_the_published_compute_ratio_of_1_66_comes_with_the_press_alternative():
    ours = totals("cloudmatrix384", alternatives="semianalysis").peak_flop_per_s
    ratio = float(ours / totals("gb200-nvl72").peak_flop_per_s)
    assert ratio == pytest.approx(1.664, rel=EXACT)


# --- Alternatives


@pytest.mark.parametrize(("name", "chosen"), ALTERNATIVES)
def test_an_alternative_replaces_its_leaves_and_no_others(name, chosen):
    default = load_system(Reference(name)).figures
    other = load_system(Reference(name, (("alternatives", chosen),))).figures
    changed = {path for path in default if other[path] != default[path]}
    named = read_system_file(name).alternatives[chosen].set
    assert default.keys() == other.keys()
    if "chip.memory_bytes" in named:  # what is usable follows where nothing is stated
        changed.discard("chip.memory_usable_bytes")
    assert changed == {path for path in named if named[path] != default[path]}
    assert changed


@pytest.mark.parametrize(("name", "chosen"), ALTERNATIVES)
def test_an_alternative_says_where_it_comes_from(name, chosen):
    file = read_system_file(name)
    assert file.alternatives[chosen].note
    for path, figure in file.alternatives[chosen].set.items():
        assert figure.source in file.sources, path
        assert check_figure(path, figure) is None, path


@pytest.mark.parametrize("name", SYSTEMS)
def test_totals_are_positive_and_count_whole_packages(name):
    m = totals(name)
    assert float(m.packages) == round(float(m.packages)) > 0
    assert float(m.peak_flop_per_s) > 1e15
    assert float(m.memory_bytes) > 1e11
    assert float(m.power_w) > 1e3


def test_every_listed_source_is_used():
    for name in shipped("measurements"):
        text = (DATA / "measurements" / f"{name}.toml").read_text("utf-8")
        raw = tomllib.loads(text)
        used = {row["source"] for row in raw["measurements"]}
        assert used == set(raw["sources"]), name


# --- What the documentation says


def test_the_table_of_machines_is_that_of_the_files():
    text = (Path(__file__).parents[1] / "docs" / "machines.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [COLUMNS, *map(system_row, SYSTEMS)]
    assert lines == [f"| {' | '.join(row)} |" for row in rows]


def test_commands_tell_what_is_only_announced(capsys):
    assert main(["list", "systems"]) == 0
    listed = capsys.readouterr().out
    assert "announced" in listed
    assert "data sheet" in listed
    assert main(["show", "rubin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "announced"
    scenario = {"phase": "system", "system": "rubin"}
    found = predict(validate_scenario(scenario, "test"))
    assert "vera-rubin-nvl72 is announced" in str(found)
    assert found.as_json()["warnings"] == found.warnings
    assert main(["compare", "h100", "rubin"]) == 0
    assert "vera-rubin-nvl72 is announced" in capsys.readouterr().out
    calm = predict(validate_scenario(scenario | {"system": "h100"}, "test"))
    assert "warnings" not in calm.as_json()
