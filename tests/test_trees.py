"""What JAX sees of the package's classes."""

import dataclasses
import importlib
import itertools
import pkgutil

import jax
import numpy as np
import pytest
from flax import struct

import cmxjax
from cmxjax.specs.files import shipped

SKIPPED = {"cmxjax.__main__"}  # importing it runs the command line


def node_classes():
    """Every tree class of the package, all modules imported."""
    for module in pkgutil.walk_packages(cmxjax.__path__, "cmxjax."):
        if module.name not in SKIPPED:
            importlib.import_module(module.name)
    classes = struct.PyTreeNode.__subclasses__()
    return [c for c in classes if c.__module__.startswith("cmxjax.")]


def skeleton(cls):
    """An instance with a number in every leaf and nothing in every static field.

    Static fields with a default, such as `kind`, keep it; the others could be equal in
    two classes, so they are.
    """
    made = object.__new__(cls)  # around the checks of the fields' types
    for field in dataclasses.fields(cls):
        value = field.default
        if field.metadata.get("pytree_node", True):
            value = 0.0
        elif value is dataclasses.MISSING:
            value = ""
        object.__setattr__(made, field.name, value)
    return made


def test_no_two_node_classes_share_a_tree_structure():
    ours = node_classes()
    assert len(ours) >= 20
    for a, b in itertools.combinations(ours, 2):
        same = jax.tree.structure(skeleton(a)) == jax.tree.structure(skeleton(b))
        assert not same, f"give {a.__name__} and {b.__name__} different `kind`s"


def test_every_node_class_has_a_kind_of_its_own():
    kinds = [skeleton(cls).kind for cls in node_classes()]
    assert len(set(kinds)) == len(kinds)


def test_a_kind_is_not_a_leaf():
    for cls in node_classes():
        assert all(leaf == 0.0 for leaf in jax.tree.leaves(skeleton(cls)))


SCENARIOS = shipped("scenarios")


def trees(p):
    return p.system, *p.inputs, p.theta


@pytest.mark.parametrize("name", SCENARIOS)
def test_leaves_of_a_problem_are_finite_floating_arrays(problem, name):
    leaves = jax.tree_util.tree_leaves_with_path(trees(problem(name)))
    assert len(leaves) > 100
    for path, leaf in leaves:
        where = jax.tree_util.keystr(path)
        assert isinstance(leaf, jax.Array), where
        assert np.issubdtype(leaf.dtype, np.floating), where
        assert leaf.size > 0, where
        assert np.isfinite(leaf).all(), where


@pytest.mark.parametrize("name", SCENARIOS)
def test_leaves_of_a_problem_are_strongly_typed_doubles(problem, name):
    # a weakly typed leaf costs a second trace
    for leaf in jax.tree.leaves(trees(problem(name))):
        assert leaf.dtype == np.float64
        assert not leaf.weak_type


@pytest.mark.parametrize("name", SCENARIOS)
def test_static_parts_of_a_problem_can_be_hashed(problem, name):
    # or else it could not be an argument of a compiled function
    assert isinstance(hash(jax.tree.structure(trees(problem(name)))), int)


def test_problems_that_differ_in_numbers_share_a_structure(problem):
    name = "deepseek-r1-decode-cloudmatrix384"
    one, other = problem(name), problem(name, workload__kv_tokens=8192)
    assert jax.tree.structure(trees(one)) == jax.tree.structure(trees(other))


def test_problems_that_differ_in_a_format_or_a_setting_do_too(problem):
    name = "deepseek-r1-decode-cloudmatrix384"
    one = problem(name)
    for change in ({"dtypes__kv": "int8"}, {"routing__balance": "uniform"}):
        other = problem(name, **change)
        assert jax.tree.structure(trees(one)) == jax.tree.structure(trees(other))
