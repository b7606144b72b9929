"""Partners are found by name, and never guessed."""

from __future__ import annotations

import unicodedata

import pytest

from faussaire.data.matching import Match, affixes, match, match_and_say


def pairs(a: list[str], b: list[str]) -> list[tuple[str, str]]:
    found = match(a, b)
    assert set(found.rows_a.tolist()) | set(found.alone_a) == set(range(len(a)))
    assert set(found.rows_b.tolist()) | set(found.alone_b) == set(range(len(b)))
    assert not set(found.rows_a.tolist()) & set(found.alone_a)
    assert not set(found.rows_b.tolist()) & set(found.alone_b)
    mirrored = match(b, a)  # neither side is special
    ours = [(a[i], b[j]) for i, j in zip(found.rows_a, found.rows_b, strict=True)]
    theirs = [(a[j], b[i]) for i, j in zip(mirrored.rows_a, mirrored.rows_b, strict=True)]
    assert sorted(ours) == sorted(theirs)
    return ours


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        # The same relative path, whatever the extension and the order.
        (["x/1.jpg", "y/1.jpg"], ["y/1.png", "x/1.png"], [(0, 1), (1, 0)]),
        (["1.jpg", "2.jpg", "3.jpg"], ["3.webp", "1.JPEG"], [(0, 1), (2, 0)]),
        (["./a.png"], ["a.png"], [(0, 0)]),
        (["a.b.png", "a.c.png"], ["a.c.jpg", "a.b.jpg"], [(0, 1), (1, 0)]),
        (["v1.5", "v1.6"], ["v1.6.png", "v1.5.png"], [(0, 1), (1, 0)]),
        (["p.jpg", "q.jpg"], ["p.jpg.png", "q.jpg.png"], [(0, 0), (1, 1)]),
        # An archive wraps everything in one folder.
        (["set/x/1.jpg", "set/y/1.jpg"], ["x/1.jpg", "y/1.jpg"], [(0, 0), (1, 1)]),
        (["in/train/1.png", "in/val/1.png"], ["out/train/1.png"], []),
        (["p/t/1.png", "p/v/1.png"], ["s/t/1.png", "s/v/1.png"], [(0, 0), (1, 1)]),
        # Bare stems, where they are unique.
        (["x/1.jpg", "y/2.jpg"], ["2.png", "1.png"], [(0, 1), (1, 0)]),
        (["photos/7.jpg"], ["masks/7.png"], [(0, 0)]),
        # Case, only where letters alone do not decide.
        (["Photo1.JPG", "photo2.jpg"], ["photo1.png", "PHOTO2.png"], [(0, 0), (1, 1)]),
        (["A.png", "a.png"], ["a.png", "A.png"], [(0, 1), (1, 0)]),
        (["A.png", "a.png"], ["A.png"], [(0, 0)]),
        (["A.png", "a.png"], ["x/A.png"], [(0, 0)]),
        (["aB.png", "Ab.png"], ["ab.png"], []),
        # Letters of other scripts; ß is not ss.
        (["猫.png", "犬.png"], ["犬.jpg", "猫.jpg"], [(0, 1), (1, 0)]),
        (["straße.png"], ["strasse.png"], []),
        (["İ.png"], ["i.png"], []),
        # Roles.
        (["1_A.png", "2_A.png"], ["2_B.png", "1_B.png"], [(0, 1), (1, 0)]),
        (["1.jpg", "2.jpg"], ["1_mask.png", "2_mask.png"], [(0, 0), (1, 1)]),
        (["a-input.png", "b-input.png"], ["a-target.png", "b-target.png"], [(0, 0), (1, 1)]),
        (["A_1.png", "A_2.png"], ["B_1.png", "B_2.png"], [(0, 0), (1, 1)]),
        (["1_real_A.png", "2_real_A.png"], ["1_fake_B.png", "2_fake_B.png"], [(0, 0), (1, 1)]),
        (["mask_1.png", "mask_2.png"], ["1_img.png", "2_img.png"], [(0, 0), (1, 1)]),
        (["x/1_A.png", "y/1_A.png"], ["x/1_B.png", "y/1_B.png"], [(0, 0), (1, 1)]),
        (["t/1_A.png", "v/1_A.png"], ["s/t/1_B.png", "s/v/1_B.png"], [(0, 0), (1, 1)]),
        (["0001x4.png", "0002x4.png"], ["0001.png", "0002.png"], [(0, 0), (1, 1)]),
        (["c_1_leftImg8bit.png"], ["c_1_gtFine_color.png"], [(0, 0)]),
        (["Ö_A.png", "ö2_A.png"], ["Ö_B.png", "Ö2_B.png"], [(0, 0), (1, 1)]),
        # No roles: kinds of things, affixes that only some have, parts of words.
        (["horse_1.png", "horse_2.png"], ["zebra_1.png", "zebra_2.png"], []),
        (["1_A.png", "2_A.png", "3.png"], ["1_B.png", "2_B.png", "3_B.png"], [(2, 2)]),
        (["panda.png", "koala.png"], ["pandb.png", "koalb.png"], []),
        (["maxx4.png"], ["max.png"], []),
        (["_A.png"], ["_B.png"], []),
        # Twice the same stem: no guess.
        (["1.png", "1.jpg", "2.png"], ["1.png", "2.png"], [(2, 1)]),
        (["1.png", "2.png"], ["x/1.png", "y/1.png", "2.png"], [(1, 2)]),
        (["x/1_A.png", "y/1_A.png"], ["1_B.png"], []),
        # Numbers that begin anew in each folder: the partner of t/9 would be in t.
        (["t/8.png", "t/9.png"], ["t/8.png", "v/9.png"], [(0, 0)]),
        (["x/1.png", "y/1.png"], ["x/1.png", "z/1.png"], [(0, 0)]),
        (["c/1", "c/2", "d/1"], ["u/1", "v/1", "v/2"], []),
        (["c/1_A", "c/2_A", "d/1_A"], ["u/1_B", "v/1_B", "v/2_B"], []),
        (["1", "2", "3"], ["u/1", "v/1", "v/2", "u/3"], [(1, 2), (2, 3)]),
        (["p/v/0", "p/v/2"], ["v/1", "t/0", "v/2"], [(1, 2)]),
        (["p/v/0_A", "p/v/1_A"], ["s/t/0_B", "s/v/1_B"], [(1, 1)]),
        ([], ["1.png"], []),
        ([], [], []),
    ],
)
def test_pairs(a: list[str], b: list[str], wanted: list[tuple[int, int]]) -> None:
    assert pairs(a, b) == [(a[i], b[j]) for i, j in wanted]


def test_a_mac_writes_letters_in_two_parts() -> None:
    a, b = unicodedata.normalize("NFD", "été/éa.png"), unicodedata.normalize("NFC", "été/éa.png")
    assert a != b
    assert pairs([a], [b]) == [(a, b)]


@pytest.mark.parametrize(
    ("a", "b", "reason_a", "reason_b"),
    [
        (["1.png"], ["2.png"], "no picture on the other side", "no picture on the other side"),
        (["1.png", "1.jpg"], ["1.png"], "'1.png' and '1.jpg' share the name", "could both be"),
        (["x/1.png", "1.png"], ["x/1.png", "y/1.png"], "'y/1.png' has the same name", "'1.png'"),
    ],
)
def test_reasons(a: list[str], b: list[str], reason_a: str, reason_b: str) -> None:
    found = match(a, b)
    assert reason_a in next(iter(found.alone_a.values()))
    assert reason_b in next(iter(found.alone_b.values()))


def test_two_ways_to_fit_are_none() -> None:
    found, notes = match_and_say(["a_1_a", "a_2_a"], ["1_a", "a_2", "2_a", "a_1"])
    assert len(found.rows_a) == 0
    # Left off before: 1_a, 2_a; left off behind: a_1, a_2.
    assert "more than one way" in notes[0]


def test_what_was_left_off_is_told() -> None:
    _, notes = match_and_say(["1_A", "2_A"], ["Mask 1", "Mask 2"])
    assert notes == [
        "2 pairs were found by leaving off '_a' at the end of the inputs, "
        "'mask ' at the beginning of the targets."
    ]


def test_affixes_are_roles_that_all_have() -> None:
    assert affixes([]) == []
    assert [str(x) for x in affixes(["img_1_real_A", "img_2_real_a"])] == ["img_", "_real_a", "_a"]
    assert affixes(["1_A", "2_B"]) == []


def test_many_names_in_little_time() -> None:
    a = [f"x/{i:06d}_A.png" for i in range(40_000)]
    b = [f"y/{i:06d}_B.jpg" for i in reversed(range(40_000))]
    found = match(a, b)
    assert isinstance(found, Match)
    assert found.rows_a.tolist() == list(range(40_000))
    assert found.rows_b.tolist() == list(reversed(range(40_000)))
