"""The log: strict JSON lines, in order, whole after a kill, without gaps or doubled lines after a resume."""

import json
import math

import numpy as np
import pytest

from tinygen.training.log import JsonlLog, read_log


def write(path, steps, **more):
    with JsonlLog(path) as log:
        for step in steps:
            log.write(step, time=step / 10, loss=1 / (step + 1), **more)


def steps(path):
    return [line["step"] for line in read_log(path)]


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonlLog(path) as log:
        log.write(1, time=0.5, loss=0.25, name="é\n\"x", flag=True, none=None, many=[1, {"a": 2.5}])
        assert read_log(path)[0]["loss"] == 0.25  # on disk at once, not at close
        log.write(2, n=np.int64(3), x=np.float32(0.5), big=2**70)
        log.sync()
        assert not log.closed
    assert log.closed
    assert read_log(path) == [
        {"step": 1, "time": 0.5, "loss": 0.25, "name": "é\n\"x", "flag": True, "none": None, "many": [1, {"a": 2.5}]},
        {"step": 2, "n": 3, "x": 0.5, "big": 2**70},
    ]


def test_numbers_that_json_lacks_are_strict_json_and_come_back(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonlLog(path) as log:
        log.write(1, a=math.nan, b=math.inf, c=-math.inf, d=[np.float64("nan")], e={"f": math.inf})

    def no_constant(name):
        raise AssertionError(f"{name} is not strict JSON")

    line = json.loads(path.read_text(), parse_constant=no_constant)
    assert line == {"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity", "d": ["NaN"], "e": {"f": "Infinity"}}
    (got,) = read_log(path)
    assert math.isnan(got["a"]) and math.isnan(got["d"][0])
    assert (got["b"], got["c"], got["e"]["f"]) == (math.inf, -math.inf, math.inf)


def test_bad_values_write_nothing(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonlLog(path) as log:
        log.write(1, loss=1.0)
        with pytest.raises(TypeError, match="loss is a ndarray"):
            log.write(2, loss=np.ones(3))
        with pytest.raises(TypeError, match="read back as a number"):
            log.write(2, note="NaN")
        with pytest.raises(ValueError, match="step"):
            log.write(2, **{"step": 3})
        for step in (1, 0):
            with pytest.raises(ValueError, match=f"step {step} after that of step 1"):
                log.write(step, loss=1.0)
        log.write(2, loss=1.0)
    assert steps(path) == [1, 2]


def test_a_lone_surrogate_is_no_trouble(tmp_path):
    with JsonlLog(tmp_path / "l") as log:
        log.write(1, name="\udc80")
    assert read_log(tmp_path / "l") == [{"step": 1, "name": "\udc80"}]


@pytest.mark.parametrize("resume_step", range(0, 8))
def test_resuming_removes_the_lines_after_the_step(tmp_path, resume_step):
    path = tmp_path / "log.jsonl"
    write(path, range(1, 7))
    with JsonlLog(path, resume_step=resume_step) as log:
        assert log.last_step == (min(resume_step, 6) or -1)
        assert log.time == min(resume_step, 6) / 10
        for step in range(resume_step + 1, 10):
            log.write(step, loss=0.0)
    assert steps(path) == [s for s in range(1, 10) if s <= 6 or s > resume_step]


def test_a_new_log_starts_empty_and_a_missing_one_can_be_resumed(tmp_path):
    write(tmp_path / "a", range(5))
    JsonlLog(tmp_path / "a").close()
    assert read_log(tmp_path / "a") == []
    with JsonlLog(tmp_path / "b", resume_step=10) as log:
        log.write(11, loss=0.0)
    assert steps(tmp_path / "b") == [11]


def test_a_partial_last_line_is_repaired_wherever_it_was_cut(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, range(1, 4), note="é")
    whole = path.read_bytes()
    third = whole.rindex(b'{"step"')
    for cut in range(third, len(whole)):
        path.write_bytes(whole[:cut])
        assert steps(path) == [1, 2]
        with JsonlLog(path, resume_step=3) as log:
            log.write(3, time=0.3, loss=0.25, note="é")
        assert path.read_bytes() == whole


def test_rubbish_after_the_lines_to_keep_is_dropped_and_before_them_is_an_error(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, range(1, 4))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + b"\0\0\0\n" + b"[1]\n" + lines[2])
    with JsonlLog(path, resume_step=2):
        pass
    assert steps(path) == [1, 2]
    path.write_bytes(lines[0] + b"{garbage}\n" + lines[2])
    before = path.read_bytes()
    for action in (lambda: JsonlLog(path, resume_step=3), lambda: read_log(path)):
        with pytest.raises(ValueError, match=r"log.jsonl, line 2"):
            action()
    assert path.read_bytes() == before


def test_lines_without_a_whole_step_are_refused(tmp_path):
    for line in ('{"loss": 1}', '{"step": 1.5}', '{"step": true}', "3", "[]"):
        (tmp_path / "l").write_text(line + "\n")
        with pytest.raises(ValueError, match="line 1"):
            read_log(tmp_path / "l")


def test_two_writers_do_not_overwrite_each_other(tmp_path):
    with JsonlLog(tmp_path / "l") as a, JsonlLog(tmp_path / "l", resume_step=0) as b:
        a.write(1, who="a")
        b.write(2, who="b")
        a.write(3, who="a")
    assert [line["who"] for line in read_log(tmp_path / "l")] == ["a", "b", "a"]


def test_a_closed_log_takes_nothing_and_touches_no_other_file(tmp_path):
    """Its descriptor may be another file's by now."""
    log = JsonlLog(tmp_path / "log.jsonl")
    log.write(1, a=1)
    log.close()
    log.close()
    with open(tmp_path / "other", "wb", buffering=0):
        for call in (lambda: log.write(2, a=2), log.sync):
            with pytest.raises(ValueError, match=r"log.jsonl: the log is closed"):
                call()
    assert log.closed and (tmp_path / "other").read_bytes() == b"" and len(read_log(log.path)) == 1
