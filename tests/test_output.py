"""Output files are whole or not there, and never in place of an input."""

import os
import threading

import pytest

from cmxjax.cli.main import main
from cmxjax.specs.errors import AnsweredError, SpecError, afterwards
from cmxjax.specs.output import check_outputs, inputs_of, replacing, write_text


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_to_a_file_stays_one(tmp_path):
    file, link = tmp_path / "a", tmp_path / "b"
    file.write_text("old")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_device_is_written_to_not_replaced(tmp_path):
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write_text(link, "text")
    assert link.is_char_device()
    assert os.listdir(tmp_path) == ["null"]


def test_writers_of_one_file_do_not_mix(tmp_path):
    path, texts = tmp_path / "a", [letter * 200_000 for letter in "abcd"]

    def write(text: str) -> None:
        for _ in range(10):
            write_text(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_text() in texts
    assert os.listdir(tmp_path) == ["a"]


def test_inputs_are_the_files_named_and_those_that_they_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text('system = { base = "./s.toml" }\nmodel = "m.json"')
    (tmp_path / "s.toml").write_text('base = "s.toml"\n[sources.a]\nurl = "b.toml"')
    (tmp_path / "m.json").write_text('{"model_type": "llama"}')
    found = inputs_of("job.toml", {"x": "dgx-h100", "system": "t.toml"}, None)
    assert {"job.toml", "./s.toml", "s.toml", "m.json", "t.toml"} <= {*found}
    assert "dgx-h100" not in found


@pytest.mark.parametrize("kind", ["itself", "symbolic", "hard", "another way"])
def test_an_input_by_any_name_is_no_output(tmp_path, kind):
    path, other = tmp_path / "in.toml", tmp_path / "out.toml"
    path.write_text("x = 1")
    if kind == "itself":
        other = path
    elif kind == "symbolic":
        other.symlink_to(path)
    elif kind == "hard":
        os.link(path, other)
    else:
        other = tmp_path / "." / ".." / tmp_path.name / "in.toml"
    with pytest.raises(SpecError, match="reads it"):
        check_outputs({"--out": str(other)}, [str(path)])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("no/folder.toml", "no folder"),
        ("/proc/x.toml", "can't be written"),
        ("a" * 300, "can't be written"),
    ],
)
def test_what_could_not_be_written_is_refused_before(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=said):
        check_outputs({"--out": path}, [])
    assert os.listdir(tmp_path) == []


def test_an_answer_survives_a_file_that_can_not_be_written():
    def fail() -> None:
        raise SpecError(["--picture p.png: no"])

    written = []
    with pytest.raises(AnsweredError, match="p.png") as caught:
        afterwards({"tpot_s": 1.0}, fail, lambda: written.append(1))
    assert caught.value.answer == {"tpot_s": 1.0}
    assert written == [1]


def test_the_answer_is_printed_and_then_what_could_not_be_written(monkeypatch, capsys):
    def answer(phase: str | None) -> None:
        raise AnsweredError([], ["--picture p.png: the disk is full"])

    monkeypatch.setattr("cmxjax.report.keys.scenario_keys", answer)
    assert main(["keys", "--json"]) == 2
    streams = capsys.readouterr()
    assert streams.out == "[]\n"
    assert streams.err == "--picture p.png: the disk is full\n"
