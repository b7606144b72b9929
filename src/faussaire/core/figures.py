"""Figures that say what they mean: a value, and everything that it depends on.

A figure is never a bare number. `fid[inception-2015,50000/train,clean]` names the features, how many
samples were compared with which pictures, and how these were resized; the record behind the name also
holds the checksum of the network's weights and the content key of the reference. Two figures are
compared only where all of that is equal.

No torch here: listing, comparing and reporting figures is instant.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from faussaire.core.errors import UserError, nearest
from faussaire.core.files import end_last_line, write_error

#: Grows when the definition of a figure changes, so that old and new ones are not compared.
REVISION = 1


@dataclass(frozen=True)
class Metric:
    """What is measured.

    Attributes:
        name: in names of figures and on the command line.
        title: for tables and pages.
        better: `lower` or `higher`; `real` where the figure should be that of real pictures.
        reading: a sentence for who has never met it.
        source: the paper.
        of: what is looked at: `sets` of examples, samples beside real ones; `pairs`, what was made of
            each picture beside what it should be; the `classes` that a model tells of labelled pictures;
            the `latents` that an encoder finds for pictures.
        modality: the kind of data that it is of.
    """

    name: str
    title: str
    better: str
    reading: str
    source: str
    of: Literal["sets", "pairs", "classes", "latents"] = "sets"
    modality: str = "pictures"


_ALL = (
    Metric(
        "fid",
        "Fréchet distance",
        "lower",
        "Distance between the clouds of real and generated features, each taken as a Gaussian: "
        "quality and variety in one number. Few samples make it look worse than it is.",
        "Heusel 2017, arXiv 1706.08500",
    ),
    Metric(
        "kid",
        "Kernel distance",
        "lower",
        "The same idea without the Gaussian, and unbiased: the figure for few pictures. "
        "Near zero, or below by chance, means indistinguishable.",
        "Bińkowski 2018, arXiv 1801.01401",
    ),
    Metric(
        "cmmd",
        "Gaussian kernel distance",
        "lower",
        "Maximum mean discrepancy with a Gaussian kernel on normalised features, times 1,000.",
        "Jayasumana 2024, arXiv 2401.09603",
    ),
    Metric(
        "is",
        "Inception score",
        "higher",
        "Whether a classifier is sure of each sample, and finds many classes among them. It "
        "never looks at your pictures, and means little for what is not in ImageNet.",
        "Salimans 2016, arXiv 1606.03498",
    ),
    Metric(
        "precision",
        "Precision",
        "higher",
        "Share of samples that lie where real pictures lie: quality.",
        "Kynkäänniemi 2019, arXiv 1904.06991",
    ),
    Metric(
        "recall",
        "Recall",
        "higher",
        "Share of real pictures that lie where samples lie: variety. Dropped modes lower it.",
        "Kynkäänniemi 2019, arXiv 1904.06991",
    ),
    Metric(
        "density",
        "Density",
        "higher",
        "Precision that counts how many real pictures surround a sample, so that outliers among "
        "the real ones do not flatter; it may exceed 1.",
        "Naeem 2020, arXiv 2002.09797",
    ),
    Metric(
        "coverage",
        "Coverage",
        "higher",
        "Share of real pictures with a sample nearby: variety.",
        "Naeem 2020, arXiv 2002.09797",
    ),
    Metric(
        "authenticity",
        "Authenticity",
        "real",
        "Share of samples that are no closer to a training picture than that picture's own "
        "nearest neighbour: well below the real value means copies of the training data.",
        "Alaa 2022, arXiv 2102.08921",
    ),
    Metric(
        "swd",
        "Sliced Wasserstein distance",
        "lower",
        "Distance between small patches at each scale, from coarse shapes to fine texture, "
        "times 1,000. It needs no network.",
        "Karras 2018, arXiv 1710.10196",
    ),
    Metric(
        "ms-ssim",
        "MS-SSIM of pairs",
        "real",
        "How alike two samples are on average: well above the real value means little variety.",
        "Odena 2017, arXiv 1610.09585",
    ),
    Metric(
        "ppl",
        "Perceptual path length",
        "lower",
        "How abruptly pictures change on a walk through the latent space.",
        "Karras 2019, arXiv 1812.04948",
    ),
    Metric(
        "class-fid",
        "Fréchet distance by class",
        "lower",
        "The mean over classes of the Fréchet distance between samples and pictures of a class.",
        "Miyato 2018, arXiv 1802.05637",
    ),
    Metric(
        "cas",
        "Classification accuracy score",
        "higher",
        "Accuracy on real pictures of a classifier that was trained on samples alone.",
        "Ravuri 2019, arXiv 1905.10887",
    ),
    Metric(
        "l1",
        "Absolute difference",
        "lower",
        "Mean difference from the true picture, as a share of the whole range. Of two answers that "
        "are both likely it prefers the blurred one between them.",
        "Isola 2017, arXiv 1611.07004",
        of="pairs",
    ),
    Metric(
        "psnr",
        "PSNR",
        "higher",
        "Squared difference from the true picture, in decibels: 3 more are half of the error. It "
        "prefers blurred answers, too. Equal pictures get 100.",
        "Ledig 2017, arXiv 1609.04802",
        of="pairs",
    ),
    Metric(
        "psnr_luma",
        "PSNR of luma",
        "higher",
        "PSNR of Y as papers on super-resolution have it: of whole levels, without a border as "
        "wide as the scale.",
        "Ledig 2017, arXiv 1609.04802",
        of="pairs",
    ),
    Metric(
        "ssim_luma",
        "SSIM of luma",
        "higher",
        "Likeness of small windows in brightness, contrast and structure, measured on Y; 1 for "
        "equal pictures.",
        "Wang 2004, doi 10.1109/TIP.2003.819861",
        of="pairs",
    ),
    Metric(
        "perceptual",
        "Perceptual distance",
        "lower",
        "How different a picture looks from the true one to a network that knows pictures: sharp "
        "answers that miss by a pixel are forgiven, blurred ones are not.",
        "Zhang 2018, arXiv 1801.03924",
        of="pairs",
    ),
    Metric(
        "l1_hole",
        "Absolute difference in the hole",
        "lower",
        "The difference from the true picture where something was missing, and nowhere else.",
        "Pathak 2016, arXiv 1604.07379",
        of="pairs",
    ),
    Metric(
        "psnr_hole",
        "PSNR in the hole",
        "higher",
        "PSNR where something was missing, and nowhere else.",
        "Pathak 2016, arXiv 1604.07379",
        of="pairs",
    ),
    Metric(
        "colourfulness",
        "Colourfulness",
        "real",
        "How colourful pictures are: 0 for grey ones, about 40 for photographs. Well below the real "
        "value means brown, which is what differences alone ask for.",
        "Hasler 2003, doi 10.1117/12.477378",
        of="pairs",
    ),
    Metric(
        "consistency",
        "Consistency",
        "higher",
        "PSNR between the input and what was made of it, made small again. Low means that more was "
        "changed than detail.",
        "Lugmayr 2021, doi 10.1109/CVPRW53098.2021.00072",
        of="pairs",
    ),
    Metric(
        "cycle_l1",
        "There and back",
        "lower",
        "Mean difference between a picture and what became of it there and back. It tells that "
        "nothing is lost on the way, not that the way leads anywhere: doing nothing gets 0.",
        "Zhu 2017, arXiv 1703.10593",
        of="pairs",
    ),
    Metric(
        "elbo",
        "-ELBO",
        "lower",
        "How surprised the model is by pictures that it has not seen, in nats each: at most so much, "
        "which is what a VAE lowers. Only models of the same likelihood and pictures compare.",
        "Kingma 2014, arXiv 1312.6114",
        of="latents",
    ),
    Metric(
        "active-units",
        "Active units",
        "higher",
        "How many latent numbers say anything of a picture: their mean varies by more than .01 from "
        "picture to picture. The others are noise that the decoder ignores; many are no fault.",
        "Burda 2016, arXiv 1509.00519",
        of="latents",
    ),
    Metric(
        "nll",
        "Surprise",
        "lower",
        "How surprised the model is by real sentences that it has not seen, in nats a token. "
        "Dropped kinds of sentences raise it. Only models of the same vocabulary compare.",
        "Zhu 2018, arXiv 1802.01886",
        modality="texts",
    ),
    Metric(
        "bleu",
        "BLEU by sentence",
        "higher",
        "Share of the runs of one to four tokens that occur in some real sentence: quality. A "
        "model that writes one good sentence for ever has a fine one, so read it beside Self-BLEU.",
        "Papineni 2002, doi 10.3115/1073083.1073135",
        modality="texts",
    ),
    Metric(
        "sacrebleu",
        "BLEU of the corpus",
        "higher",
        "BLEU as everybody has it, 0 to 100, with the signature of how it was counted.",
        "Post 2018, arXiv 1804.08771",
        modality="texts",
    ),
    Metric(
        "self-bleu",
        "Self-BLEU",
        "real",
        "BLEU of each sentence beside all the others that were written: well above the real value "
        "means little variety.",
        "Zhu 2018, arXiv 1802.01886",
        modality="texts",
    ),
    Metric(
        "copies",
        "Copies",
        "real",
        "Share of sentences that are in the training data word for word. Short common sentences are "
        "everywhere; well above the real value means learning by heart.",
        "Caccia 2018, arXiv 1811.02549",
        modality="texts",
    ),
    Metric(
        "music-gap",
        "Gap to the music",
        "lower",
        "How far the figures of phrases lie from the data's, as a share of how far noise of equal "
        "density lies: 0 is as the data, 1 as noise.",
        "the mean of figures of Dong 2018, arXiv 1709.06298",
        modality="music",
    ),
    Metric(
        "empty-bars",
        "Empty bars",
        "real",
        "The share of bars in which a track is silent.",
        "Dong 2018, arXiv 1709.06298",
        modality="music",
    ),
    Metric(
        "pitch-classes",
        "Used pitch classes",
        "real",
        "How many of the twelve pitch classes a track uses in a bar; noise uses most of them.",
        "Dong 2018, arXiv 1709.06298",
        modality="music",
    ),
    Metric(
        "qualified-notes",
        "Qualified notes",
        "real",
        "The share of notes that last two steps or more; few are fragments.",
        "Dong 2018, arXiv 1709.06298",
        modality="music",
    ),
    Metric(
        "polyphony",
        "Polyphony",
        "real",
        "How many notes a track plays at once, where it plays.",
        "Dong 2018, arXiv 1709.06298",
        modality="music",
    ),
    Metric(
        "drum-pattern",
        "Drum pattern",
        "real",
        "The share of drum beats on eighths or sixteenths.",
        "Dong 2018, arXiv 1709.06298",
        modality="music",
    ),
    Metric(
        "tonal-distance",
        "Tonal distance",
        "real",
        "How far two tracks are apart in harmony, beat by beat. Voices that do not listen to each "
        "other are further apart than those of music.",
        "Harte 2006, doi 10.1145/1178723.1178727",
        modality="music",
    ),
    Metric(
        "accuracy",
        "Accuracy",
        "higher",
        "The share of labelled pictures whose class the model tells. As given: what telling always the "
        "most frequent class gets.",
        "Salimans 2016, arXiv 1606.03498",
        of="classes",
    ),
    Metric(
        "log-mel",
        "Log-mel distance",
        "lower",
        "How far loudness and its changes in each band of the ear lie from the recordings', in dB.",
        "mean and deviation by band",
        modality="sound",
    ),
    Metric(
        "mel-nearest",
        "Nearest recording",
        "real",
        "How far a clip is from the recording most like it, in dB. Well below the real value means "
        "that recordings were learnt by heart.",
        "log-mel spectrograms",
        modality="sound",
    ),
    Metric(
        "class-score",
        "Classifier score",
        "higher",
        "The Inception Score by a classifier that was taught the recordings' own classes: clear "
        "and varied clips get up to as many as there are classes.",
        "Donahue 2019, arXiv 1802.04208",
        modality="sound",
    ),
    Metric(
        "class-kept",
        "Classes kept",
        "higher",
        "The share of clips that this classifier tells to be of the class that was asked for.",
        "Donahue 2019, arXiv 1802.04208",
        modality="sound",
    ),
    Metric(
        "pretext-accuracy",
        "Answers right",
        "higher",
        "The share of questions about unseen pictures (how they were turned, where a patch lies, if "
        "frames are in order) that are answered right. As given: by guessing. What the features are "
        "worth to a classifier, only a classifier tells.",
        "Doersch 2015, Misra 2016, Gidaris 2018",
        modality="pretext",
    ),
    Metric(
        "tstr",
        "Learnt from synthetic rows, tested on real ones",
        "higher",
        "How well a linear model that learnt from synthetic rows tells a column of real rows: F1, or R "
        "squared of numbers. Beside it, the same learnt from real rows; and from synthetic ones whose "
        "columns were shuffled by themselves, as given.",
        "Esteban 2017, arXiv 1706.02633",
        modality="tables",
    ),
    Metric(
        "augmented",
        "Learnt from real and synthetic rows",
        "higher",
        "The same learnt from the training rows and synthetic ones together. Above the real value, "
        "synthetic rows help, which they may where real ones are scarce.",
        "Xu 2019, arXiv 1907.00503",
        modality="tables",
    ),
    Metric(
        "shapes",
        "Shapes of columns",
        "lower",
        "Mean distance between real and synthetic columns: Kolmogorov and Smirnov's for numbers, total "
        "variation for categories. 0 is alike, 1 has nothing in common.",
        "SDMetrics' column shapes, the other way round",
        modality="tables",
    ),
    Metric(
        "pairs",
        "Relations of columns",
        "lower",
        "Mean difference in how much pairs of columns have to do with each other: Pearson's "
        "correlation, Cramer's V, correlation ratio. As given: of columns that have nothing.",
        "Cramer 1946; Pearson 1896",
        modality="tables",
    ),
    Metric(
        "nearer",
        "Nearer to training rows",
        "real",
        "Share of synthetic rows whose closest row was trained on rather than held out, of as many "
        "rows of each. Above one half, rows are known by heart.",
        "Zhao 2021, arXiv 2102.08369",
        modality="tables",
    ),
    Metric(
        "exact-copies",
        "Exact copies",
        "real",
        "Share of synthetic rows that equal a training row. Rows of few columns are equal by chance: "
        "beside it stands how many new real rows are.",
        "Zhao 2021, arXiv 2102.08369",
        modality="tables",
    ),
    Metric(
        "r-precision",
        "R-precision, trained captions",
        "higher",
        "Share of pictures whose own caption is found first among 100, by an eye that learned which "
        "real pictures and captions belong together; by chance it is 1 %. Beside it stands what real "
        "pictures get. The eye is the run's own, so runs with other eyes are not compared.",
        "Xu 2018, arXiv 1711.10485",
        modality="captions",
    ),
    Metric(
        "r-precision-new",
        "R-precision, new captions",
        "higher",
        "The same of captions that no picture has that was trained on: whether words were understood, "
        "or captions learnt by heart.",
        "Xu 2018, arXiv 1711.10485",
        modality="captions",
    ),
    Metric(
        "matched",
        "Own caption preferred",
        "higher",
        "Share of pictures that the discriminator finds more real beside their own caption than beside "
        "another; one half is chance. Beside it stands what real pictures get.",
        "Reed 2016, arXiv 1605.05396",
        modality="captions",
    ),
    Metric(
        "matched-new",
        "Own new caption preferred",
        "higher",
        "The same of captions that no picture has that was trained on.",
        "Reed 2016, arXiv 1605.05396",
        modality="captions",
    ),
    Metric(
        "caption-variety",
        "Variety of one caption",
        "higher",
        "How far apart pictures of one caption are, as a share of how far apart those of different ones "
        "are: 0 is one picture a caption, 1 means that captions decide nothing.",
        "this project",
        modality="captions",
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
assert len(METRICS) == len(_ALL), "two metrics have one name"
OF_SETS = tuple(
    metric.name
    for metric in METRICS.values()
    if metric.modality == "pictures" and metric.of == "sets"
)
"""Metrics of sets of pictures, whatever they were made of."""


def metrics_of(modality: str) -> tuple[str, ...]:
    """Names of the metrics of one kind of data."""
    return tuple(metric.name for metric in METRICS.values() if metric.modality == modality)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All that a figure depends on, besides the generator. Equal provenance: comparable figures.

    Attributes:
        metric: a key of `METRICS`.
        extractor: the network that turned pictures into features; empty where none did.
        weights: first digits of its weight file's SHA-256.
        resize: how pictures were brought to the network's size.
        count: samples measured.
        reference: name of the pictures compared with (`train`); empty where there are none. It does
            not decide whether figures compare: the key does.
        reference_count: how many of them.
        reference_key: content key of their pack.
        whole: whether these are all the pictures of the reference.
        pictures: size of the pictures, `HxWxC`.
        details: parameters of the metric, such as `k=3`.
        revision: of the definition.
    """

    metric: str
    extractor: str = ""
    weights: str = ""
    resize: str = ""
    count: int = 0
    reference: str = field(default="", compare=False)  # a word for what the key says exactly
    reference_count: int = 0
    reference_key: str = ""
    whole: bool = True
    pictures: str = ""
    details: str = ""
    revision: int = REVISION

    @property
    def name(self) -> str:
        """`kid[squeezenet1.1,10000/train,clean,100x1000]`; a part of a reference has its count.

        Of pairs: `psnr_luma[held-out,96 pairs,x2,border=2]`.
        """
        known = METRICS.get(self.metric)
        against = self.reference + ("" if self.whole else f":{self.reference_count}")
        counts = f"{self.count}/{against}" if self.reference else str(self.count)
        if known is not None and known.of == "pairs":
            counts = f"{self.reference},{self.count} pairs"
        parts = (self.extractor, counts, self.resize, self.details)
        return f"{self.metric}[{','.join(filter(None, parts))}]"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes:
        provenance: what it means.
        value: the figure.
        error: its standard error, or for the Inception Score its deviation over splits.
        real: the same between two parts of the real pictures (or of real pictures, where the metric
            looks at one set), of counts as near to the figure's own as there are pictures for: its
            floor, or its ceiling.
        real_counts: the counts behind `real`.
        given: the same of pictures as they were given, for metrics of pairs: what doing nothing gets.
        parts: the figure by class, or by scale.
        circumstances: run, checkpoint, seed, time taken, versions: what does not change its meaning.
    """

    provenance: Provenance
    value: float
    error: float | None = None
    real: float | None = None
    real_counts: str = ""
    given: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    circumstances: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The provenance's name."""
        return self.provenance.name

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return METRICS[self.provenance.metric]

    @property
    def examples(self) -> int | None:
        """Examples the model had seen; None where the samples came from elsewhere."""
        found = self.circumstances.get("examples")
        return found if isinstance(found, int) else None

    def record(self) -> dict[str, Any]:
        """One line of `metrics.jsonl`."""
        return {
            "name": self.name,
            "value": self.value,
            "error": self.error,
            "real": self.real,
            "real_counts": self.real_counts,
            "given": self.given,
            "parts": dict(self.parts),
            **dataclasses.asdict(self.provenance),
            **self.circumstances,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Figure:
        """The figure of one line.

        Raises:
            KeyError, TypeError, ValueError: the record is none.
        """
        plain = Provenance(metric="")  # of whose types the facts must be
        facts = {
            part.name: type(getattr(plain, part.name))(record[part.name])
            for part in dataclasses.fields(Provenance)
        }
        if facts["metric"] not in METRICS:
            raise ValueError(f"no metric '{facts['metric']}'")
        own = {"name", "value", "error", "real", "real_counts", "given", "parts", *facts}
        return cls(
            provenance=Provenance(**facts),
            value=float(record["value"]),
            error=None if record["error"] is None else float(record["error"]),
            real=None if record["real"] is None else float(record["real"]),
            real_counts=str(record["real_counts"]),
            given=None
            if record.get("given") is None
            else float(record["given"]),  # newer than the rest
            parts={str(name): float(value) for name, value in record["parts"].items()},
            circumstances={key: value for key, value in record.items() if key not in own},
        )

    def distance(self) -> float:
        """How far from perfect, to rank by: smaller is better whatever the metric."""
        if self.metric.better == "real":
            return abs(self.value - (self.real if self.real is not None else 0.0))
        return self.value if self.metric.better == "lower" else -self.value

    def better_than(self, other: Figure) -> bool:
        """Whether this is the better of two comparable figures.

        Raises:
            UserError: their provenance differs, with the differences.
        """
        require_comparable(self, other)
        return self.distance() < other.distance()


def differences(one: Provenance, other: Provenance) -> dict[str, tuple[Any, Any]]:
    """The parts of provenance that differ, each with both values."""
    return {
        part.name: (getattr(one, part.name), getattr(other, part.name))
        for part in dataclasses.fields(Provenance)
        if part.compare and getattr(one, part.name) != getattr(other, part.name)
    }


_WORDS = {
    "metric": "the metric is",
    "extractor": "the extractor is",
    "weights": "the extractor's weights are",
    "resize": "the resizing is",
    "count": "the number of samples is",
    "reference_count": "the number of reference pictures is",
    "reference_key": "the content of the reference is",
    "whole": "that all of the reference was used is",
    "pictures": "the size of the pictures is",
    "details": "the metric's parameters are",
    "revision": "the version of the definition is",
}


def explain_differences(one: Provenance, other: Provenance) -> str:
    """`the extractor is squeezenet1.1 and inception-2015`; empty for equal provenance."""
    return "; ".join(
        f"{_WORDS[name]} {_word(old)} and {_word(new)}"
        for name, (old, new) in differences(one, other).items()
    )


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value or "none")


def require_comparable(one: Figure, other: Figure) -> None:
    """Refuse two figures that do not mean the same.

    Raises:
        UserError: with each difference.
    """
    if one.provenance != other.provenance:
        raise UserError(
            f"{one.name} and {other.name} cannot be compared: "
            f"{explain_differences(one.provenance, other.provenance)}.",
            "Measure both in the same way, with `faussaire evaluate`.",
        )


def choose_metrics(text: str | Sequence[str], known: Iterable[str] = METRICS) -> tuple[str, ...]:
    """Names of metrics from `fid,kid`, from `prdc` (four at once) or from a sequence.

    Raises:
        UserError: an unknown one, with the nearest.
    """
    words = text.split(",") if isinstance(text, str) else list(text)
    groups = {"prdc": ("precision", "recall", "density", "coverage"), "all": tuple(known)}
    chosen: list[str] = []
    for word in filter(None, (word.strip().lower() for word in words)):
        for name in groups.get(word, (word,)):
            if name not in METRICS:
                raise UserError(
                    f"There is no metric '{name}'.{nearest(name, METRICS)}",
                    f"There are: {', '.join(METRICS)}; prdc for four of them, and all.",
                )
            if name not in chosen:
                chosen.append(name)
    if not chosen:
        raise UserError("No metric was named.", f"There are: {', '.join(METRICS)}.")
    return tuple(chosen)


def append_figures(path: Path, figures: Sequence[Figure]) -> None:
    """Add lines to a `metrics.jsonl`: all of them in one write, after mending a torn last line.

    Raises:
        UserError: the file cannot be written.
    """
    text = "".join(_line(figure) for figure in figures)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            end_last_line(file)
            file.write(text.encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(error, path.parent, "The figures could not be written") from error


def _line(figure: Figure) -> str:
    return json.dumps(figure.record(), ensure_ascii=False, allow_nan=False) + "\n"


def read_figures(path: Path) -> list[Figure]:
    """The figures of a `metrics.jsonl`, oldest first; torn or foreign lines are passed over.

    Of the same figure measured twice at the same point of the same run, the later one counts.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found: dict[tuple[Any, ...], Figure] = {}
    for line in text.split("\n"):
        figure = _figure(line)
        if figure is not None:
            key = (figure.provenance, figure.examples, str(figure.circumstances.get("seed")))
            found.pop(key, None)
            found[key] = figure
    return list(found.values())


def _figure(line: str) -> Figure | None:
    try:
        figure = Figure.of(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return figure if math.isfinite(figure.value) else None
