"""Rows of results, written and read back."""

import csv

from cmxjax.report.rows import write_rows


def test_rows_with_unlike_keys_share_one_header(tmp_path):
    path = tmp_path / "results" / "rows.csv"
    write_rows([{"a": 1, "b": "x, y"}, {"a": 2, "c": 3.5}], path)
    with path.open() as file:
        found = list(csv.DictReader(file))
    assert found == [
        {"a": "1", "b": "x, y", "c": ""},
        {"a": "2", "b": "", "c": "3.5"},
    ]
