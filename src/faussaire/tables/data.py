"""How tables are read: the settings of data that families of tables have."""

from __future__ import annotations

from dataclasses import dataclass

from faussaire.core.config import DataConfig, check_range


@dataclass(frozen=True, kw_only=True)
class TableData(DataConfig):
    """How a table is read.

    Attributes:
        columns: kinds of columns where the guess is wrong, such as age=integer,zip=category. The kinds
            are integer, real, date, category, boolean and id.
        most_categories: values of a category that are learnt; rarer ones share one place.
        encoding: of a CSV's text.
        predict: column that measuring has told from the others; none: the last one of categories.
    """

    columns: str = ""
    most_categories: int = 500
    encoding: str = "utf-8"
    predict: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, most_categories=(2, 100_000))
