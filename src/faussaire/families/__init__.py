"""The families, by name. Listing them imports no torch; only a family that is used is imported."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from faussaire.core.errors import UserError, nearest

if TYPE_CHECKING:
    from faussaire.core.family import Family

#: What they are for -> family name -> module and class.
_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Pictures from noise": {
        "classic": ("classic", "Classic"),
        "dcgan": ("dcgan", "DCGAN"),
        "sngan": ("sngan", "SNGAN"),
        "biggan": ("biggan", "BigGAN"),
        "progan": ("progan", "ProGAN"),
        "msggan": ("msggan", "MSGGAN"),
        "stylegan2": ("stylegan2", "StyleGAN2"),
        "fastgan": ("fastgan", "FastGAN"),
        "r3gan": ("r3gan", "R3GAN"),
        "vae": ("vae", "VAE"),
        "vaegan": ("vaegan", "VAEGAN"),
    },
    "Pictures from pictures": {
        "pix2pix": ("pix2pix", "Pix2Pix"),
        "cyclegan": ("cyclegan", "CycleGAN"),
        "superres": ("superres", "SuperRes"),
        "colorize": ("colorize", "Colorize"),
        "inpaint": ("inpaint", "Inpaint"),
        "faststyle": ("faststyle", "FastStyle"),
        "adain": ("adain", "AdaIN"),
    },
    "Pictures from words": {
        "stackgan": ("stackgan", "StackGAN"),
        "dfgan": ("dfgan", "DFGAN"),
    },
    "Pictures, to tell what is in them": {
        "sgan": ("sgan", "SGAN"),
        "pretext": ("pretext", "Pretext"),
        "e4e": ("e4e", "E4E"),
    },
    "Tables": {
        "tvae": ("tvae", "TVAE"),
        "ctgan": ("ctgan", "CTGAN"),
    },
    "Sentences": {
        "lm": ("lm", "LM"),
        "seqgan": ("seqgan", "SeqGAN"),
        "relgan": ("relgan", "RelGAN"),
    },
    "Music and sound": {
        "musegan": ("musegan", "MuseGAN"),
        "wavegan": ("wavegan", "WaveGAN"),
    },
}
_REGISTRY = {name: place for group in _GROUPS.values() for name, place in group.items()}

#: Family name -> modality, of those that make other than pictures, or need captions, too; equal to the
#: classes' own.
_OTHERS: dict[str, str] = {
    "ctgan": "tables",
    "dfgan": "captions",
    "lm": "texts",
    "musegan": "music",
    "pretext": "pretext",
    "relgan": "texts",
    "seqgan": "texts",
    "stackgan": "captions",
    "tvae": "tables",
    "wavegan": "sound",
}


def modality_of(name: str) -> str:
    """Which data a family learns from and makes, without importing it.

    Raises:
        UserError: no family has this name.
    """
    _find(name)
    return _OTHERS.get(name, "pictures")


def names() -> list[str]:
    """All family names."""
    return list(_REGISTRY)


def groups() -> dict[str, list[str]]:
    """The names by what the families are for, which is a heading in words."""
    return {heading: list(group) for heading, group in _GROUPS.items()}


def load_family(name: str) -> type[Family[Any]]:
    """The class of a family.

    Raises:
        UserError: no family has this name.
    """
    module, attribute = _find(name)
    return getattr(importlib.import_module(f"faussaire.families.{module}"), attribute)


@dataclass(frozen=True)
class Entry:
    """What can be told of a family without importing it.

    Attributes:
        name: as typed on the command line.
        summary: first line of the module's docstring.
        text: the whole docstring: paper, equations, what differs.
        fields: names of the family's own settings.
    """

    name: str
    summary: str
    text: str
    fields: tuple[str, ...]


@cache
def describe(name: str) -> Entry:
    """Read a family's page out of its source, without importing torch.

    Raises:
        UserError: no family has this name.
    """
    module, attribute = _find(name)
    tree = ast.parse(files("faussaire.families").joinpath(f"{module}.py").read_text("utf-8"))
    text = ast.get_docstring(tree) or ""
    config = _class(tree, f"{attribute}Config")
    fields = _fields(config)
    base = _base(config)
    while base in _SHARED:
        tree = ast.parse(files("faussaire").joinpath(_SHARED[base]).read_text("utf-8"))
        config = _class(tree, base)
        fields |= _fields(config)
        base = _base(config)
    return Entry(name, text.partition("\n")[0].rstrip("."), text, tuple(fields))


#: Where settings are that several families share.
_SHARED = {"GameConfig": "game.py", "CaptionedConfig": "captions/game.py"}


def _base(config: ast.ClassDef) -> str:
    """What a config adds to; empty where it stands alone."""
    return next((base.id for base in config.bases if isinstance(base, ast.Name)), "")


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _fields(config: ast.ClassDef) -> dict[str, None]:
    """Names of a dataclass's own fields, in order."""
    return {
        item.target.id: None
        for item in config.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def _find(name: str) -> tuple[str, str]:
    if name not in _REGISTRY:
        raise UserError(
            f"There is no family '{name}'.{nearest(name, _REGISTRY)}",
            f"The families are: {', '.join(_REGISTRY)}.",
        )
    return _REGISTRY[name]
