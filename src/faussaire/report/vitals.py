"""The doctor's verdicts in words, and vital signs as charts, each with a sentence for beginners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from faussaire.core.quantity import format_count
from faussaire.doctor.remedies import advice
from faussaire.doctor.verdicts import MEANINGS, diagnose_run
from faussaire.report.curves import line_chart
from faussaire.report.figures import Curve
from faussaire.report.history import History, Series

_CHARTS: tuple[tuple[str, tuple[str, ...], str, dict[str, object]], ...] = (
    (
        "Who wins",
        ("win rate", "overfit"),
        "Win rate: how often the discriminator gives a real example more than a forgery; .5 is a "
        "discriminator that cannot tell, 1 one that always can. Overfit: the same for examples that it "
        "is trained on against real ones that it has never seen; away from .5 it learns by heart.",
        {"limits": (0.0, 1.0), "reference": (0.5, "cannot tell")},
    ),
    (
        "Distance to the data",
        ("distance",),
        "How far forgeries as a whole are from the real examples, by looks: 0 is alike, 1 as far as one "
        "single picture is from all. It falls while training helps.",
        {"limits": (None, None), "reference": (0.0, "alike")},
    ),
    (
        "Variety",
        ("diversity", "pixel diversity", "rank", "coverage"),
        "How unlike each other forgeries are, as a share of what real examples are: by looks and by "
        "pixels; in how many directions they vary (rank); and what share of the real examples has a "
        "forgery nearby (coverage). All towards 0 means collapse.",
        {"limits": (0.0, None), "reference": (1.0, "as real")},
    ),
    (
        "Copies",
        ("copying", "duplicates"),
        "Copying: how far forgeries are from the nearest training example, where 1 is what new real "
        "examples would give; far below 1 they are copies. Duplicates: share of forgeries that have a "
        "twin among the others.",
        {"limits": (0.0, None), "reference": (1.0, "new")},
    ),
    (
        "Flaws",
        ("checkerboard", "saturation"),
        "Checkerboard: detail that alternates from pixel to pixel, where 1 is what real pictures have. "
        "Saturation: share of values at the end of their range beyond that of real pictures.",
        {},
    ),
)


def vital_charts(vitals: Mapping[str, Series], marks: Sequence[tuple[float, str]]) -> list[Curve]:
    """The charts of the signs that a run has."""
    found: list[Curve] = []

    def add(names: Sequence[str], title: str, reading: str, **how: object) -> None:
        some = [vitals[name] for name in names if name in vitals]
        chart = line_chart(some, title=title, description=reading, marks=marks, **how)  # type: ignore[arg-type]
        if chart is not None:
            found.append(Curve(chart, reading))

    for title, names, reading, how in _CHARTS:
        add(names, title, reading, **how)
    add(
        ("labels told", "labels kept"),
        "Labels",
        "How well the class of a real example (told) and of a forgery (kept) can be told by its looks; "
        "0 is by chance. Kept far below told: the forger ignores the class that it is asked for.",
        limits=(None, 1.0),
    )
    classes = sorted(name for name in vitals if name.startswith("diversity of "))
    for first in range(0, min(len(classes), 20), 5):
        add(
            classes[first : first + 5],
            "Variety by class",
            "How unlike each other a class's forgeries are, as a share of what its real examples are.",
            limits=(0.0, None),
            reference=(1.0, "as real"),
        )
    add(
        [name for name in vitals if name.startswith("step ")],
        "Steps",
        "How far one update moves a player's weights, relative to their size. About a thousandth is "
        "usual; a hundredth is a rate too high for long runs; a sudden rise comes before divergence.",
        limits=(0.0, None),
    )
    return found


def told_verdicts(history: History, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The verdicts on a run with what belongs to each; none where nobody looked."""
    if not history.looks:
        return []
    found = []
    for verdict in diagnose_run(history.looks, history.outcome):
        since = f"Since {format_count(verdict.since)} examples" if verdict.since else ""
        if since and verdict.ill:
            since += f", confidence {verdict.confidence:.0%}"
        found.append(
            {
                "ill": verdict.ill,
                "title": verdict.title,
                "meaning": MEANINGS[verdict.name],
                "since": since,
                "evidence": [str(one) for one in verdict.evidence] if verdict.ill else [],
                "advice": advice(verdict, settings),
            }
        )
    return found
