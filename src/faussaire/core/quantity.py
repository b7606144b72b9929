"""Quantities as people write them: `200k` examples, `10m` of time, `128x96` pixels.

No torch here: the command line parses with these before anything heavy is imported.
"""

from __future__ import annotations

import re

from faussaire.core.errors import UserError

_COUNT = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_count(text: str | float, least: int = 1) -> int:
    """Examples: `"200k"` -> 200000, `"1.5M"` -> 1500000, `"1e6"` -> 1000000, `"640"` -> 640.

    Raises:
        UserError: not a number of at least `least` with an optional k, M or G.
    """
    written = str(text).strip().lower()
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmg]?)", written)
    if match:
        count = float(match[1].replace("_", "")) * _COUNT[match[2]]
        if count >= least and (count >= 1 or count == 0):
            return round(count)
    raise UserError(f"'{text}' is not a number of examples.", "Write it as 5000, 200k or 1.5M.")


def parse_seeds(text: str) -> list[int]:
    """Seeds from a list of numbers and ranges, both ends included: `"0-3,7"` -> [0, 1, 2, 3, 7].

    Raises:
        UserError: not such a list, or more than 100,000 seeds.
    """
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < 100_000 - len(found):
            raise UserError(f"'{text}' is not a list of seeds.", "Write it as 0-31 or 3,7,100-103.")
        found += range(first, last + 1)
    return found


def parse_duration(text: str | float) -> float:
    """Seconds: `"90s"` -> 90.0, `"10m"` -> 600.0, `"1h30m"` -> 5400.0; a bare number is seconds.

    Raises:
        UserError: not a positive duration.
    """
    written = str(text).strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", written):
        seconds = float(written)
    elif re.fullmatch(r"(\d+(\.\d+)?\s*[smhd]\s*)+", written):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", written)
        seconds = sum(float(value) * _SECONDS[unit] for value, unit in parts)
    else:
        seconds = 0.0
    if seconds <= 0:
        raise UserError(f"'{text}' is not a length of time.", "Write it as 90s, 10m, 2h or 1h30m.")
    return seconds


def parse_resolution(text: str | int | tuple[int, int]) -> tuple[int, int]:
    """`(height, width)` in pixels from `"64"` or, as screens are named, `"WIDTHxHEIGHT"`.

    A pair of numbers is taken as it is: (height, width), as arrays have it.

    Raises:
        UserError: not one or two positive whole numbers.
    """
    if isinstance(text, tuple | list):
        if len(text) == 2 and all(isinstance(side, int) and side > 0 for side in text):
            return text[0], text[1]
        raise UserError(f"{text} is not a resolution.", "Give (height, width) in pixels.")
    match = re.fullmatch(r"(\d+)(?:\s*[x×]\s*(\d+))?", str(text).strip().lower())
    if match:
        width = int(match[1])
        height = int(match[2]) if match[2] else width
        if min(height, width) >= 1:
            return height, width
    raise UserError(
        f"'{text}' is not a resolution.", "Write 64, or WIDTHxHEIGHT such as 128x96, in pixels."
    )


def format_count(count: float) -> str:
    """A count in at most five characters: `640`, `12.8k`, `1.5M`."""
    for limit, divisor, suffix in ((999.5e6, 1e9, "G"), (999.5e3, 1e6, "M"), (1e4, 1e3, "k")):
        if count >= limit:
            return f"{count / divisor:.3g}{suffix}"
    return f"{count:.0f}" if count == int(count) or count >= 100 else f"{count:.3g}"


def format_duration(seconds: float) -> str:
    """A duration in two units at most: `4.2s`, `3m05s`, `2h10m`, `3d04h`."""
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h"


def format_bytes(size: float) -> str:
    """Bytes in binary units: `812 B`, `3.4 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_resolution(height: int, width: int) -> str:
    """`64` for a square, else `WIDTHxHEIGHT`: the inverse of `parse_resolution`."""
    return str(width) if height == width else f"{width}x{height}"


def format_plain(value: object) -> str:
    """A value as people write it: `2e-4`, `0.5`, `64`, `none`, in at most four significant digits."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e6:
        return f"{value:.4g}" if size < 1e4 else f"{value:.0f}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
