import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from faussaire.core import events
from faussaire.core.errors import UserError
from faussaire.report.tensorboard import TensorBoard


def test_ticks_and_previews_reach_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "samples").mkdir()
    Image.fromarray(np.full((6, 8), 200, np.uint8)).save(tmp_path / "samples/000000000100.png")
    observer = TensorBoard(tmp_path)
    begun = {"family": "dcgan", "total": 200, "device": "cpu", "parameters": {}}
    observer.see(events.Started(examples=0, elapsed=0.0, **begun))
    for examples in (100, 200):
        observer.see(
            events.Tick(
                examples=examples,
                elapsed=1.0,
                rounds=1,
                stage="adversarial",
                losses={"generator.adversarial": examples / 100},
                signs={"D(x)": 0.5},
                rates={"generator": 1e-3},
                per_second=7.0,
            )
        )
    observer.see(
        events.Measured(
            examples=200, elapsed=1.0, figures={"fid[pixels,9/train]": 3.0}, best=True, seconds=1.0
        )
    )
    observer.see(events.PreviewDue(examples=100, elapsed=1.0))
    observer.see(events.PreviewDue(examples=150, elapsed=1.0))  # no file: nothing to show
    observer.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    points = [(one.step, one.value) for one in read.Scalars("losses/generator.adversarial")]
    assert points == [(100, 1.0), (200, 2.0)]
    assert {"signs/D(x)", "rates/generator", "speed/per_second"} <= set(read.Tags()["scalars"])
    (figure,) = read.Scalars("figures/fid[pixels,9/train]")
    assert (figure.step, figure.value) == (200, 3.0)
    images = read.Images("samples")
    assert [(one.step, one.width, one.height) for one in images] == [(100, 8, 6)]


def test_missing_tensorboard_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return kept(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"faussaire\[tensorboard\]"):
        TensorBoard(tmp_path)
