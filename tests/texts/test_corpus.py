"""Corpora from real files."""

from __future__ import annotations

import numpy as np
import pytest

from faussaire.core.errors import UserError
from faussaire.texts.corpus import Corpus, TextData
from faussaire.texts.tokens import END, TextSpec


@pytest.fixture
def lines(tmp_path):
    """Writes a file and gives its path."""

    def write(content: str | bytes, name: str = "lines.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_a_line_is_a_sentence(lines):
    corpus = Corpus.read(lines("\ufeffthe cat.\r\n\r\nthe  dog\tand the cat.\r\n"))
    assert corpus.sentences == ("the cat.", "the dog and the cat.")
    assert len(corpus) == 2
    assert corpus.spec.length == 7
    assert corpus.spec.decode(corpus.tokens) == list(corpus.sentences)
    assert corpus.tokens[0].tolist()[3:] == [END] * 4
    assert corpus.spec.vocabulary[:3] == ("<end>", "<unk>", "the")
    assert corpus.notes == ("1 empty lines are left out.",)
    assert corpus.describe("lines.txt", None)["count"] == 2
    assert "2 sentences of up to 7 out of 7 words" in corpus.told()


def test_a_column_of_a_table(lines):
    table = lines('id;caption\n1;"a; b ""c"""\n\n2;d\n', "t.csv")
    corpus = Corpus.read(table)
    assert corpus.sentences == ('a; b "c"', "d")
    assert corpus.column == "caption"
    assert Corpus.read(table, TextData(column="id")).sentences == ("1", "2")


@pytest.mark.parametrize(
    ("content", "name", "data", "message"),
    [
        (b"good\nb\xe9d\n", "x.txt", {}, r"line 2 has the byte 0xe9"),
        (b"", "x.txt", {}, "is empty"),
        (b" \n \n", "x.txt", {}, "is empty"),
        ("a\n".encode("utf-16"), "x.txt", {}, "UTF-16"),
        (b"a\nb\0c\n", "x.txt", {}, "line 2 has a character of number 0"),
        (b"a,b\n1,2\n1,2,3\n", "x.csv", {"column": "a"}, "line 3 has 3 columns, and the header 2"),
        (b"a,b\n1,2\n", "x.csv", {}, r"several columns \(a, b\)"),
        (b"a,b\n1,2\n", "x.csv", {"column": "c"}, "no column 'c'"),
        (b"text\n", "x.csv", {}, "no rows below its header"),
        (b'text\n"a\n', "x.csv", {}, "line 2: unexpected end of data"),
        (b'text,b\n"",1\n', "x.csv", {}, "has no rows with text"),
        (b"a\n", "x.txt", {"column": "a"}, "--column a names a column of a table"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(lines, content, name, data, message):
    with pytest.raises(UserError, match=message):
        Corpus.read(lines(content, name), TextData(**data))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt' cannot be read"):
        Corpus.read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder"):
        Corpus.read(tmp_path)
    with pytest.raises(UserError, match="vocabulary cannot be 2"):
        TextData(vocabulary=2)
    with pytest.raises(UserError, match="length cannot be 1"):
        TextData(length=1)


def test_a_vocabulary_keeps_the_frequent_and_long_sentences_are_cut(lines):
    path = lines("a a a b\na b c d e f\n")
    corpus = Corpus.read(path, TextData(vocabulary=4, length=4))
    assert corpus.spec.vocabulary == ("<end>", "<unk>", "a", "b")
    assert corpus.tokens.tolist() == [[2, 2, 2, 3], [2, 3, 1, 1]]
    assert corpus.cut == 2
    assert corpus.unknown == pytest.approx(4 / 10)
    assert "2 of 2 sentences have no room for their end" in corpus.notes[0]
    assert any("40% of the tokens are not in the vocabulary" in odd for odd in corpus.warnings)


def test_copies_are_held_out_together_and_settings_settle(lines):
    texts = [f"sentence number {number % 60}" for number in range(100)]
    corpus = Corpus.read(lines("\n".join(texts)))
    assert any("only 60 differ" in odd for odd in corpus.warnings)
    data = TextData(holdout=0.2)
    ((train, unseen),) = corpus.split(data.holdout)
    assert sorted([*train, *unseen]) == [*range(100)]
    assert not {corpus.sentences[row] for row in train} & {corpus.sentences[row] for row in unseen}
    assert len({corpus.sentences[row] for row in unseen}) == 12
    settled = corpus.settled(data)
    assert settled.length == corpus.spec.length
    ((again, _),) = corpus.split(settled.holdout)
    assert np.array_equal(train, again)
    batch = corpus.stream(settled, seed=1, rank=0, world=1).read(0, len(train))
    assert batch["tokens"].dtype == np.int32
    assert sorted(map(tuple, batch["tokens"])) == sorted(map(tuple, corpus.tokens[train]))


def test_the_key_is_of_the_contents_and_of_how_they_are_read(lines):
    path = lines("a b\nc d\n")
    key = Corpus.read(path).key
    assert Corpus.read(lines("a b\nc d\n", "other.txt")).key == key
    assert Corpus.read(path, TextData(level="char")).key != key
    assert Corpus.read(lines("a b\nc e\n")).key != key


def test_rows_that_are_numbers_already():
    spec = TextSpec(vocabulary=tuple("012"), length=2, ends=False)
    corpus = Corpus.of_tokens(np.array([[0, 1], [2, 2], [0, 1]]), spec)
    assert len(corpus) == 3
    assert corpus.groups[0] == corpus.groups[2] != corpus.groups[1]
    with pytest.raises(ValueError, match=r"0\.\.2"):
        Corpus.of_tokens(np.array([[0, 3]]), spec)
    with pytest.raises(ValueError, match="rows of 2 tokens"):
        Corpus.of_tokens(np.array([[0, 1, 2]]), spec)


def test_real_captions(real_data):
    path = real_data / "text_coco" / "image_coco.txt"
    if not path.exists():
        pytest.skip("no captions here")
    corpus = Corpus.read(path)
    assert len(corpus) == 10_000
    assert corpus.spec.decode(corpus.tokens[:100]) == list(corpus.sentences[:100])
    assert corpus.warnings == ()
