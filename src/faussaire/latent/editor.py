"""A trained run as a place to edit pictures in: what `faussaire project` and `faussaire edit` do.

editor = faussaire.editor("runs/faces")
photo, = editor.project(["me.jpg"])
editor.learn("smile", ["smiling/"], ["serious/"])
editor.picture(editor.edit(photo, smile=2)).save("smile.png")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from faussaire.core.batch import mix
from faussaire.core.device import DeviceName
from faussaire.core.errors import UserError
from faussaire.core.run import Run
from faussaire.data.parallel import Progress
from faussaire.latent import directions as ways
from faussaire.latent.directions import Direction
from faussaire.latent.labels import Lessons, scored, taught
from faussaire.latent.likeness import Likeness, open_likeness
from faussaire.latent.photos import named, read_photo
from faussaire.latent.projection import Found, Search, Watcher, measured, project
from faussaire.latent.shelf import Latent, Shelf
from faussaire.latent.space import Space
from faussaire.latent.tuning import Tuning, load_tuned, save_tuned, tune
from faussaire.model import Model, load_pictures
from faussaire.report.film import slerp
from faussaire.report.pictures import beside, grid, to_image, to_uint8

By = Literal["classifier", "projection", "encoder"]

SAMPLES = 4000
"""Samples that a classifier labels, where the user does not say."""
SHARE = 0.1
"""Of them those at either end that a boundary is learnt from. The paper takes .02 of 500,000."""


@dataclass(frozen=True, kw_only=True)
class Projected(Latent):
    """The latent of a photograph, with what it is to be compared with.

    Attributes:
        photo: the photograph as the model's pictures are, (1, C, H, W) in [-1, 1].
        made: what the model makes of the latent, likewise.
        perceptual: their distance through the network.
        first: what the model made before it was tuned; None: it was not.
    """

    photo: Tensor
    made: Tensor
    perceptual: float = 0.0
    first: Tensor | None = None

    def latent(self) -> Latent:
        """Without the pictures, as it is saved."""
        names = [field.name for field in dataclasses.fields(Latent)]
        return Latent(**{name: getattr(self, name) for name in names})

    def comparison(self) -> Image.Image:
        """Photograph, picture (before and after tuning), and the size of the error, side by side.

        The error is the mean difference over channels, three times as bright as it is.
        """
        error = (self.made - self.photo).abs().mean(1, keepdim=True)
        error = (3.0 * error - 1.0).clamp(-1.0, 1.0).expand_as(self.photo[:, :3])
        before = [] if self.first is None else [self.first]
        parts = [self.photo, *before, self.made, error]
        count = len(parts)
        cells = [np.asarray(beside([part, part]).convert("RGB")) for part in parts]
        width = (cells[0].shape[1] - 2) // 2
        return grid(np.stack([cell[:, :width] for cell in cells]), columns=count, scale=1)


class Editor:
    """A model, its spaces, and the directions of its run.

    Args:
        model: of pictures from latents.
        run: its folder; None: directions live in memory only, and photographs are cut.
        label: the class that all pictures show, by name or number, for a conditional model.

    Attributes:
        shelf: the run's directions; None without a run.
        notes: what the user should know, as sentences, as it comes up.
    """

    def __init__(
        self, model: Model, run: Path | None = None, *, label: str | int | None = None
    ) -> None:
        self.model = model
        self.run = run
        self.shelf = None if run is None else Shelf(run / "directions")
        self.notes: list[str] = []
        self._settings = {} if run is None else Run(run).config()
        self._likeness: Likeness | None = None
        self._spaces: dict[tuple[str, str], Space] = {}
        self._known: dict[str, Direction] = {}
        self._label = None
        if label is not None:
            chosen = model.labels(label, 1)
            assert chosen is not None
            self._label = int(chosen[0])
        self.space()  # refuses here what cannot be edited

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        checkpoint: str = "latest",
        device: DeviceName = "auto",
        label: str | int | None = None,
    ) -> Editor:
        """The editor of a run, or of one of its checkpoints.

        Raises:
            UserError: there is none, or it makes no pictures of latents.
        """
        model = load_pictures(run, checkpoint=checkpoint, device=device)
        path = Path(run)
        return cls(model, None if path.is_file() else Run.around(path).path, label=label)

    # ---- What there is ----

    def space(self, name: str | None = None, tuned: Path | None = None) -> Space:
        """A space of the model, or of a generator that was tuned; the usual one by default.

        Raises:
            UserError: the family has none of this name.
        """
        name = name or self.model.family.spaces[0]
        key = (name, str(tuned or ""))
        if key not in self._spaces:
            device = self.model.device
            if tuned is None:
                found = Space(self.model.family, name, device=device.name, label=self._label)
            else:
                family = load_tuned(tuned, self.model.family, device)
                found = Space(family, name, device=device.name, label=self._label)
                # Tuning moves the generator around its codes; where these lie stays.
                found.spread = self.space(name).spread  # pyright: ignore[reportAttributeAccessIssue]
            self._spaces[key] = found
        return self._spaces[key]

    def likeness(
        self, name: str = "auto", weights: Path | None = None, progress: Progress | None = None
    ) -> Likeness:
        """The perceptual distance, opened once."""
        if self._likeness is None:
            self._likeness = open_likeness(
                name,
                weights=weights,
                device=self.model.device.name,
                note=self._note,
                progress=progress,
            )
        return self._likeness

    def directions(self) -> list[Direction]:
        """All that are known, of the run and of this session, by name."""
        kept = {} if self.shelf is None else {one.name: one for one in self.shelf.all()}
        return [one for _, one in sorted({**kept, **self._known}.items())]

    def direction(self, name: str) -> Direction:
        """One by its name.

        Raises:
            UserError: there is none.
        """
        if name in self._known:
            return self._known[name]
        if self.shelf is None:
            raise UserError(f"There is no direction '{name}'.", "Find it, or `keep` it, first.")
        found = self.shelf.load(name)
        if found.examples != self.model.examples:
            self._note(
                f"'{name}' was found when the model had seen {found.examples:,} examples, and it has "
                f"seen {self.model.examples:,} since: find it again if it does not do what it should."
            )
        return found

    def keep(self, direction: Direction, *, overwrite: bool = False) -> Direction:
        """Remember a direction, on disk where there is a run."""
        direction = dataclasses.replace(direction, examples=self.model.examples)
        if self.shelf is not None:
            self.shelf.save(direction, overwrite=overwrite)
        self._known[direction.name] = direction
        return direction

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    # ---- From photographs to latents ----

    def photo(self, source: str | Path | Image.Image) -> Tensor:
        """A photograph as the model's pictures are, (1, C, H, W) in [-1, 1].

        Raises:
            UserError: it cannot be read.
        """
        source = source if isinstance(source, Image.Image) else Path(source)
        return read_photo(source, self.model.spec, self._settings, self._note)

    def project(
        self,
        photos: Sequence[str | Path | Image.Image],
        *,
        space: str | None = None,
        search: Search | None = None,
        encoder: Any = None,
        seed: int = 0,
        watch: Watcher | None = None,
    ) -> list[Projected]:
        """The latents of photographs.

        Args:
            photos: files, folders, patterns, or Pillow images.
            space: `w`, `w+` or `z`; None: the family's usual one.
            search: how they are sought; with an encoder None: not at all, its guess is taken.
            encoder: a family `e4e` that was trained for this model, or the folder of its run.
            seed: of the search's noise.
            watch: sees how it goes.

        Raises:
            UserError: a photograph cannot be read, or the encoder is another model's.
        """
        images = [one for one in photos if isinstance(one, Image.Image)]
        words = [Path(one) for one in photos if not isinstance(one, Image.Image)]
        files = named(words) if words else []
        sources: list[Path | Image.Image] = [*files, *images]
        targets = torch.cat([self.photo(source) for source in sources])
        names = [path.name for path in files] + ["picture"] * len(images)
        if self.model.conditional and self._label is None:
            raise UserError(
                "The model has classes, and nobody said which one the photographs show.",
                f"Name it: --class {self.model.spec.classes[0]}; in Python, `label`.",
            )
        found = self._projected(targets, space, search, encoder, seed, watch)
        return [
            Projected(
                space=found.space,
                code=found.codes[row : row + 1],
                noise=None if found.noise is None else found.noise[row : row + 1],
                label=self._label,
                examples=self.model.examples,
                source=name,
                psnr=float(found.psnr[row]),
                photo=targets[row : row + 1],
                made=found.made[row : row + 1],
                perceptual=float(found.perceptual[row]),
            )
            for row, name in enumerate(names)
        ]

    def _projected(
        self,
        targets: Tensor,
        space: str | None,
        search: Search | None,
        encoder: Any,
        seed: int,
        watch: Watcher | None,
    ) -> Found:
        likeness = self.likeness()
        if encoder is None:
            return project(self.space(space), targets, likeness, search, seed=seed, watch=watch)
        encoder = self.encoder(encoder)
        codes = self.encoded(encoder, targets)
        where = self.space(encoder.space if space is None else space)
        if where.layers == 1 and codes.shape[1] > 1:
            codes = codes.mean(1, keepdim=True)
        if search is not None:
            return project(where, targets, likeness, search, start=codes, seed=seed, watch=watch)
        goal = targets.to(where.device)
        labels = where.labels(len(targets))
        codes = codes.expand(-1, where.layers, -1)
        return measured(where, codes, None, labels, goal, likeness)

    def encoder(self, run: Any) -> Any:
        """An encoder from the folder of its run, proved to be this model's.

        Raises:
            UserError: it encodes for another model, or nothing.
        """
        family = run if not isinstance(run, str | Path) else load_pictures(run).family
        if not hasattr(family, "codes"):
            raise UserError(
                f"'{run}' holds {type(family).__name__.lower()}, which encodes no pictures.",
                "Train an encoder: faussaire train e4e photos/ --generator RUN.",
            )
        family.prove(self.model.family)
        return family

    @torch.no_grad()
    def encoded(self, encoder: Any, pictures: Tensor) -> Tensor:
        """Codes of pictures (N, C, H, W) in [-1, 1] by an encoder, (N, layers, numbers)."""
        return torch.cat(
            [encoder.codes(part.to(self.model.device.name)) for part in pictures.split(64)]
        )

    def tune(
        self,
        found: Sequence[Projected],
        path: Path,
        *,
        tuning: Tuning | None = None,
        seed: int = 0,
        watch: Watcher | None = None,
    ) -> list[Projected]:
        """The same latents with a generator that was tuned to them, saved at `path`.

        Args:
            found: of `project`, all of one space.
            path: ends in .safetensors; the run itself is not touched.
            tuning: how.
            seed: of the codes near the latents.
            watch: sees how it goes.
        """
        space, likeness = self.space(found[0].space), self.likeness()
        noise = found[0].noise
        targets = torch.cat([one.photo for one in found])
        whole = Found(
            space=space.name,
            codes=torch.cat([one.code for one in found]),
            noise=None if noise is None else torch.cat([one.noise for one in found]),  # pyright: ignore
            labels=space.labels(len(found)),
            made=torch.cat([one.made for one in found]),
            psnr=torch.zeros(len(found)),
            perceptual=torch.zeros(len(found)),
        )
        view = tune(
            space,
            whole,
            targets,
            likeness,
            tuning,
            place=self.model.device,
            seed=seed,
            watch=watch,
        )
        facts = {"examples": self.model.examples, "sources": [one.source for one in found]}
        save_tuned(path, view, facts)
        self._spaces.pop((space.name, str(path)), None)
        here = self.space(space.name, path)
        goal = targets.to(here.device)
        codes = whole.codes.to(here.device)
        better = measured(here, codes, whole.noise, whole.labels, goal, likeness)
        return [
            dataclasses.replace(
                one,
                tuned=path,
                first=one.made,
                made=better.made[row : row + 1],
                psnr=float(better.psnr[row]),
                perceptual=float(better.perceptual[row]),
            )
            for row, one in enumerate(found)
        ]

    def samples(
        self, seeds: Sequence[int], *, space: str | None = None, truncation: float | None = None
    ) -> list[Latent]:
        """The latents of the model's own pictures of these seeds, as `Model.sample(seeds=...)` has them.

        Args:
            seeds: the first picture of each.
            space: None: the family's usual one.
            truncation: the share of the way from the mean, in W.

        Raises:
            UserError: a truncation where there is no W.
        """
        where = self.space(space)
        codes = where.draw(len(seeds), seeds=seeds)
        if truncation is not None:
            codes = self._truncated(where, codes, truncation)
        labels = where.labels(len(seeds))
        return [
            Latent(
                space=where.name,
                code=codes[row : row + 1].expand(-1, where.layers, -1).cpu(),
                label=None if labels is None else int(labels[row]),
                examples=self.model.examples,
                source=f"seed{seed}",
            )
            for row, seed in enumerate(seeds)
        ]

    def _truncated(self, space: Space, codes: Tensor, share: float) -> Tensor:
        if space.name == "z":
            raise UserError(
                f"{type(self.model.family).__name__.lower()} has no mean picture to go towards.",
                "Leave --truncation out; stylegan2 has one.",
            )
        return space.truncated(codes, share)

    # ---- Directions ----

    def find(
        self,
        how: Literal["pca", "sefa"],
        count: int = 10,
        *,
        space: str | None = None,
        layers: tuple[int, int] | None = None,
        seed: int = 0,
        overwrite: bool = False,
    ) -> list[Direction]:
        """Find directions without labels, and keep them: `pca1`, `pca2` ... or `sefa1` ...

        Args:
            how: by principal components, or in closed form.
            count: how many.
            space: None: the family's usual one.
            layers: first and last of the layers that count and are moved; None: all.
            seed: of the samples.
            overwrite: replace those of the same names.
        """
        where = self.space(space)
        if how == "sefa":
            found = ways.closed_form(where, count, layers=layers)
        else:
            found = ways.principal(where, count, seed=seed)
            if layers is not None:
                self._layers(where, layers)
                suffix = f"_{layers[0]}_{layers[1]}"
                found = [
                    dataclasses.replace(one, name=one.name + suffix, layers=layers) for one in found
                ]
        return [self.keep(one, overwrite=overwrite) for one in found]

    def _layers(self, space: Space, layers: tuple[int, int]) -> None:
        first, last = layers
        if not 0 <= first <= last < space.depth:
            raise UserError(
                f"There are no layers {first} to {last}.",
                f"They are 0 to {space.depth - 1}." if space.depth > 1 else "z has no layers.",
            )

    def learn(
        self,
        name: str,
        yes: Sequence[str | Path],
        no: Sequence[str | Path],
        *,
        by: By = "classifier",
        space: str | None = None,
        encoder: Any = None,
        search: Search | None = None,
        count: int = SAMPLES,
        share: float = SHARE,
        seed: int = 0,
        overwrite: bool = False,
        watch: Watcher | None = None,
        progress: Progress | None = None,
    ) -> Direction:
        """Learn a direction from pictures with something and pictures without, and keep it.

        Args:
            name: of the direction.
            yes, no: files or folders of pictures with it, and without.
            by: `classifier`: a small network learns to tell them, and labels the model's samples;
                `projection`: they are projected; `encoder`: encoded.
            space: None: the family's usual one; a direction of W serves W+.
            encoder: for `encoder`.
            search: for `projection`.
            count: samples that the classifier labels.
            share: of them those at either end that count.
            seed: of samples and classifier.
            overwrite: replace a direction of this name.
            watch, progress: see how it goes.
        """
        files = [named([Path(one) for one in side]) for side in (yes, no)]
        where = self.space("z" if (space or self.model.family.spaces[0]) == "z" else "w")
        facts: dict[str, Any] = {"by": by}
        if by == "classifier":
            found, facts = self._classified(name, files, where, count, share, seed, progress)
            codes, labels = found
        else:
            targets = torch.cat([self.photo(path) for side in files for path in side])
            if by == "encoder" and encoder is None:
                raise UserError("No encoder was named.", "Name its run: --encoder runs/encoder")
            chosen = encoder if by == "encoder" else None
            codes = self._projected(targets, where.name, search, chosen, seed, watch).codes
            labels = np.repeat([True, False], [len(side) for side in files])
        direction = ways.separating(where, name, codes, labels, facts=facts, seed=seed)
        return self.keep(direction, overwrite=overwrite)

    def _classified(
        self,
        name: str,
        files: list[list[Path]],
        space: Space,
        count: int,
        share: float,
        seed: int,
        progress: Progress | None,
    ) -> tuple[tuple[Tensor, np.ndarray], dict[str, Any]]:
        """Codes of the model's samples that a classifier is surest of, and what it says of them."""
        pictures = [np.concatenate([to_uint8(self.photo(path)) for path in side]) for side in files]
        if min(map(len, pictures)) < 8:
            raise UserError(
                f"'{name}' cannot be learnt from {len(pictures[0])} pictures with it and "
                f"{len(pictures[1])} without by a classifier.",
                "Give at least 8 of each (hundreds are better), or take --by projection.",
            )
        labels = np.repeat([1, 0], [len(side) for side in pictures])
        lessons = Lessons(np.concatenate(pictures), labels)
        net, right = taught(lessons, device=self.model.device, seed=seed, progress=progress)
        codes = space.draw(count, mix(seed, "labelled"))
        shown = space.show(codes, labels=space.labels(count, mix(seed, "labelled")))
        scores = scored(net, shown.to(self.model.device.name))
        high, low = ways.ends(scores, share)
        if not (scores[high] > 0).all() or not (scores[low] < 0).all():
            self._note(
                f"Of {count:,} samples the classifier finds {(scores > 0).mean():.0%} with '{name}', "
                "fewer on one side than are taken: the direction may be weak."
            )
        chosen = np.concatenate([high, low])
        yes = np.repeat([True, False], [len(high), len(low)])
        facts = {"by": "classifier", "classifier_accuracy": right}
        return (codes[torch.from_numpy(chosen).to(codes.device)], yes), facts

    # ---- Editing ----

    def edit(
        self,
        latent: Latent,
        strengths: Mapping[str, float] | None = None,
        *,
        without: Sequence[str] = (),
        truncation: float | None = None,
        **named_strengths: float,
    ) -> Latent:
        """A latent moved along directions.

        Args:
            latent: of a photograph or a sample.
            strengths: in standard deviations, by the names of directions.
            without: directions that are to stay as they are: what those moved have of them is
                projected away.
            truncation: in W, the share of the way from the mean that is left.
            named_strengths: as `strengths`: `smile=2`.

        Raises:
            UserError: no such direction, or it is of another space.
        """
        base = self.space("z" if latent.space == "z" else "w")
        others = [self.direction(name) for name in without]
        asked = {**(strengths or {}), **named_strengths}
        steps = [
            (ways.without(self.direction(name), others, base), strength)
            for name, strength in asked.items()
        ]
        code = latent.code
        depth = max((one.layers[1] for one, _ in steps if one.layers is not None), default=-1)
        space = latent.space
        if depth >= 0 and space == "w":
            code, space = code.expand(-1, base.depth, -1), "w+"
        code = ways.moved(code, space, steps)
        if truncation is not None:
            code = self._truncated(base, code.to(base.device), truncation).cpu()
        plain = latent.latent() if isinstance(latent, Projected) else latent
        return dataclasses.replace(plain, code=code, space=space)

    def strip(
        self,
        latent: Latent,
        name: str,
        strengths: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3),
        *,
        without: Sequence[str] = (),
    ) -> list[Latent]:
        """A latent at several strengths of one direction."""
        return [self.edit(latent, {name: value}, without=without) for value in strengths]

    def mixed(self, coarse: Latent, fine: Latent, at: int) -> Latent:
        """Layers before `at` of one latent, the others of another (Karras 2019, section 3.1).

        Raises:
            UserError: there is no such layer, or the latents have none.
        """
        if "z" in (coarse.space, fine.space):
            raise UserError(
                "Latents of z have no layers whose styles could be mixed.",
                "Mix latents of w or w+; stylegan2 has them. Between two of z, make a --film.",
            )
        depth = self.space("w+").layers
        if not 0 <= at <= depth:
            raise UserError(f"There is no layer {at} to mix at.", f"Choose 0 to {depth}.")
        one, other = (each.code.expand(-1, depth, -1) for each in (coarse, fine))
        code = torch.cat([one[:, :at], other[:, at:]], dim=1)
        plain = coarse.latent() if isinstance(coarse, Projected) else coarse
        return dataclasses.replace(
            plain, code=code, space="w+", source=f"{coarse.source}+{fine.source}"
        )

    def between(
        self, points: Sequence[Latent], frames: int, *, closed: bool = False
    ) -> Iterator[Latent]:
        """A walk through latents: straight lines in W, arcs in z.

        Args:
            points: at least two, all of z or none.
            frames: of the whole walk.
            closed: back to the first, the last frame being one step before it.

        Raises:
            UserError: too few, or of different spaces.
        """
        if len(points) < 2:
            raise UserError("A walk needs two latents at least.", "Give two photographs or seeds.")
        if len({point.space == "z" for point in points}) > 1:
            raise UserError("Latents of z and of w are not of one space.", "Project both alike.")
        layers = max(point.code.shape[1] for point in points)
        codes = torch.cat([point.code.expand(-1, layers, -1) for point in points])
        legs = len(points) if closed else len(points) - 1
        space = points[0].space if layers == 1 else "w+"
        for frame in range(frames):
            place = frame * legs / (frames if closed else max(1, frames - 1))
            leg = min(int(place), legs - 1)
            one, other = codes[leg], codes[(leg + 1) % len(points)]
            share = place - leg
            if space == "z":
                arc = slerp(one.numpy(), other.numpy(), share)
                code = torch.from_numpy(arc.astype(np.float32))
            else:
                code = torch.lerp(one, other, share)
            plain = points[leg].latent() if isinstance(points[leg], Projected) else points[leg]
            yield dataclasses.replace(plain, code=code[None], space=space)

    # ---- Pictures ----

    def render(self, latents: Sequence[Latent]) -> Tensor:
        """Pictures of latents, (N, C, H, W) in [-1, 1], on the CPU, each by its own generator.

        Raises:
            UserError: a latent is of another model.
        """
        return torch.cat([self._rendered(latent) for latent in latents])

    def _rendered(self, latent: Latent) -> Tensor:
        space = self.space(latent.space, latent.tuned)
        if latent.code.shape[1:] != (space.layers, space.width):
            raise UserError(
                f"A latent of {latent.code.shape[1]} times {latent.code.shape[2]} numbers is none of "
                f"this model, which has {space.layers} times {space.width}.",
                "Give the run that it was projected with.",
            )
        labels = None if latent.label is None else torch.tensor([latent.label])
        return space.show(latent.code, latent.noise, labels)

    def picture(self, latent: Latent) -> Image.Image:
        """One latent's picture."""
        return to_image(to_uint8(self.render([latent]))[0])

    def grid(self, latents: Sequence[Latent], columns: int | None = None) -> Image.Image:
        """Pictures of latents side by side."""
        return grid(to_uint8(self.render(latents)), columns)

    def frames(self, latents: Sequence[Latent] | Iterator[Latent]) -> Iterator[np.ndarray]:
        """Pictures of latents as a film's frames, (H, W, C) uint8, small ones enlarged."""
        for latent in latents:
            cell = grid(to_uint8(self.render([latent])))
            yield np.asarray(cell.convert("RGB"))


def facts(projected: Projected) -> dict[str, Any]:
    """What is told of a projection, JSON-ready."""
    return {
        "source": projected.source,
        "space": projected.space,
        "psnr": projected.psnr,
        "perceptual": projected.perceptual,
        "tuned": None if projected.tuned is None else str(projected.tuned),
    }
