"""Every test runs in float64, without programs left over from earlier runs."""

from pathlib import Path

import pytest

from cmxjax.settings import setup

setup(cache=False)

import jax  # noqa: E402

import cmxjax.specs.build as builder  # noqa: E402
from cmxjax.specs.scenario import load_scenario  # noqa: E402


@pytest.fixture(scope="session")
def problem():
    """Build a shipped scenario with dotted keys changed, as printed (no calibration)."""

    def make(name: str, **changes):
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return builder.build(load_scenario(name, dotted), "none")

    return make


NEVER = (
    "test_relatives.py::test_what_was_never_measured_is_less_certain_than_its_relatives"
)
OFF = "test_collectives.py::test_gradients_are_finite_where_algorithms_are_switched_off"
LONGEST = (
    "test_serve.py::test_gradients_equal_finite_differences[None]",
    "test_serve.py::test_cached_prefixes_save_time_and_a_cache_pool_is_faster",
    "test_closed_loop.py::test_the_rate_moves_with_the_clients",
    "test_gradients.py::test_gradient_equals_finite_differences[layout-mla-decode-4.0]",
    "test_gradients.py::test_every_leaf_has_a_finite_gradient[time-mla-decode-1.0]",
    "test_gradients.py::test_every_leaf_has_a_finite_gradient[time-mla-prefill-None]",
    "optimization/test_codesign.py::test_matching_needs_the_change_that_a_grid_finds",
    "optimization/test_search.py::test_the_schedule_is_chosen_with_the_layout",
    "optimization/test_search.py::test_a_single_stage_has_one_chunk[4-tried0]",
    "optimization/test_search.py::test_dualpipe_has_two_micro_batches_for_each_stage",
    "test_layers.py::test_gradients_go_through_all_kinds[train]",
    "test_scaling.py::test_relaxed_elasticities_sum_to_one_too[1.0-mla-decode]",
    "test_front_door.py::test_comparisons_and_validations_are_frames",
    "test_monotonic.py::test_weighed_overlap_is_no_slower_than_either_choice[gqa-decode]",
    "test_vision.py::test_gradients_are_finite_and_those_of_differences",
    "test_vision.py::test_parts_of_a_request_sum_to_it",
    "test_switches.py::test_gradients_are_finite_whatever_is_switched[train]",
    "test_compose.py::test_shares_sum_to_the_step_with_nothing_left_over[mixture-train]",
    "test_compose.py::test_a_step_is_homogeneous_of_degree_one",
    "test_trace.py::test_a_trace_is_as_long_as_the_predicted_step[mixture]",
    "test_phases.py::test_a_slower_host_adds_its_time_and_changes_no_other_share[mla-p",
    "test_stack.py::test_eight_machines_by_a_thousand_layouts_are_one_call",
    "test_parameters.py::test_every_leaf_of_a_system_can_be_set_by_its_path",
    "test_pipeline.py::test_very_uneven_stages_of_dualpipe_agree_on_average",
    "test_pipeline.py::test_dualpipe_takes_no_less_than_its_outermost_device_works[1.0",
    "test_expert_exchange.py::test_one_rank_takes_no_time_and_has_finite_gradients",
    f"{NEVER}[a100",
    f"{NEVER}[ascend-9",
    f"{NEVER}[atlas-3",
    f"{NEVER}[atlas-9",
    f"{NEVER}[gaudi",
    f"{NEVER}[gb300",
    f"{NEVER}[hgx",
    f"{NEVER}[mi325",
    f"{NEVER}[mi355",
    f"{NEVER}[rtx",
    f"{NEVER}[tpu-v6",
    f"{NEVER}[tpu-v7",
    f"{OFF}[all_gather-8.0",
    f"{OFF}[broadcast-8.0",
    f"{OFF}[reduce_scatter-8.0",
    f"{OFF}[all_to_all-8.0",
)
"""What begins so takes the longest, beside tests that say much the same: it runs with
`make test-all`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(LONGEST):
            item.add_marker(pytest.mark.slow)


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Forget compiled programs before their memory maps reach the system's limit."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
