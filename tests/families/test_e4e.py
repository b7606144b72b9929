"""e4e: what its encoder says, and what is let go when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faussaire.core.batch import RowDraws
from faussaire.core.clock import Clock
from faussaire.core.device import Device
from faussaire.core.distributed import World
from faussaire.core.errors import UserError
from faussaire.core.family import Pictures
from faussaire.core.loop import Plan, Rounds
from faussaire.core.state import State
from faussaire.data.stream import Stream
from faussaire.families import load_family
from faussaire.families.e4e import E4E, E4EConfig
from faussaire.latent.space import Space
from latent.conftest import louder

SPEC = Pictures(channels=1, height=16, width=20, input_channels=1)


def made(name: str = "stylegan2", **settings: object) -> E4E:
    torch.manual_seed(0)
    kind = load_family(name)
    own = {"latent": 8, "width": 8}
    own |= {"style": 8, "max_width": 8} if name == "stylegan2" else {"max_width": 16}
    generator = kind(kind.Config(**own), SPEC)
    for net in generator.nets.values():
        net.eval()
    if name == "dcgan":
        louder(generator)
    space = "w+" if name == "stylegan2" else "z"
    layers = Space(generator, space).layers
    known = {"generator": Path("run"), "layers": layers, "numbers": 8, "space": space}
    small = {"width": 8, "max_width": 16, "critic_width": 16, "perceptual": "none"}
    family = E4E(E4EConfig(**{**known, **small, **settings}), SPEC)
    family.prove(generator)
    return family


def test_offsets_are_let_go_from_coarse_to_fine():
    family = made(offsets_from=0.2, offsets_until=0.6)
    layers = family.config.layers
    free = [family.free(Clock(examples=seen, total=100)) for seen in (0, 19, 21, 40, 60, 99)]
    assert free[:2] == [1, 1]
    assert free == sorted(free)
    assert free[-2:] == [layers, layers]
    assert family.free(None) == layers
    x = torch.rand(2, 1, 16, 20) * 2.0 - 1.0
    early = family.codes(x, Clock(examples=0, total=100))
    assert torch.equal(early, early[:, :1].expand_as(early))
    late = family.codes(x)
    assert not torch.equal(late, late[:, :1].expand_as(late))
    assert torch.equal(late[:, 0], early[:, 0])  # the first is w itself


@pytest.mark.parametrize("name", ["stylegan2", "dcgan"])
def test_an_encoder_learns_to_invert(name):
    """The generator's own samples: what is wrong with them falls, and the generator stays."""
    family = made(name, lr=2e-3, adversarial_weight=0.02)
    generator = family.target
    before = {
        k: v.clone()
        for net in generator.averaged
        for k, v in generator.nets[net].state_dict().items()
    }
    with torch.no_grad():
        pictures = generator.sample(RowDraws.counted(0, 32))
    levels = ((pictures + 1.0) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    state = State(family, Device(name="cpu", precision="float32"), total=960)
    rounds = Rounds(state, Stream([{"images": levels}], seed=0), Plan(batch=16), World())
    losses = []
    for _ in range(60):
        rounds.play()
        losses.append(rounds.means.take(World())["losses"]["encoder.l2"])
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10]), losses
    after = {
        k: v for net in generator.averaged for k, v in generator.nets[net].state_dict().items()
    }
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_pictures_of_any_size_are_encoded():
    family = made()
    with torch.no_grad():
        x = torch.rand(2, 1, 33, 50) * 2.0 - 1.0
        y = family.apply(x, RowDraws.counted(0, 2))
        alone = family.apply(x[:1], RowDraws.counted(0, 1))
    assert y.shape == x.shape
    assert torch.allclose(y[:1], alone, atol=1e-6)


def test_another_generator_is_refused():
    family = made()
    config = E4EConfig(**{**vars(family.config), "generator_weights": "0" * 16})
    stranger = E4E(config, SPEC)
    with pytest.raises(UserError, match="another generator"):
        stranger.prove(family.target)
    with pytest.raises(UserError, match="none was given"):
        E4E(E4EConfig(), SPEC)
    with pytest.raises(UserError, match="1x32x32"):
        E4E(E4EConfig(**{**vars(family.config), "pictures": "1x32x32"}), SPEC)
