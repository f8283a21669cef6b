"""Pictures of sweeps show the rows' own numbers, and nothing that can't run."""

import json

import numpy as np
import pandas as pd
import pytest
from small_sweeps import GEMM

import cmxjax as cmx
from cmxjax.cli.main import main
from cmxjax.report import pictures, sweep_picture
from cmxjax.report.chart import Subject, chart_of, subject_read
from cmxjax.report.front import draw_over
from cmxjax.report.heat import draw_map
from cmxjax.report.points import front_rows, points_of
from cmxjax.report.sweep_picture import Wish, figure_of
from cmxjax.specs.errors import SpecError

SMALL = GEMM | {
    "axes": [
        {"key": "op.dtype", "values": ["bf16", "fp8"]},
        {"key": "op.m", "values": [1, 64, 300, 8192]},
        {"key": "op.n", "values": [512, 4096, 5120]},
    ],
    "keep": {},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return cmx.sweep(SMALL, tmp_path_factory.mktemp("sweeps") / "small")


@pytest.fixture(autouse=True)
def closed():
    """No figure is left open."""
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def nondominated(x, y):
    """Pairs that no other beats in both: less of x, more of y."""
    pairs = list(zip(x, y))

    def beaten(one):
        return any(a <= one[0] and b >= one[1] and (a, b) != one for a, b in pairs)

    return {pair for pair in pairs if not beaten(pair)}


def line_of(axes, label):
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def dots_of(axes):
    return np.concatenate(
        [c.get_offsets() for c in axes.collections if c.get_sizes().size]
    )


def test_the_front_is_what_nothing_beats_with_the_bars_of_its_rows(swept):
    frame = swept.to_frame()
    axes = figure_of(swept.folder, Wish()).axes[0]
    times, rates = frame["time_s"] * 1e6, frame["flop_per_s"] / 1e12
    line = line_of(axes, "front")
    x, y = line.get_xdata(), line.get_ydata()
    expected = nondominated(frame["time_s"], frame["flop_per_s"])
    np.testing.assert_allclose(
        sorted(zip(x, y)), sorted((a * 1e6, b / 1e12) for a, b in expected), rtol=1e-12
    )
    assert line.get_drawstyle() == "steps-post"
    assert axes.get_xlabel() == "time, us"
    assert axes.get_ylabel() == "FLOP rate, TFLOP/s"
    assert "op on dgx-h100" in axes.get_title()
    (band,) = [c for c in axes.collections if c.get_label().startswith("one sigma")]
    heights = {round(v, 9) for v in band.get_paths()[0].vertices[:, 1].tolist()}
    at = {rate: sigma for rate, sigma in zip(rates, frame["sigma.flop_per_s"])}
    for value in y:
        assert round(value * (1.0 + at[value]), 9) in heights
        assert round(value * (1.0 - at[value]), 9) in heights
    np.testing.assert_allclose(
        sorted(map(tuple, dots_of(axes))), sorted(zip(times, rates)), rtol=1e-12
    )


def test_a_map_has_the_best_of_each_cell(swept):
    frame = swept.to_frame()
    wish = Wish("map", "utilization", ("op.m", "op.n"))
    axes = figure_of(swept.folder, wish).axes[0]
    cells = axes.images[0].get_array()
    for i, n in enumerate([512, 4096, 5120]):
        for j, m in enumerate([1, 64, 300, 8192]):
            own = frame[(frame["op.m"] == m) & (frame["op.n"] == n)]
            best = own.loc[own["utilization"].idxmax()]
            assert cells[i, j] == best["utilization"]
            (text,) = [t for t in axes.texts if t.get_position() == (j, i)]
            assert text.get_text().endswith(f"±{best['sigma.utilization']:.1%}")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "64", "300", "8,192"]
    (frame_of_best,) = axes.patches
    assert frame_of_best.get_xy() == tuple(
        np.unravel_index(np.argmax(cells.T), cells.T.shape) - np.array(0.5)
    )


def test_rows_read_back_without_bars_get_them_from_their_plan(tmp_path):
    bare = cmx.sweep(SMALL | {"keep": {"sigma": False}}, tmp_path / "bare")
    labels = lambda figure: figure.axes[0].get_legend_handles_labels()[1]  # noqa: E731
    without = figure_of(bare.folder, Wish())
    assert "one sigma" not in " ".join(labels(without))
    assert "no error bars were kept" in without._supxlabel.get_text()
    assert "one sigma of FLOP rate" in labels(figure_of(bare.folder, Wish(), bare.plan))


RATES, COSTS = [1.0, 2.0, 4.0, 8.0], [9e-6, 5e-6, 6e-6, 2e-6]


def made(columns, *, axes, metrics, phase="decode", keep=None) -> tuple[Subject, dict]:
    """A sweep by hand, and what became of its points."""
    origin = {
        "sweep": {"scenario": "some", "axes": axes, "keep": keep or {}},
        "scenario": {"system": "dgx-h100", "model": "llama-3.1-8b", "phase": phase},
    }
    count = len(next(iter(columns.values())))
    counts = {"points": count, "infeasible": 0, "refused": 0, "kept": count}
    return subject_read(origin, [*columns, "point", "feasible", *metrics]), counts


def framed(columns, **more):
    count = len(next(iter(columns.values())))
    beside = {"point": range(count), "feasible": [True] * count}
    return pd.DataFrame(beside | columns | more)


AXES = [
    {"key": "workload.request_rate", "values": [1, 2, 4, 8]},
    {"key": "system", "values": ["dgx-h100", "hgx-h20"]},
]


def test_cost_is_drawn_over_the_rate_for_each_machine():
    columns = {
        "workload.request_rate": [*RATES, *RATES, 1.0],
        "system": ["dgx-h100"] * 4 + ["hgx-h20"] * 4 + ["dgx-h100"],
        "cost_per_token_usd": [*COSTS, *(2.0 * x for x in COSTS), 8e-6],
        "sigma.cost_per_token_usd": [0.25] * 9,
    }
    metrics = ["cost_per_token_usd"]
    subject, counts = made(columns, axes=AXES, metrics=metrics, phase="serve")
    chart = chart_of(subject, "cost")
    axes = draw_over(
        points_of(framed(columns), subject, chart, counts), subject, chart
    ).axes[0]
    line = line_of(axes, "system dgx-h100")
    assert line.get_xdata().tolist() == RATES
    assert line.get_ydata() == pytest.approx([8.0, 5.0, 6.0, 2.0])  # the cheaper at 1/s
    assert line_of(axes, "system hgx-h20").get_ydata() == pytest.approx([18, 10, 12, 4])
    assert axes.get_ylabel() == "cost, USD per million tokens"
    assert axes.get_xlabel() == "workload.request_rate, requests/s"
    assert "serve of llama-3.1-8b on dgx-h100, hgx-h20" in axes.get_title()


def test_cost_over_a_rate_that_is_computed_is_that_of_what_it_fills():
    columns = {"tokens_per_s": RATES, "cost_per_token_usd": COSTS}
    axes = [{"key": "workload.kv_tokens", "values": [1, 2, 3, 4]}]
    columns |= {"workload.kv_tokens": [1, 2, 3, 4]}
    subject, counts = made(
        columns, axes=axes, metrics=["tokens_per_s", "cost_per_token_usd"]
    )
    chart = chart_of(subject, "cost")
    points = points_of(framed(columns), subject, chart, counts)
    drawn = draw_over(points, subject, chart).axes[0]
    line = line_of(drawn, "the cheapest up to this rate")
    assert line.get_xdata().tolist() == [1.0, 2.0, 8.0]  # 4/s costs more than 2/s
    assert line.get_ydata() == pytest.approx([9.0, 5.0, 2.0])


def decoded(feasible, tpot):
    columns = {
        "layout.tp": [1, 2, 4, 1, 2, 4],
        "workload.kv_tokens": [10, 10, 10, 20, 20, 20],
        "tpot_s": tpot,
        "tokens_per_s_per_package": [100.0, 50.0, 200.0, 1e6, 300.0, 400.0],
    }
    axes = [
        {"key": "layout.tp", "values": [1, 2, 4]},
        {"key": "workload.kv_tokens", "values": [10, 20]},
    ]
    metrics = ["tpot_s", "tokens_per_s_per_package"]
    subject, counts = made(columns, axes=axes, metrics=metrics)
    counts |= {"infeasible": feasible.count(False)}
    return framed(columns, feasible=feasible), subject, counts


NONE = float("nan")


@pytest.mark.parametrize("show", ["front", "map"])
def test_what_cannot_run_or_has_no_value_is_left_out_and_said(show):
    feasible = [True, True, True, False, True, True]
    frame, subject, counts = decoded(feasible, [0.1, 0.2, 0.3, 0.01, NONE, 0.5])
    chart = chart_of(subject, show, metric=None if show == "front" else "tpot")
    points = points_of(frame, subject, chart, counts)
    draw = draw_map if show == "map" else draw_over
    figure = draw(points, subject, chart)
    told = figure._supxlabel.get_text()
    assert "1 can't run and are not drawn" in told
    assert "1 rows without a value of" in told
    if show == "map":
        cells = figure.axes[0].images[0].get_array()
        assert np.ma.getmaskarray(cells).tolist() == [[False] * 3, [True, True, False]]
        assert "2 of 6 cells" in told
    else:
        assert sorted(dots_of(figure.axes[0])[:, 1]) == [50.0, 100.0, 200.0, 400.0]


def test_nothing_to_draw_is_refused():
    frame, subject, counts = decoded([False] * 6, [0.1] * 6)
    chart = chart_of(subject, "front")
    with pytest.raises(SpecError, match="nothing to draw: no row can run .6 points"):
        points_of(frame, subject, chart, counts)
    frame, subject, counts = decoded([True] * 6, [NONE] * 6)
    with pytest.raises(SpecError, match="nothing to draw: no row has"):
        points_of(frame, subject, chart, counts)
    with pytest.raises(ValueError, match="not finite"):
        front_rows(np.array([1.0, NONE]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("seed", range(5))
def test_fronts_of_any_rows_are_what_nothing_beats(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 12, (2, 60)).astype(float)  # with equals
    rows = front_rows(-y, x)
    assert {(x[i], y[i]) for i in rows} == nondominated(x.tolist(), y.tolist())
    assert len(rows) == len({(x[i], y[i]) for i in rows})


DRAWN = {"sample": "sobol", "count": 8, "keys": {"op.k": {"low": 1, "high": 9}}}
M = {"key": "op.m", "values": [1, 2]}
SIDE = {"zip": {"op.m": [1, 2], "op.n": [3, 4]}}
REFUSED = [
    ([M], ["time_s"], ("front",), "no metric of throughput; add tokens_rate"),
    ([M], ["flop_per_s"], ("front",), "no metric of latency; add tpot, ttft"),
    ([M], ["time_s", "flop_per_s"], ("front", "tim"), "--metric tim.*did you mean time"),
    ([M], ["time_s", "flop_per_s"], ("front", "byte_rate"), "did not keep it; add it"),
    ([M], ["time_s", "flop_per_s"], ("front", None, ("a", "b")), "takes one metric"),
    ([M], ["time_s", "flop_per_s"], ("front", "time", ("time",)), "is what is drawn"),
    ([M], ["time_s"], ("map",), "two axes.*the sweep has only op.m"),
    ([DRAWN], ["time_s"], ("map",), "two axes.*the sweep has none"),
    ([SIDE], ["time_s"], ("map",), "two axes.*the sweep has only op.m"),
    ([SIDE], ["time_s"], ("map", None, ("op.m", "op.n")), "vary side by side"),
    ([M, DRAWN], ["time_s"], ("map", None, ("op.m", "op.k")), "op.k: is drawn from a"),
    ([M, DRAWN], ["time_s"], ("map", None, ("op.m", "op.q")), "op.q: does not vary"),
    ([M], ["time_s"], ("map", None, ("op.m",)), "a map has two axes"),
    ([M], ["time_s"], ("cost",), "has no cost_per_token; add cost_per_token"),
    ([M], ["cost_per_token_usd"], ("cost",), "no metric of rate; add tokens_rate"),
    ([M], ["cost_per_token_usd", "time_s"], ("cost", None, ("time",)), "over a rate"),
    ([M], ["cost_per_token_usd", "time_s"], ("cost", "time_s"), "is left out with"),
]


@pytest.mark.parametrize(("axes", "metrics", "asked", "said"), REFUSED)
def test_what_a_sweep_does_not_have_is_refused_with_a_remedy(axes, metrics, asked, said):
    subject, _ = made({"x": [1]}, axes=axes, metrics=metrics, phase="op")
    subject = subject._replace(fields=tuple(metrics))
    with pytest.raises(SpecError, match=said):
        chart_of(subject, *asked)


FILE = """
metrics = ["time", "flop_rate"]
axes = [{ key = "op.m", values = [16, 256, 8192] }]
[scenario]
system = "dgx-h100"
phase = "op"
op = { kind = "gemm", m = 8, n = 64, k = 64 }
"""


def test_the_command_draws_and_reads_back(tmp_path, capsys, monkeypatch):
    file, out = tmp_path / "mine.toml", tmp_path / "rows"
    file.write_text(FILE)
    picture = tmp_path / "front.svg"
    run = ["sweep", str(file), "--out", str(out), "--picture"]
    for wrong, said in (
        ([str(tmp_path / "p.doc")], "no picture of this suffix"),
        ([str(file)], "no picture of this suffix"),
        ([str(picture), "--show", "map"], "needs two axes"),
        ([str(picture), "--show", "cost"], "has no cost_per_token"),
    ):
        assert main([*run, *wrong]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()  # before a point was evaluated
    with monkeypatch.context() as patch:

        def full(figure, path):
            raise SpecError([f"--picture {path}: can't be written"])

        patch.setattr(sweep_picture, "save", full)
        assert main([*run, str(picture), "--json"]) == 2
    told = capsys.readouterr()
    assert "can't be written" in told.err
    assert json.loads(told.out)["kept"] == len(cmx.read_sweep(out)) == 3
    assert main(["sweep", str(out), "--picture", str(picture), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["points"], told["kept"], told["out"]) == (3, 3, str(out))
    assert picture.stat().st_size > 1000
    assert main(["sweep", str(out)]) == 0
    assert "3 points, 3 rows" in capsys.readouterr().out
    for more, said in (
        (["--out", "other"], "--out: says nothing beside the folder"),
        (["--show", "front"], "need --picture"),
        (["--picture", str(picture), "--show", "map"], "needs two axes"),
    ):
        assert main(["sweep", str(out), *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["sweep", str(tmp_path), "--picture", str(picture)]) == 2
    assert "holds no sweep" in capsys.readouterr().err


def test_axes_of_logs_have_plain_numbers(tmp_path):
    figure, axes = pictures.subplots()
    axes.plot([1e-3, 5e6], [20, 3000])
    axes.set(xscale="log", yscale="log")
    pictures.save(figure, tmp_path / "logs.svg")
    shown = [t.get_text() for t in axes.get_xticklabels() + axes.get_yticklabels()]
    assert {"100,000", "0.001", "1,000"} <= {*shown}
    assert not any("e+" in text for text in shown)
