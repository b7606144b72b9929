import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from faussaire.core import events
from faussaire.report.history import read_events


def tick(examples: int, value: float = 1.0, **more: Any) -> dict[str, Any]:
    return events.Tick(
        examples=examples,
        elapsed=examples / 100,
        rounds=examples // 10,
        stage="adversarial",
        losses={"generator.adversarial": value},
        signs={"D(x)": 0.6},
        rates={"generator": 2e-4},
        per_second=100.0,
        **more,
    ).record()


def started(examples: int) -> dict[str, Any]:
    return events.Started(
        examples=examples,
        elapsed=examples / 100,
        family="dcgan",
        total=1000,
        device="cpu",
        parameters={"generator": 12},
    ).record()


def stage(examples: int, name: str) -> dict[str, Any]:
    return events.StageBegan(examples=examples, elapsed=0.0, stage=name).record()


def write(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_missing_and_empty_files_are_runs_that_have_not_begun(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none").examples == 0
    (tmp_path / "empty").touch()
    history = read_events(tmp_path / "empty")
    assert history.last is None
    assert history.per_second is None


def test_series_and_facts_of_a_complete_run(tmp_path: Path) -> None:
    path = write(
        tmp_path / "events.jsonl",
        [
            started(0),
            stage(0, "adversarial"),
            tick(100, 2.0, progress=0.1),
            events.PreviewDue(examples=150, elapsed=1.5).record(),
            tick(200, 1.0, progress=0.2, remaining=8.0),
            events.Noted(examples=200, elapsed=2.0, message="Slow disk.").record(),
            events.Saved(examples=200, elapsed=2.0, path="x", seconds=0.1).record(),
            events.Finished(examples=200, elapsed=2.0, outcome="complete").record(),
        ],
    )
    history = read_events(path)
    loss = history.losses["generator.adversarial"]
    assert loss.examples.tolist() == [100, 200]
    assert loss.elapsed.tolist() == [1, 2]
    assert loss.values.tolist() == [2, 1]
    assert loss.last == 1
    assert history.signs["D(x)"].values.tolist() == [0.6, 0.6]
    assert history.rates["generator"].last == 2e-4
    assert history.per_second is not None
    assert [(one.name, one.examples) for one in history.stages] == [("adversarial", 0)]
    assert history.notes[0].message == "Slow disk."
    assert (history.family, history.total, history.device) == ("dcgan", 1000, "cpu")
    assert history.parameters == {"generator": 12}
    assert history.outcome == history.standing() == "complete"
    assert history.progress == 1.0
    assert history.remaining == 8.0


def test_torn_last_line_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [started(0), tick(100)])
    with path.open("a") as file:
        file.write(json.dumps(tick(200))[:40])
    history = read_events(path)
    assert history.examples == 100
    assert history.unreadable == 1


def test_record_after_a_torn_fragment_on_one_line_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [started(0), tick(100), tick(200)])
    with path.open("a") as file:
        file.write(json.dumps(tick(300))[:40] + json.dumps(started(100)) + "\n")
        file.write(json.dumps(tick(150)) + "\n")
    history = read_events(path)
    assert history.resumed == (100,)
    assert history.losses["generator.adversarial"].examples.tolist() == [100, 150]


def test_what_a_resumed_run_never_did_is_dropped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "events.jsonl",
        [
            started(0),
            stage(0, "pixel"),
            tick(100, 1.0),
            tick(200, 2.0),
            stage(250, "adversarial"),
            tick(300, 3.0),
            events.Finished(examples=300, elapsed=3.0, outcome="interrupted").record(),
            started(200),
            stage(200, "pixel"),
            tick(260, 4.0),
            stage(280, "adversarial"),
        ],
    )
    history = read_events(path)
    loss = history.losses["generator.adversarial"]
    assert loss.examples.tolist() == [100, 200, 260]
    assert loss.values.tolist() == [1, 2, 4]
    assert [(one.name, one.examples) for one in history.stages] == [
        ("pixel", 0),
        ("adversarial", 280),
    ]
    assert history.outcome == ""
    assert history.examples == 280


def test_rubbish_is_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    odd = {**tick(100), "losses": None, "signs": {"D(x)": "high"}, "per_second": None}
    lines = ["null", "[1, 2]", "{}", '{"event": "tick"}', '{"event":"tick","examples":NaN}']
    lines += ["\x00\x00", '{"event":"started","examples":0,"parameters":[1]}', json.dumps(odd)]
    lines += ['{"event":"tick","examples":200,"elapsed":2,"losses":{"a":NaN,"b":Infinity}}']
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    history = read_events(path)
    assert history.unreadable == 7
    assert history.signs == {}
    assert np.isnan(history.losses["a"].last)
    assert history.standing() == "running"


def test_silence_tells_that_a_run_is_dead(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [started(0), tick(100)])
    history = read_events(path)
    assert history.standing() == "running"
    assert history.standing(now=time.time() + 3600) == "stopped"


def test_a_hundred_thousand_lines_take_about_a_second(tmp_path: Path) -> None:
    line = tick(0)
    path = tmp_path / "events.jsonl"
    text = json.dumps(line)
    with path.open("w") as file:
        for index in range(100_000):
            file.write(text.replace('"examples": 0', f'"examples": {index}') + "\n")
    began = time.process_time()
    history = read_events(path)
    assert time.process_time() - began < 5  # about 1 s; machines of others are slower
    assert len(history.losses["generator.adversarial"].values) == 100_000
