"""Whatever is wrong with a file is told in a sentence with the place, before anything is trained."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from faussaire.core.errors import UserError
from faussaire.tables.inference import asked_kinds, infer
from faussaire.tables.material import encode_frame, split_rows
from faussaire.tables.reading import read_frame
from tables.people import NAMES, write


def frame_of(tmp_path: Path, text: str | bytes, name: str = "t.csv", **how: str):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_frame(path, **how)


def kinds(frame, asked: str = "", most: int = 500) -> dict[str, str]:
    found = infer(frame, asked_kinds(asked, frame.names), most)
    return {one.column.name: one.column.kind for one in found}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"   \n\n", "is empty"),
        (b"a,b\n", "no rows below it"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cells, and the header has 2"),
        (b"a,b\n1,2\n\n3,4,5\n", "line 4: 3 cells"),
        (b'a,b\n1,"2\n3,4\n', "line 2: it is not CSV"),
        ("a,b\n1,é\n".encode("latin-1"), "line 2: byte 0xe9 is not utf-8"),
        (b"a,b\n1,\x00\n", "line 2: a zero byte"),
        (b"a,a\n1,2\n", "two columns are named 'a'"),
        (b"1,2\n3,4\n", "header holds numbers"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, content, words):
    with pytest.raises(UserError, match=words) as told:
        frame_of(tmp_path, content)
    assert "t.csv" in str(told.value)


def test_a_quoted_cell_may_hold_lines_and_later_lines_are_counted_right(tmp_path):
    with pytest.raises(UserError, match="line 4: 1 cells"):
        frame_of(tmp_path, 'a,b\n"one\ntwo",2\n3\n')


def test_missing_files_folders_and_encodings(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_frame(tmp_path / "no.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_frame(tmp_path)
    latin = "name,x\nJosé,1\n".encode("latin-1")
    assert frame_of(tmp_path, latin, encoding="latin-1").column("name").values == ("José",)
    with pytest.raises(UserError, match="no encoding 'klingon'"):
        frame_of(tmp_path, latin, encoding="klingon")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_delimiters_are_found_and_spaces_after_them_kept_in_mind(tmp_path, mark):
    frame = frame_of(tmp_path, f"a{mark}b\n1{mark} x\n2{mark} y\n")
    assert frame.names == ("a", "b")
    assert frame.delimiter == mark
    assert frame.spaced
    assert frame.column("b").text() == ["x", "y"]


def test_kinds_of_all_sorts(people):
    assert kinds(read_frame(people)) == {
        "id": "id",
        "age": "integer",
        "income": "integer",
        "height": "real",
        "joined": "date",
        "member": "boolean",
        "town": "category",
        "job": "category",
        "country": "constant",
        "rooms": "category",
    }
    asked = kinds(read_frame(people), "rooms=integer,id=category, age=real")
    assert (asked["rooms"], asked["id"], asked["age"]) == ("integer", "category", "real")


def test_numbers_that_only_look_so(tmp_path):
    lines = [f"{i:05d},{i},{i * 1.5},{i},3/{1 + i % 28}/2021" for i in range(1, 60)]
    frame = frame_of(tmp_path, "zip,user_id,x,n,day\n" + "\n".join(lines))
    found = kinds(frame)
    assert found["zip"] == "id"  # padded, so a code; and each is another
    assert found["user_id"] == "id"
    assert found["n"] == "id"  # 1, 2, 3, ...
    assert found["x"] == "real"
    assert found["day"] == "date"


def test_mistakes_in_kinds_are_told_with_their_place(tmp_path):
    cells = "\n".join(["1", "2.5", "x", *map(str, range(30))])
    frame = frame_of(tmp_path, f"a\n{cells}\n")
    with pytest.raises(UserError, match="line 4, column 'a': 'x' is no number"):
        infer(frame, {"a": "real"}, 500)
    with pytest.raises(UserError, match="no such column"):
        asked_kinds("aa=real", frame.names)
    with pytest.raises(UserError, match=r"cannot be of the kind 'rael'\. Did you mean 'real'"):
        asked_kinds("a=rael", frame.names)
    with pytest.raises(UserError, match=r"line 3, column 'a': '2\.5' is no whole"):
        infer(frame_of(tmp_path, "a\n1\n2.5\n"), {"a": "integer"}, 500)
    endless = frame_of(tmp_path, "a\n" + "\n".join([*(str(i / 7) for i in range(30)), "inf"]))
    with pytest.raises(UserError, match="line 32, column 'a': 'inf'"):
        infer(endless, {}, 500)


def test_very_many_values_are_warned_of_and_share_a_place(tmp_path):
    names = [f"v{i % 300}" for i in range(900)]
    frame = frame_of(tmp_path, "x,y\n" + "\n".join(f"{n},{i}.5" for i, n in enumerate(names)))
    found = infer(frame, {}, 100)[0]
    assert "300 different values" in found.warnings[0]
    assert len(found.column.values) == 100
    assert found.column.places == 101
    text = infer(frame_of(tmp_path, "x\n" + "\n".join(f"n{i}" for i in range(200))), {}, 500)[0]
    assert text.column.kind == "id"
    assert "looks like an ID" in text.warnings[0]


def test_nothing_to_learn_is_told(tmp_path):
    with pytest.raises(UserError, match="no column to learn"):
        encode_frame(frame_of(tmp_path, "a,b\nx,y\nx,y\n"))
    with pytest.raises(UserError, match="leaves none to train on"):
        split_rows(10, 0.96)
    train, held = split_rows(2000, None)
    assert len(held) == 40
    assert not {*train} & {*held}


def test_parquet_is_read_with_its_types(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "n": pa.array([1, 2, None, 2], pa.int32()),
            "x": pa.array([0.1, 0.2, 0.3, None]),
            "b": pa.array([True, False, True, None]),
            "d": pa.array([datetime.date(2020, 1, 1)] * 3 + [datetime.date(2021, 1, 1)]),
            "s": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        }
    )
    pq.write_table(table, path)
    frame = read_frame(path)
    assert frame.kinds == {"n": "integer", "x": "real", "b": "boolean", "d": "date"}
    assert frame.column("n").text() == ["1", "2", "", "2"]
    assert frame.column("d").text()[3] == "2021-01-01"
    assert frame.column("s").text() == ["u", "v", "", "u"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="not a whole parquet"):
        read_frame(path)


def test_encoding_and_back(tmp_path):
    """Every cell comes back, but for places in modes that float32 rounds."""
    frame = read_frame(write(tmp_path / "p.csv", 600))
    material = encode_frame(frame)
    spec = material.spec
    hot = np.zeros((len(frame), sum(spec.blocks)), np.float32)
    for index, start in enumerate(spec.starts):
        hot[np.arange(len(frame)), start + material.places[:, index]] = 1.0
    texts = spec.decode(np.concatenate([material.alphas, hot], axis=1))
    for name, column, cells in zip(NAMES, texts, frame.columns, strict=True):
        same = np.mean([one == two for one, two in zip(column, cells.text(), strict=True)])
        if name == "id":
            assert len({*column}) == len(frame)
            assert not {*column} & {*cells.values}
        else:
            assert same > (0.9 if name == "income" else 0.99), name
    income = next(column for column in spec.columns if column.name == "income")
    assert income.points == (0.0,)
    assert income.squeeze > 0.0
    height = next(column for column in spec.columns if column.name == "height")
    assert height.missing == ""
    assert np.abs(material.alphas).max() <= 1.0
