"""Kills, signals, full disks and second processes: nothing that was saved is ever lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.commands import TINY, environment, faussaire, free_port, make_pictures, start, weights

LONG = [*TINY, "--examples", "16000", "--save-every", "0.3", "--preview-every", "4000"]

pytestmark = pytest.mark.xdist_group("survival")  # they share a run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "straight"
    faussaire("train", "dcgan", photos, "--out", out, *LONG)
    return out


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Until the process has left a first trace of this name."""
    end = time.monotonic() + 60
    while not list(path.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the run never began"
        time.sleep(0.01)


def alive(pid: str) -> bool:
    """Whether a process still runs; one that only waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(pids: list[str]) -> bool:
    """Whether these processes end now: one closes its pipes a moment before it counts as ended."""
    patience = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < patience:
        time.sleep(0.01)
    return not any(map(alive, pids))


def test_kill_at_random_moments_then_resume_gives_the_very_same_weights(
    photos, uninterrupted, tmp_path
):
    out = tmp_path / "killed"
    dice = random.Random(7)
    kills = 0
    for _ in range(4):
        process = start("train", "dcgan", photos, "--out", out, *LONG)
        wait_for(out, "events.jsonl", process)
        time.sleep(dice.uniform(0.0, 2.0))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills >= 2, "the run is too short for this test to interrupt it"
    faussaire("resume", out)
    assert weights(out) == weights(uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_say_so(number, code, photos, uninterrupted, tmp_path):
    out = tmp_path / "stopped"
    process = start("train", "dcgan", photos, "--out", out, *LONG)
    wait_for(out, "samples/000000000000.png", process)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "everything is saved" in err
    assert "Traceback" not in err
    assert list(out.glob("checkpoints/0*/state.json"))
    faussaire("train", "dcgan", photos, "--out", out, *LONG)
    assert weights(out) == weights(uninterrupted)


@pytest.mark.long
def test_two_processes_killed_and_resumed(photos, tmp_path):
    words = ["--out", tmp_path / "straight", *TINY, "--examples", "3200", "--save-every", "0.3"]
    faussaire("train", "dcgan", photos, *words, "--processes", 2)
    words[1] = out = tmp_path / "killed"
    process = start("train", "dcgan", photos, *words, "--processes", 2, start_new_session=True)
    wait_for(out, "checkpoints/0*/state.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert weights(out) != weights(tmp_path / "straight")
    faussaire("resume", out, "--processes", 2)
    assert weights(out) == weights(tmp_path / "straight")


def test_a_second_process_on_the_same_run_is_turned_away(photos, tmp_path):
    out = tmp_path / "run"
    first = start("train", "dcgan", photos, "--out", out, *LONG)
    wait_for(out, "events.jsonl", first)
    _, err = faussaire("train", "dcgan", photos, "--out", out, *LONG, expect=2)
    assert "Another process is training" in err
    first.kill()
    first.communicate()
    faussaire("info", out)


@pytest.mark.long
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(photos, tmp_path):
    out = tmp_path / "run"
    words = ["--out", out, *TINY, "--examples", "640"]
    faussaire("train", "dcgan", photos, *words)
    faussaire("resume", out, "--examples", "1280")
    straight = weights(out)
    last = max(out.glob("checkpoints/0*"))
    file = last / "networks.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    _, err = faussaire("sample", out, "--grid", tmp_path / "g.png", expect=2)
    assert "checksum" in err
    assert "networks.safetensors" in err
    said, _ = faussaire("resume", out, "--examples", "1280")
    assert "An older checkpoint is used" in said
    assert weights(out) == straight


@pytest.mark.long
def test_divergence_stops_keeps_the_last_good_state_and_says_what_to_try(photos, tmp_path):
    out = tmp_path / "run"
    words = ["--out", out, "--resolution", 16, "--batch", 16]
    faussaire("train", "classic", photos, *words, "--examples", "64", "--optimiser", "sgd")
    before = weights(out)
    _, err = faussaire(
        "resume", out, "--examples", "64000", "--lr", "1e30", "--allow-changes", expect=2
    )
    assert "diverged" in err
    assert "64 examples is good" in err
    assert "learning rate" in err
    assert weights(out) == before


@pytest.mark.long
def test_a_full_disk_ends_in_a_sentence(photos, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        out = small / "run"
        process = start("train", "dcgan", photos, "--out", out, *LONG)
        _, err = process.communicate(timeout=90)
        assert process.returncode == 2, err
        assert "is full" in err
        assert "Traceback" not in err
        for state in out.glob("checkpoints/0*"):
            assert {path.name for path in state.iterdir()} >= {"state.json", "networks.safetensors"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_folder_that_cannot_be_written_ends_in_a_sentence(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    _, err = faussaire(
        "train", "dcgan", photos, "--out", tmp_path / "file" / "run", *TINY, expect=2
    )
    assert "could not be begun" in err


@pytest.mark.long
def test_a_process_that_dies_ends_the_others_and_the_run_is_intact(photos, tmp_path):
    out = tmp_path / "run"
    process = start("train", "dcgan", photos, "--out", out, *LONG, "--processes", 2)
    wait_for(out, "checkpoints/0*/state.json", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    began = time.monotonic()
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "Process 1 of 2 was killed (SIGKILL)" in err
    assert "faussaire resume" in err
    assert "Traceback" not in err
    assert time.monotonic() - began < 40
    assert all_end(children)
    faussaire("sample", out, "--count", 2, "--grid", tmp_path / "g.png")


@pytest.mark.long
def test_torchrun_and_processes_are_the_same(photos, tmp_path):
    words = [*TINY, "--examples", "320"]
    faussaire("train", "dcgan", photos, "--out", tmp_path / "a", *words, "--processes", 2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [
            *torchrun,
            "-m",
            "faussaire",
            *map(str, ["train", "dcgan", photos, *words, "--out", tmp_path / "b"]),
        ],
        env={**environment(), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Done. Look at") == 1
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.long
def test_the_launchers_death_ends_its_processes_and_frees_the_run(photos, tmp_path):
    out = tmp_path / "run"
    process = start("train", "dcgan", photos, "--out", out, *LONG, "--processes", 2)
    wait_for(out, "checkpoints/0*/state.json", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    # Its pipes end only when the last process that inherited them has gone.
    process.communicate(timeout=30)
    assert all_end(children)
    info, _ = faussaire("info", out, "--json")
    faussaire("resume", out, "--examples", int(json.loads(info)["examples"]) + 64, "--processes", 2)


@pytest.mark.long
def test_output_that_nobody_reads_does_not_end_training(photos, tmp_path):
    out = tmp_path / "run"
    process = start("train", "dcgan", photos, "--out", out, *TINY, "--examples", "3200")
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=60)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    info, _ = faussaire("info", out, "--json")
    assert json.loads(info)["state"] == "complete"


@pytest.mark.long
def test_damaged_newer_checkpoints_never_push_out_good_ones(photos, tmp_path):
    out = tmp_path / "run"
    words = ["--out", out, *TINY, "--keep", "1"]
    faussaire("train", "dcgan", photos, *words, "--examples", "320", "--keep", "2")
    faussaire("resume", out, "--examples", "640")
    last = max(out.glob("checkpoints/0*"))
    (last / "networks.safetensors").write_bytes(b"ruined")
    faussaire("resume", out, "--examples", "480", "--keep", "1")
    assert [path.name for path in out.glob("checkpoints/0*")] == [f"{480:012d}"]
    faussaire("sample", out, "--count", 1, "--grid", tmp_path / "g.png")


def test_a_run_does_not_mix_with_other_things(photos, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    _, err = faussaire("train", "dcgan", photos, "--out", tmp_path / "letters", *TINY, expect=2)
    assert "dear.txt" in err
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]
    mine = make_pictures(tmp_path / "mine", count=24)
    before = sorted(mine.iterdir())
    for out in (mine, mine / "run"):
        _, err = faussaire("train", "dcgan", mine, "--out", out, *TINY, expect=2)
        assert "inside its source" in err
    assert sorted(mine.iterdir()) == before


@pytest.mark.long
def test_a_source_that_moved_is_named_anew(photos, tmp_path):
    mine = make_pictures(tmp_path / "mine", count=24)
    out = tmp_path / "run"
    faussaire("train", "dcgan", mine, "--out", out, *TINY, "--examples", "64")
    mine.rename(tmp_path / "moved")
    _, err = faussaire("resume", out, "--examples", "128", expect=2)
    assert "mine" in err
    faussaire("resume", out, tmp_path / "moved", "--examples", "128")
    faussaire("resume", out, "--examples", "192")


@pytest.mark.long
def test_the_same_command_without_out_continues_an_unfinished_run_and_begins_another_after(
    photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["train", "dcgan", photos, *LONG]
    process = start(*words)
    run = tmp_path / "runs" / f"dcgan-{photos.name}"
    wait_for(run, "checkpoints/0*/state.json", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    said, _ = faussaire(*words)
    assert "continuing at" in said
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]
    faussaire("train", "dcgan", photos, *TINY, "--examples", "32")
    assert (tmp_path / "runs" / f"{run.name}-2").is_dir()


@pytest.mark.long
def test_settings_not_named_stay_as_the_run_has_them(photos, tmp_path):
    out = tmp_path / "run"
    faussaire("train", "dcgan", photos, "--out", out, *TINY, "--examples", "64", "--lr", "1e-3")
    faussaire("train", "dcgan", photos, "--out", out, "--examples", "128", "--allow-changes")
    info, _ = faussaire("info", out, "--json")
    kept = json.loads(info)["settings"]
    assert (kept["lr"], kept["batch"], kept["width"]) == (1e-3, 16, 4)


@pytest.mark.long
def test_damaged_files_of_a_run_are_sentences(photos, tmp_path):
    out = tmp_path / "runs" / "run"
    faussaire("train", "dcgan", photos, "--out", out, *TINY, "--examples", "64")
    shutil.copytree(next(out.glob("checkpoints/0*")), out / "checkpoints" / f"{64:012d}.bak")
    faussaire("info", out)
    (out / "data.json").write_text("[]")
    _, err = faussaire("info", out, expect=2)
    assert "data.json" in err
    said, _ = faussaire("runs", out.parent)
    assert "damaged" in said
    (out / "config.yaml").write_text("batch: [")
    _, err = faussaire("resume", out, expect=2)
    assert "config.yaml" in err
    state = next(out.glob(f"checkpoints/{64:012d}/state.json"))
    for content in ("[]", "{}", '{"format": 1, "sha256": {}, "examples": 1, "elapsed": 0}'):
        state.write_text(content)
        _, err = faussaire("sample", out, "--grid", tmp_path / "g.png", expect=2)
        assert "checkpoint" in err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs sockets between processes")
def test_processes_that_mean_different_runs_refuse(photos, tmp_path):
    port = str(free_port())
    processes = []
    for rank, lr in enumerate(("0.1", "0.2")):
        around = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        words = ["train", "dcgan", photos, "--out", tmp_path / "run", *TINY, "--lr", lr]
        processes.append(start(*words, env={**environment(), **around}))
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2, err
        assert "do not agree" in err


def test_a_signal_while_data_are_read_ends_at_once_and_leaves_nothing(tmp_path):
    mine = make_pictures(tmp_path / "mine", count=400)
    process = start("train", "dcgan", mine, "--out", tmp_path / "run", *TINY)
    wait_for(tmp_path / "run", ".lock", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Stopped by SIGTERM" in err
    assert "Traceback" not in err
