"""One of two processes that train every case together; started by test_processes.py.

Ends with a file of rank 0's tensors by case, after making sure that both ranks hold the same bits.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from cases import CASES, build, content, train

from faussaire.core.checkpoint import Checkpoints
from faussaire.core.distributed import World
from faussaire.nn import fused

#: Examples of a whole run, all its stages.
UNTIL = 1000


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    world = World.join()
    fused.reduce_statistics = world.sum
    found = {}
    for case in (case for case in CASES if not case.slow):
        # Half, save, and the other half; then once more from what was saved, into a state with other
        # weights on both ranks. (That saving changes nothing is for test_contract.py to say.)
        state = build(case, total=UNTIL)
        checkpoints = Checkpoints(folder / case.name)
        train(case, state, UNTIL // 2, world=world, checkpoints=checkpoints)
        train(case, state, UNTIL, world=world)
        mine = content(state)
        assert_equal_ranks(world, case.name, mine)
        found[case.name] = mine

        resumed = build(case, seed=99, total=UNTIL)
        loaded = checkpoints.load_latest()
        assert loaded is not None
        resumed.load(*loaded[:2])
        train(case, resumed, UNTIL, world=world)
        again = content(resumed)
        wrong = [name for name in mine if not torch.equal(mine[name], again[name])]
        assert not wrong, f"{case.name}: not the same after a resume: {wrong[:3]}"
    if world.leads:
        torch.save(found, folder / "together.pt")
    world.leave()


def assert_equal_ranks(world: World, name: str, tensors: dict[str, torch.Tensor]) -> None:
    flat = torch.cat([value.double().flatten() for value in tensors.values()])
    ranks = world.gather(flat[None])
    assert torch.equal(ranks[0], ranks[1]), f"{name}: the ranks differ"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # As the command line ends: once in some dozens of times a thread of gloo's outlives its group and
    # would abort the interpreter on its way out, after all is done.
    sys.stdout.flush()
    os._exit(0)
