"""Every kind of source gives the same pictures, names and classes, and says what it refuses."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.drawing import draw
from faussaire.core.errors import UserError
from faussaire.data.decode import Fault
from faussaire.data.pack import pack
from faussaire.data.source import Source
from faussaire.data.sources import open_source


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    draw(seed).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(source: Source, index: int) -> np.ndarray:
    return np.asarray(source[index].read())


def test_folder_is_nested_sorted_unicode_and_skips_what_is_no_picture(pictures: Path) -> None:
    for name in ("b/été 日本.png", "a/x.PNG", "a/b/c.png", ".hidden.png", ".dir/y.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(png(1))
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "Thumbs.db").write_bytes(b"x")
    source = open_source(pictures)
    assert [item.name for item in source] == ["a/b/c.png", "a/x.PNG", "b/été 日本.png"]
    assert source.skipped == {"hidden": 3, ".txt": 1}
    assert all(item.label is None for item in source)
    assert "classes=folders" in source.notes[0]


def test_links_are_followed_and_loops_end(pictures: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(png(0))
    (pictures / "link").symlink_to(outside)
    (pictures / "loop").symlink_to(pictures)
    (pictures / "file.png").symlink_to(outside / "a.png")
    (pictures / "gone.png").symlink_to(outside / "nothing.png")
    source = open_source(pictures)
    assert [item.name for item in source] == ["file.png", "gone.png", "link/a.png"]
    with pytest.raises(Fault, match="No such file"):
        source[1].read()


def test_sub_folders_become_classes_when_asked(pictures: Path) -> None:
    for name in ("cat/1.png", "cat/deep/2.png", "dog/3.png"):
        (pictures / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / "set" / name).write_bytes(png(0))
    # The folder "set" wraps everything, so it is no class.
    assert [i.label for i in open_source(pictures, classes="folders")] == ["cat", "cat", "dog"]
    (pictures / "set" / "loose.png").write_bytes(png(0))
    with pytest.raises(UserError, match=r"1 pictures .* lie in no sub-folder.*loose\.png"):
        len(open_source(pictures, classes="folders"))


def test_labels_csv_is_found_or_given(many: Callable[..., Path], tmp_path: Path) -> None:
    folder = many(3)
    (folder / "labels.csv").write_text("file,label\n000.png,7\n001.png,11\nabsent.png,7\n")
    source = open_source(folder)
    assert [i.label for i in source] == ["7", "11", None]
    assert "1 files named in 'labels.csv'" in source.notes[0]
    assert {i.label for i in open_source(folder, classes="none")} == {None}
    other = tmp_path / "other.csv"
    other.write_text("\ufefffilename;mood\n./000.png;glad\n001.png;sad\n002.png;\n", "utf-8")
    source = open_source(folder, labels=other, classes="mood")
    assert [i.label for i in source] == ["glad", "sad", None]
    with pytest.raises(UserError, match="Did you mean 'mood'"):
        len(open_source(folder, labels=other, classes="mod"))
    other.write_text("file,label\nelsewhere.png,1\n")
    with pytest.raises(UserError, match="No file named in"):
        len(open_source(folder, labels=other))
    with pytest.raises(UserError, match="contradict"):
        open_source(folder, labels=other, classes="folders")


@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tar.gz", "p.tgz", "p.tar.xz", "p.tar.bz2"])
def test_archives_are_read_by_name_and_never_extracted(tmp_path: Path, name: str) -> None:
    path = tmp_path / "box" / name
    path.parent.mkdir()
    members = {"top/b/2.png": png(2), "top/a/1.png": png(1), "../evil.png": png(3)}
    members |= {"top/readme.txt": b"text", "__MACOSX/x.png": b"x", "top/a/cut.png": png(4)[:60]}
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    else:
        with tarfile.open(path, "w:" + {"tgz": "gz", "tar": ""}.get(name[2:], name[6:])) as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("top/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    with open_source(path) as source:
        names = [item.name for item in source]
        assert names[-3:] == ["top/a/1.png", "top/a/cut.png", "top/b/2.png"]
        np.testing.assert_array_equal(pixels(source, names.index("top/a/1.png")), draw(1))
        with pytest.raises(Fault):
            source[names.index("top/a/cut.png")].read()
        assert source.skipped[".txt"] == 1
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


def test_zip_classes_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(4):
            archive.writestr(f"all/{'ab'[i % 2]}/{i}.png", png(i))
    with open_source(path, classes="folders") as source:
        assert [i.label for i in source] == ["a", "a", "b", "b"]
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 20
    data[at] ^= 255
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(Fault, match="CRC"):
        source[0].read()
    path.write_bytes(data[:100])
    with pytest.raises(UserError, match="not a whole zip"):
        len(open_source(path))


def test_zip_bomb_member_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faussaire.data.files.MAX_BYTES", 1 << 20)
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", bytes(2 << 20))
    with open_source(path) as source, pytest.raises(Fault, match="2,097,152 bytes; it was not"):
        source[0].raw()


def test_damaged_tar(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    path.write_bytes(b"\x1f\x8b junk")
    with open_source(path) as source, pytest.raises(UserError, match="cannot be unpacked"):
        len(source)


RAMP = np.arange(6 * 8 * 10 * 3).reshape(6, 8, 10, 3).astype(np.uint8)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (RAMP, (8, 10, 3)),
        (RAMP.transpose(0, 3, 1, 2), (8, 10, 3)),
        (RAMP[..., 0], (8, 10, 1)),
        (RAMP[..., :1], (8, 10, 1)),
        ((RAMP / 255.0).astype(np.float32), (8, 10, 3)),
        (RAMP / 127.5 - 1.0, (8, 10, 3)),
        (RAMP.astype(np.int64), (8, 10, 3)),
    ],
)
def test_npy_and_npz(tmp_path: Path, array: np.ndarray, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array, y=np.array([3, 1, 2, 3, 1, 2]))
    wanted = RAMP[..., : shape[2]]
    for name in ("a.npy", "a.npz"):
        source = open_source(tmp_path / name)
        assert len(source) == 6
        assert pixels(source, 5).shape == shape
        np.testing.assert_array_equal(pixels(source, 5), wanted[5])
        block = source.block(0, 6)
        assert block is not None
        assert block.flags.c_contiguous
        if array.dtype != np.uint8:
            assert "read as 0..255" in source.notes[0]
    assert [i.label for i in open_source(tmp_path / "a.npz")] == ["3", "1", "2", "3", "1", "2"]
    np.save(tmp_path / "y.npy", np.array(list("aabbcc")))
    assert open_source(tmp_path / "a.npy", labels=tmp_path / "y.npy")[2].label == "b"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 9)), "not a stack of pictures"),
        (np.zeros((4, 9, 9, 2)), "not a stack of pictures"),
        (np.full((4, 9, 9), 300.0), r"300\.\.300"),
        (np.full((4, 9, 9), np.nan), "NaN"),
        (np.array([[[object()] * 9] * 9] * 4), "pickled objects are refused"),
        (np.zeros((4, 9, 9), complex), "complex128"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=words):
        open_source(tmp_path / "a.npy")[0].read()


def test_npz_problems(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", speed=np.zeros(3))
    with pytest.raises(UserError, match="holds speed"):
        len(open_source(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", x=RAMP, y=np.zeros(5, int))
    with pytest.raises(UserError, match=r"6 pictures but labels of shape \(5,\)"):
        len(open_source(tmp_path / "a.npz"))
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 junk")
    with pytest.raises(UserError, match="cannot be read as an array"):
        len(open_source(tmp_path / "a.npz"))


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_finds_its_labels(tmp_path: Path, end: str) -> None:
    grey = RAMP[..., 0]
    images = struct.pack(">4B3I", 0, 0, 8, 3, *grey.shape) + grey.tobytes()
    labels = struct.pack(">4BI", 0, 0, 8, 1, 6) + bytes([5, 0, 4, 1, 9, 2])
    pack_up = gzip.compress if end else bytes
    path = tmp_path / f"train-images-idx3-ubyte{end}"
    path.write_bytes(pack_up(images))
    (tmp_path / f"train-labels-idx1-ubyte{end}").write_bytes(pack_up(labels))
    source = open_source(path)
    assert [i.label for i in source] == list("504192")
    np.testing.assert_array_equal(pixels(source, 3)[..., 0], grey[3])
    with pytest.raises(UserError, match="not pictures"):
        len(open_source(tmp_path / f"train-labels-idx1-ubyte{end}"))
    path.write_bytes(pack_up(images[:-9]))
    with pytest.raises(UserError, match="cut short"):
        open_source(path)[0].read()
    if end:
        path.write_bytes(gzip.compress(images)[:-9])
        with pytest.raises(UserError, match="cut short"):
            open_source(path)[0].read()
    with pytest.raises(UserError, match=r"Did you mean '.*train-images") as caught:
        open_source(tmp_path)
    assert "holds no pictures" in caught.value.cause


def test_csv_lists_files(many: Callable[..., Path]) -> None:
    folder = many(3)
    table = folder / "list.csv"
    table.write_text("Image,class\n000.png,a\n002.png,b\n002.png,b\nnone.png,a\n")
    source = open_source(table)
    assert [(i.name, i.label) for i in source] == [
        ("000.png", "a"),
        ("002.png", "b"),
        ("none.png", "a"),
    ]
    np.testing.assert_array_equal(pixels(source, 1), draw(2))
    assert source.skipped == {"listed twice": 1}
    with pytest.raises(Fault):
        source[2].raw()
    table.write_text("speed,class\n1,2\n")
    with pytest.raises(UserError, match="no column that names files"):
        len(open_source(table))
    table.write_text("file\nx.png\n")
    with pytest.raises(UserError, match="None of the 1 files"):
        len(open_source(table))
    table.write_bytes(b"file\n\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        len(open_source(table))


def test_parquet(many: Callable[..., Path], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    folder = many(5)
    data = [png(i) for i in range(5)]
    info = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    struct_table = pa.table(
        {"image": [{"bytes": d, "path": "x"} for d in data], "label": [0, 1, 0, 1, 1]}
    ).replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(struct_table, tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(pa.table({"img": [*data[:4], None]}), tmp_path / "b.parquet")
    names = [f"{i:03d}.png" for i in range(5)]
    pq.write_table(pa.table({"file": names, "kind": list("uvuvu")}), folder / "c.parquet")
    with open_source(tmp_path / "a.parquet") as source:
        assert [i.label for i in source] == ["cat", "dog", "cat", "dog", "dog"]
        np.testing.assert_array_equal(pixels(source, 4), draw(4))
    with open_source(tmp_path / "b.parquet") as source:
        np.testing.assert_array_equal(pixels(source, 3), draw(3))
        with pytest.raises(Fault, match="no picture"):
            source[4].raw()
        images = pack(source)
        assert len(images) == 4
        assert images.left_out[0]["name"] == "4"
    with open_source(folder / "c.parquet", classes="kind") as source:
        assert (source[1].label, source[1].name) == ("v", "001.png")
        np.testing.assert_array_equal(pixels(source, 1), draw(1))
    (tmp_path / "a.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a whole parquet"):
        len(open_source(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("x.parquet", "pyarrow", r"pip install 'faussaire\[parquet\]'"),
        ("hf:owner/name", "datasets", r"pip install 'faussaire\[datasets\]'"),
        ("digits", "sklearn.datasets", r"pip install 'faussaire\[demo\]'"),
    ],
)
def test_missing_extras_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, words: str
) -> None:
    def refuse(wanted: str, *rest: object, **more: object) -> object:
        if wanted == module:
            raise ModuleNotFoundError(wanted)
        return real(wanted, *rest, **more)  # type: ignore[arg-type]

    import builtins

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=words):
        len(open_source(tmp_path / name if "." in name else name))


HUB = """
import datasets, numpy as np, sys
from faussaire.core.errors import UserError
from faussaire.data.sources import open_source
from PIL import Image
classes = datasets.ClassLabel(names=["a", "b"])
features = datasets.Features({"image": datasets.Image(), "label": classes})
rows = [Image.fromarray(np.full((4, 6, 3), 40 * i, np.uint8)) for i in range(3)]
made = datasets.Dataset.from_dict({"image": rows, "label": [1, 0, 1]}, features=features)
real, asked = datasets.load_dataset, []
datasets.load_dataset = lambda name, split: asked.append((name, split)) or made
source = open_source("hf:owner/name:test")
assert [i.label for i in source] == ["b", "a", "b"], [i.label for i in source]
assert np.asarray(source[2].read())[0, 0, 0] == 80
assert asked == [("owner/name", "test")] and source.stamp() == source.stamp()
datasets.load_dataset = real
try:
    len(open_source("hf:owner/name"))
except UserError as error:
    print(error)
"""


def test_hub_offline_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    if subprocess.run([sys.executable, "-c", "import datasets"], capture_output=True).returncode:
        pytest.skip("needs the datasets library")
    # In a process of its own: the library changes global state on import.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "USE_TORCH": "0"}
    done = subprocess.run([sys.executable, "-c", HUB], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "could not be fetched from the Hugging Face Hub" in done.stdout
    assert done.stdout.count("\n") == 1


def test_digits() -> None:
    pytest.importorskip("sklearn")
    source = open_source("digits")
    assert len(source) == 1797
    assert {i.label for i in source} == set("0123456789")
    assert pixels(source, 0).shape == (8, 8, 1)
    assert pixels(source, 0).max() == 239


def test_fashion_mnist(real_data: Path) -> None:
    source = open_source(real_data / "fashion_mnist" / "t10k-images-idx3-ubyte.gz")
    assert len(source) == 10_000
    assert source[0].label == "9"  # an ankle boot


def test_nothing_there_suggests_the_nearest(many: Callable[..., Path], tmp_path: Path) -> None:
    many(1)
    with pytest.raises(UserError, match="There is nothing at") as caught:
        open_source(tmp_path / "pictrues" / "deeper")
    assert caught.value.hint == f"Did you mean '{tmp_path / 'pictures'}'?"
    (tmp_path / "song.mp3").write_bytes(b"x")
    with pytest.raises(UserError, match="not a set of pictures"):
        open_source(tmp_path / "song.mp3")
    with pytest.raises(UserError, match="is one picture"):
        open_source(tmp_path / "pictures" / "000.png")
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match="it is empty"):
        open_source(tmp_path / "void")
    with pytest.raises(UserError, match="does not apply"):
        len(open_source("digits", classes="folders"))


def test_stamp_notices_every_change_and_reads_nothing(many: Callable[..., Path]) -> None:
    folder = many(4)
    stamps = [open_source(folder).stamp()]
    assert open_source(folder).stamp() == stamps[0]
    state = (folder / "001.png").stat()
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:-1] + b"x")
    os.utime(folder / "001.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    stamps.append(open_source(folder).stamp())  # same size, same time of modification
    draw(9).save(folder / "new.png")
    stamps.append(open_source(folder).stamp())
    (folder / "new.png").rename(folder / "newer.png")
    stamps.append(open_source(folder).stamp())
    (folder / "newer.png").unlink()
    (folder / "labels.csv").write_text("file,label\n000.png,1\n")
    stamps.append(open_source(folder).stamp())
    stamps.append(open_source(folder, classes="none").stamp())
    assert len(set(stamps)) == len(stamps)


def test_items_hash_their_content(many: Callable[..., Path]) -> None:
    folder = many(2)
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    digests = [item.digest() for item in open_source(folder)]
    assert digests[0] == digests[2] != digests[1]


def test_no_torch_is_imported() -> None:
    code = (
        "import sys, faussaire.data.check, faussaire.data.pack, faussaire.data.sources,"
        " faussaire.data.stream; assert not {'torch', 'sklearn', 'pyarrow', 'datasets'} &"
        " sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_special_files_do_not_hang(pictures: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    (pictures / "a.png").write_bytes(png(0))
    os.mkfifo(pictures / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(pictures / "s.png"))
    server.close()
    (pictures / "link.png").symlink_to(pictures / "pipe.png")
    source = open_source(pictures)
    assert [item.name for item in source] == ["a.png", "link.png"]
    with pytest.raises(Fault, match="not a regular file"):
        source[1].read()
    assert source.skipped["not a regular file"] == 2
    assert isinstance(source[0].read(), Image.Image)
