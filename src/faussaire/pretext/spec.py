"""What self-supervision reads, as settings. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from faussaire.core.config import PictureData, check_range


@dataclass(frozen=True, kw_only=True)
class PretextData(PictureData):
    """How pictures are read, and for the order of time: clips.

    Attributes:
        holdout: share of the pictures (or clips) that is not trained on, by which answers are measured.
        clips: what the source of --task order holds: `strips`, pictures with square frames side by
            side; `folders` of frames, one for each clip, in the order of their names; `videos` (mp4,
            mov, mkv, webm ...), for which `pip install "faussaire[video]"` is needed; `auto` looks.
        span: frames from the first to the last of three; None: half of a short clip, 60 at most (the
            paper's).
        apart: frames by which a wrong middle lies before the first or behind the last at least; None: a
            quarter of span, as in the paper.
        every: take every so many frames of a clip.
    """

    holdout: float | None = 0.1
    clips: Literal["auto", "strips", "folders", "videos"] = "auto"
    span: int | None = None
    apart: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, every=(1, 10_000))
        if self.span is not None:
            check_range(self, span=(2, 100_000))
        if self.apart is not None:
            check_range(self, apart=(1, 100_000))
