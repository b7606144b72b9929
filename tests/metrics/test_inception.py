"""The FID Inception network: its shape, its pools, its file, and its fast forms.

That it computes what pytorch-fid and torch-fidelity compute is shown by benchmarks/inception_parity.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from faussaire.core.errors import UserError
from faussaire.metrics import inception_fast
from faussaire.metrics.inception import (
    CLASSES,
    FEATURES,
    SIZE,
    Inception2015,
    Mixed,
    pool,
    to_input,
)

needs_kernels = pytest.mark.skipif(
    inception_fast.kernels() is None, reason="no AMX or no C++ compiler here"
)


def randomise(net: nn.Module) -> None:
    """Weights that keep the variance of activations, and batch norm that is no identity."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            deviation = (2.0 / module.weight[0].numel()) ** 0.5
            module.weight.normal_(0.0, deviation, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0.0, 0.3, generator=generator)
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)


@pytest.fixture(scope="module")
def net() -> Inception2015:
    torch.manual_seed(0)
    made = Inception2015()
    randomise(made)
    return made


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    """Ten pictures: a portion of the kernels and two more."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(10, 3, 24, 24, generator=generator)
    return F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").mul(2).sub(1)


@pytest.fixture(scope="module")
def expected(net: Inception2015, inputs: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return net(inputs)


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest norm of a row's difference, relative to the row's norm."""
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


def test_names_and_shapes_are_those_of_the_public_file(net: Inception2015) -> None:
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch_pool.bn.running_var"] == (32,)
    assert shapes["Mixed_6a.branch3x3dbl_3.conv.weight"] == (96, 96, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7a.branch7x7x3_2.conv.weight"] == (192, 192, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["fc.weight"] == (CLASSES, FEATURES)
    # Inception v3 without its second classifier has 23,834,568 parameters with 1,000 classes.
    count = sum(parameter.numel() for parameter in net.parameters())
    assert count == 23_834_568 + 8 * (FEATURES + 1)


def test_logits_leave_the_bias_out(net: Inception2015, expected: tuple[Tensor, Tensor]) -> None:
    features, logits = expected
    assert features.shape == (10, FEATURES)
    assert logits.shape == (10, CLASSES)
    torch.testing.assert_close(logits + net.fc.bias, net.fc(features))
    assert net.fc.bias.abs().max() > 0


def test_it_stays_in_eval_mode(net: Inception2015) -> None:
    net.train()
    assert not any(module.training for module in net.modules())


def test_average_leaves_padding_out() -> None:
    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(pool(ones, "average"), ones)
    dot = torch.zeros(1, 1, 4, 4)
    dot[0, 0, 0, 0] = 12.0
    expected = torch.tensor([[3.0, 2.0], [2.0, 12 / 9]])
    torch.testing.assert_close(pool(dot, "average")[0, 0, :2, :2], expected)


@pytest.mark.parametrize(("name", "around"), [("Mixed_7b", 1.0), ("Mixed_7c", 9.0)])
def test_only_the_last_block_takes_the_largest(
    net: Inception2015, name: str, around: float
) -> None:
    """One pixel of 9 among zeros, read through the block's pool alone."""
    block = net.get_submodule(name)
    assert isinstance(block, Mixed)
    channels = block.get_submodule("branch1x1.conv").get_parameter("weight").shape[1]
    plain = Mixed(channels, block.block).eval()
    with torch.no_grad():
        plain.get_submodule("branch_pool.conv").get_parameter("weight").zero_()[0, 0] = 1.0
        x = torch.zeros(1, channels, 8, 8)
        x[0, 0, 3, 3] = 9.0
        found = plain(x)[0, -192, 2:5, 2:5]
    torch.testing.assert_close(found, torch.full((3, 3), around), rtol=1e-3, atol=0)


def test_inputs_are_scaled_as_each_convention_does() -> None:
    values = torch.tensor([0.0, 128.0, 255.0]).view(1, 1, 1, 3)
    assert to_input(values).flatten().tolist() == [-1.0, 0.0, 127 / 128]
    assert to_input(values, "pytorch").flatten().tolist() == pytest.approx(
        [-1, 1 / 255, 1], abs=1e-6
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_back_from_a_file(net: Inception2015, tmp_path: Path, suffix: str) -> None:
    """Without batch norm's counters, which the public file does not need to have."""
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    again = Inception2015.from_file(path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def small_state(net: Inception2015) -> dict[str, Tensor]:
    """Right names and shapes in a small file: each tensor is one zero, repeated."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in net.state_dict().items()}


def test_another_networks_file_is_explained(net: Inception2015, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def load(**changes: Tensor | None) -> UserError:
        state = {**small_state(net), **{k.replace("__", "."): v for k, v in changes.items()}}
        torch.save({k: v for k, v in state.items() if v is not None}, path)
        with pytest.raises(UserError) as raised:
            Inception2015.from_file(path)
        assert str(path) in raised.value.cause
        return raised.value

    assert "fc.bias first" in load(fc__bias=None).cause
    assert "AuxLogits.fc.bias first" in load(AuxLogits__fc__bias=torch.zeros(1000)).cause
    wrong = load(fc__weight=torch.zeros(()).expand(1000, FEATURES))
    assert "(1000, 2048)" in wrong.cause
    assert "pt_inception-2015-12-05-6726825d.pth" in wrong.hint
    assert "NaN" in load(fc__bias=torch.full((CLASSES,), float("nan"))).cause


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trapped"),))


def test_damaged_files_are_explained_and_never_run(
    net: Inception2015, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": Trap()}, path)
    with pytest.raises(UserError):
        Inception2015.from_file(path)
    assert not Path("trapped").exists()
    torch.save(small_state(net), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError):
        Inception2015.from_file(path)
    with pytest.raises(UserError):
        Inception2015.from_file(tmp_path / "nothing.pth")


def test_folding_changes_nothing(
    net: Inception2015, inputs: Tensor, expected: tuple[Tensor, Tensor]
) -> None:
    features, logits = inception_fast.folded(net)(inputs[:3])
    assert distance(features, expected[0][:3]) < 1e-5
    assert distance(logits, expected[1][:3]) < 1e-5


@pytest.fixture(scope="module")
def fast(net: Inception2015) -> inception_fast.Reader:
    return inception_fast.fast(net)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fast_changes_little(
    fast: inception_fast.Reader,
    inputs: Tensor,
    expected: tuple[Tensor, Tensor],
    layout: torch.memory_format,
) -> None:
    features, logits = fast(inputs.contiguous(memory_format=layout))
    assert distance(features, expected[0]) < 1e-4
    assert distance(logits, expected[1]) < 1e-4
    assert not features.requires_grad


def test_fast_holds_where_batch_norm_magnifies() -> None:
    """Small things on a flat ground, and batch norm fitted to them: flat areas have to cancel."""
    net = Inception2015()
    randomise(net)
    x = torch.full((8, 3, SIZE, SIZE), -1.0)
    generator = torch.Generator().manual_seed(3)
    x[:, :, 100:200, 120:180] = torch.rand(8, 3, 100, 60, generator=generator)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.training, norm.momentum = True, 1.0
    with torch.no_grad():
        net(x)
        net.eval()
        exact = net(x)[0]
    assert distance(inception_fast.fast(net)(x)[0], exact) < 1e-3


def test_a_feature_does_not_depend_on_its_neighbours(
    fast: inception_fast.Reader, inputs: Tensor
) -> None:
    """The ninth is read in a portion of its own, and then in the middle of one."""
    assert distance(fast(inputs[8:9])[0], fast(inputs[2:])[0][6:7]) < 1e-6


def test_nothing_remains_of_earlier_pictures(fast: inception_fast.Reader, inputs: Tensor) -> None:
    first = fast(inputs)[0]
    fast(torch.full_like(inputs, 0.9))
    assert torch.equal(fast(inputs)[0], first)


def test_no_pictures_give_no_features(fast: inception_fast.Reader, inputs: Tensor) -> None:
    features, logits = fast(inputs[:0])
    assert features.shape == (0, FEATURES)
    assert logits.shape == (0, CLASSES)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_kernels
@pytest.mark.usefixtures("threads")
def test_threads_do_not_change_a_bit(fast: inception_fast.Reader, inputs: Tensor) -> None:
    torch.set_num_threads(1)
    one = fast(inputs[:8])[0]
    torch.set_num_threads(3)
    assert torch.equal(fast(inputs[:8])[0], one)


@needs_kernels
def test_later_changes_do_not_reach_the_fast_form(inputs: Tensor) -> None:
    net = Inception2015()
    randomise(net)
    read = inception_fast.fast(net)
    before = read(inputs[:1])[0]
    net.Mixed_5b.branch1x1.conv.weight.zero_()  # pyright: ignore
    net.fc.weight.zero_()
    assert torch.equal(read(inputs[:1])[0], before)
    assert read(inputs[:1])[1].abs().max() > 0


@needs_kernels
def test_nan_is_not_hidden(fast: inception_fast.Reader, inputs: Tensor) -> None:
    broken = inputs[:2].clone()
    broken[0, 0, 100:200, 100:200] = float("nan")
    features = fast(broken)[0]
    assert features[0].isnan().any()
    assert features[1].isfinite().all()
