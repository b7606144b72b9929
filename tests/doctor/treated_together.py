"""One of two processes that train under a doctor who acts; started by test_treated_together.py.

    treated_together.py FOLDER SIGN VALUE

The leading process has the doctor, who always sees SIGN at VALUE. Leaves `FOLDER/RANK.pt`: weights,
settings, and what was done where.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

from faussaire.core import events
from faussaire.core.checkpoint import Checkpoints
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.events import Audience, Event
from faussaire.core.family import Pictures
from faussaire.core.loop import Loop, Plan
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.doctor.balance import Balance
from faussaire.doctor.watch import Watch
from faussaire.families import load_family


class Ears:
    """Remembers what was done, and where."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int, dict[str, object]]] = []

    def see(self, event: Event) -> None:
        if isinstance(event, events.Treated):
            self.heard.append((event.from_examples, event.examples, dict(event.settings)))

    def close(self) -> None:
        pass


def main(folder: Path, sign: str, value: float) -> None:
    torch.set_num_threads(1)
    world = World.join()
    kind = load_family("r3gan")
    torch.manual_seed(0)
    state = State(
        kind(kind.Config(width=16, blocks=1), Pictures(channels=3, height=16, width=16)),
        Device(name="cpu", precision="float32"),
        total=400,
    )
    images = np.random.default_rng(0).integers(0, 256, size=(200, 16, 16, 3), dtype=np.uint8)
    signs = {"win rate": 0.8, "margin": 1.0, "distance": 0.5, "diversity": 0.9, sign: value}
    ears = Ears()
    Loop(
        state,
        Stream([{"images": images}], seed=0, rank=world.rank, world=world.size),
        Plan(batch=10),
        world=world,
        audience=Audience([ears]),
        checkpoints=Checkpoints(folder / "checkpoints", keep=100),
        doctor=Watch(
            lambda: dict(signs), {}, balance=Balance(dict(vars(state.family.config))), every=25
        )
        if world.leads
        else None,
    ).run()
    found = {
        "weights": {
            f"{group}/{name}": tensor
            for group, tensors in state.tensors().items()
            for name, tensor in tensors.items()
        },
        "settings": vars(state.family.config),
        "treated": ears.heard,
    }
    torch.save(found, folder / f"{world.rank}.pt")
    world.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
    # As the command line ends: a thread of gloo's may outlive its group.
    sys.stdout.flush()
    os._exit(0)
