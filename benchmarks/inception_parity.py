"""Does Faussaire's FID network compute what the field's tools compute?

pytorch-fid, torch-fidelity and clean-fid are the oracles. All networks get the same random weights
(He-scaled, batch norm that is no identity), so no published file is needed; what is compared is the
graph: features, logits, and each tool's resizing. The table gives the largest difference of a
picture's vector relative to the vector's norm, and for resizing the largest difference of a pixel
in 0..255. It ends with exit code 1 if one is above its bound.

The oracles live in an environment of their own, which is thrown away afterwards:

    python3 -m venv oracles
    oracles/bin/pip install torch numpy pillow scipy tqdm safetensors platformdirs filelock
    oracles/bin/pip install --no-deps torchvision pytorch-fid torch-fidelity clean-fid
    PYTHONPATH=src oracles/bin/python benchmarks/inception_parity.py --data PICTURES

PICTURES is a folder of pictures, or a file of the MNIST family (idx3-ubyte, also .gz). An oracle that
cannot be imported is left out, and named.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from faussaire.metrics.inception import SIZE, Inception2015, to_input
from faussaire.metrics.inception_fast import fast, folded
from faussaire.metrics.resize import How, resize

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
RELATIVE, PIXEL = 1e-5, 1e-2  # bounds: of vectors' norms; of 255, for float32 positions differ


def randomised(seed: int = 0) -> Inception2015:
    """The network with random weights under which activations keep their scale."""
    net, generator = Inception2015(), torch.Generator().manual_seed(seed)
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
    net.fc.weight.normal_(0.0, 0.02, generator=generator)
    net.fc.bias.normal_(0.0, 1.0, generator=generator)
    return net


def oracle(name: str) -> ModuleType | None:
    """A tool's module, or None where it is not installed.

    torchvision, which these tools import, registers shapes for compiled operators. Where its build
    does not fit torch's those do not exist, and none is needed: registering is skipped.
    """
    register = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: lambda function: function
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return None
    finally:
        torch.library.register_fake = register


def pytorch_fid(net: Inception2015) -> tuple[Any, Any] | None:
    """pytorch-fid's `InceptionV3` as it is used, and the whole network under it, with our weights."""
    module: Any = oracle("pytorch_fid.inception")
    if module is None:
        return None
    module.load_state_dict_from_url = lambda *_, **__: net.state_dict()
    return module.InceptionV3().eval(), module.fid_inception_v3().eval()


def whole(network: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of pytorch-fid's network, which is made to return the latter alone."""
    kept: list[Tensor] = []
    hook = network.fc.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    logits = network(x)
    hook.remove()
    return kept[0], logits


def pictures(path: Path, count: int) -> list[Tensor]:
    """`count` real pictures spread over what is there, each uint8 (3, H, W)."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        arrays = [np.asarray(Image.open(p).convert("RGB")) for p in spread(found, count)]
    else:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
        shape = np.frombuffer(data, ">i4", 3, offset=4)
        images = np.frombuffer(data, np.uint8, offset=16).reshape(shape)
        arrays = [np.repeat(image[..., None], 3, 2) for image in spread(list(images), count)]
    return [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]


def spread(things: list, count: int) -> list:
    return things[:: max(1, len(things) // count)][:count]


def noise(count: int, height: int, width: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, height, width)
    return [
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)
    ]


def each(call: Callable[[Tensor], Any], inputs: Iterable[Tensor]) -> list[Tensor]:
    """call(x) of each picture, (1, 3, H, W), since sizes differ: its outputs, concatenated."""
    results = [call(x[None]) for x in inputs]
    results = [r if isinstance(r, tuple) else (r,) for r in results]
    return [torch.cat(part) for part in zip(*results, strict=True)]


def pixels(mine: Callable[[Tensor], Tensor], theirs: Callable, inputs: list[Tensor]) -> float:
    """The largest difference of a pixel between two resizings."""
    return max((mine(x[None]) - theirs(x[None])).abs().max().item() for x in inputs)


class Table:
    def __init__(self) -> None:
        self.failed = False
        print(f"{'ours':<16}{'oracle':<27}{'inputs':<26}{'what':<17}{'difference':>11}")

    def row(
        self, ours: str, theirs: str, inputs: str, what: str, value: float, bound: float
    ) -> None:
        self.failed |= not value <= bound
        verdict = "" if value <= bound else f"  above {bound:g}"
        print(f"{ours:<16}{theirs:<27}{inputs:<26}{what:<17}{value:>11.1e}{verdict}", flush=True)

    def vectors(self, ours: str, theirs: str, inputs: str, what: str, a: Tensor, b: Tensor) -> None:
        value = ((a - b).norm(dim=1) / b.norm(dim=1)).max().item()
        self.row(ours, theirs, inputs, what, value, RELATIVE)


def against_pytorch_fid(
    net: Inception2015, kinds: dict[str, list[Tensor]], table: Table, oracles: tuple[Any, Any]
) -> None:
    used, network = oracles
    forms = {"plain": net, "folded": folded(net), "fast": fast(net)}
    for kind, inputs in kinds.items():
        ready = [to_input(resize(x[None], (SIZE, SIZE), "clean"))[0] for x in inputs]
        features, logits = each(lambda x: whole(network, x), ready)
        assert (features > 0).float().mean() > 0.2, "the random network is dead"
        for name, form in forms.items():
            ours, unbiased = each(form, ready)
            row = (name, "pytorch-fid, no resizing", kind)
            table.vectors(*row, "features", ours, features)
            table.vectors(*row, "logits", unbiased + net.fc.bias, logits)
        (theirs,) = each(lambda x: used(x / 255.0)[0].flatten(1), inputs)
        ours, _ = each(lambda x: read(net, x, "pytorch"), inputs)
        table.vectors("plain, pytorch", "pytorch-fid", kind, "features", ours, theirs)


def against_torch_fidelity(
    net: Inception2015, kinds: dict[str, list[Tensor]], table: Table, module: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(net.state_dict(), file)
        wanted = ["2048", "logits_unbiased", "logits"]
        extractor = module.FeatureExtractorInceptionV3("random", wanted, str(file))
    like = module.interpolate_bilinear_2d_like_tensorflow1x
    for kind, inputs in kinds.items():
        features, unbiased, biased = each(extractor, inputs)
        ours, logits = each(lambda x: read(net, x, "legacy"), inputs)
        row = ("plain, legacy", "torch-fidelity", kind)
        table.vectors(*row, "features", ours, features)
        table.vectors(*row, "logits_unbiased", logits, unbiased)
        table.vectors(*row, "logits", net.fc(ours), biased)
        worst = pixels(
            lambda x: resize(x, (SIZE, SIZE), "legacy"),
            lambda x: like(x.float(), (SIZE, SIZE), align_corners=False),
            inputs,
        )
        table.row("resize, legacy", "torch-fidelity's bilinear", kind, "pixels", worst, PIXEL)


def against_clean_fid(kinds: dict[str, list[Tensor]], table: Table, module: Any) -> None:
    resizer = module.build_resizer("clean")
    for kind, inputs in kinds.items():
        worst = pixels(
            lambda x: resize(x, (SIZE, SIZE), "clean"),
            lambda x: torch.from_numpy(resizer(x[0].permute(1, 2, 0).numpy())).permute(2, 0, 1),
            inputs,
        )
        table.row("resize, clean", "clean-fid's resizer", kind, "pixels", worst, PIXEL)


def read(net: Inception2015, x: Tensor, how: How) -> tuple[Tensor, Tensor]:
    return net(to_input(resize(x, (SIZE, SIZE), how), how))


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the FID network with the field's tools.")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders or IDX files")
    parser.add_argument("--count", type=int, default=4, help="pictures of each kind")
    arguments = parser.parse_args()

    net = randomised()
    reference = pytorch_fid(net)
    fidelity = oracle("torch_fidelity.feature_extractor_inceptionv3")
    clean = oracle("cleanfid.resize")
    have = ["torch", "pillow"]
    have += ["pytorch-fid", "torchvision"] if reference else []
    have += ["torch-fidelity"] if fidelity else []
    have += ["clean-fid"] if clean else []
    print(", ".join(f"{name} {version(name)}" for name in have), end="\n\n")

    kinds = {
        f"noise {height}x{width}": noise(arguments.count, height, width, seed)
        for seed, (height, width) in enumerate([(64, 64), (40, 72), (SIZE, SIZE), (400, 512)])
    }
    for path in arguments.data:
        found = pictures(path, arguments.count)
        sizes = {f"{p.shape[1]}x{p.shape[2]}" for p in found}
        name = path.resolve().parent.name[:13]
        kinds[f"{name} {sizes.pop() if len(sizes) == 1 else 'all sizes'}"] = found

    table = Table()
    if reference:
        against_pytorch_fid(net, kinds, table, reference)
    if fidelity:
        against_torch_fidelity(net, kinds, table, fidelity)
    if clean:
        against_clean_fid(kinds, table, clean)
    return int(table.failed)


if __name__ == "__main__":
    sys.exit(main())
