"""Weight files: looked for in order, fetched whole or not at all, refused with a reason."""

from __future__ import annotations

import errno
import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from faussaire.core.errors import UserError
from faussaire.metrics import weights
from faussaire.metrics.weights import (
    INCEPTION_2015,
    SQUEEZENET_1_0,
    SQUEEZENET_1_1,
    Unavailable,
    WeightFile,
    checksum,
    fetch,
    fill,
    locate,
    obtain,
    read_tensors,
)

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{SHA256[:8]}.pth"


class Publisher(BaseHTTPRequestHandler):
    """/good, /cut (closes early), /wrong (other bytes), /slow (silent); anything else is 404."""

    def do_GET(self) -> None:
        page = self.path.partition("/")[2].partition("/")[0]
        if page not in ("good", "cut", "wrong", "slow"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if page == "slow":
            self.server.hung.wait(10)  # type: ignore[attr-defined]
            return
        body = CONTENT[::-1] if page == "wrong" else CONTENT
        self.wfile.write(body[: len(body) // 2] if page == "cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up, which some tests make them do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Publisher)
        self.hung = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[str]:
    """The address of a server that publishes."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.hung.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and nothing of the user's."""
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("FAUSSAIRE_WEIGHTS", "FAUSSAIRE_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def published(url: str, sha256: str = SHA256, **more: object) -> WeightFile:
    return WeightFile(NAME, f"{url}/{NAME}", sha256, **more)  # type: ignore[arg-type]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_download_is_proved_and_kept(publisher, nowhere):
    seen = []
    file = published(f"{publisher}/good")
    path = obtain(file, progress=lambda *at: seen.append(at))
    assert path == nowhere / "cache" / "weights" / NAME
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == [NAME]
    assert seen[-1] == (f"downloading {NAME}", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    # The second time the server is not asked.
    assert obtain(published("http://127.0.0.1:1")) == path


def test_leading_digits_of_the_sum_are_enough(publisher):
    assert fetch(published(f"{publisher}/good", SHA256[:8])).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("wrong", "what came is another file: its SHA-256 begins with"),
        ("cut", f"it broke off after {len(CONTENT) // 2:,} of {len(CONTENT):,} bytes"),
        ("absent", "the server answers 404 Not Found"),
        ("slow", "no answer within 0.3 s"),
    ],
)
def test_a_bad_download_leaves_nothing_and_says_why(publisher, nowhere, page, words):
    with pytest.raises(Unavailable) as caught:
        fetch(published(f"{publisher}/{page}"), patience=0.3)
    assert words in caught.value.cause
    assert NAME in caught.value.cause
    assert str(nowhere / "cache" / "weights") in caught.value.cause
    assert f"{publisher}/{page}/{NAME}" in caught.value.hint
    assert "pixels" in caught.value.hint
    assert leftovers(nowhere / "cache" / "weights") == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_without_a_network_one_sentence_says_so(address):
    with pytest.raises(Unavailable, match=r"could not be downloaded \(no connection: ") as caught:
        fetch(published(address))
    assert "\n" not in str(caught.value)


def test_downloads_can_be_forbidden(publisher, monkeypatch):
    monkeypatch.setenv("FAUSSAIRE_OFFLINE", "1")
    with pytest.raises(Unavailable, match="FAUSSAIRE_OFFLINE forbids it"):
        fetch(published(f"{publisher}/good"))


def test_a_full_disk_is_told_before_and_during_the_download(publisher, nowhere, monkeypatch):
    class Full(io.BytesIO):
        def write(self, block: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    file = published(f"{publisher}/good", size=len(CONTENT))
    with monkeypatch.context() as patch:
        plain = Path.open
        patch.setattr(
            Path, "open", lambda path, mode="r": Full() if "w" in mode else plain(path, mode)
        )
        with pytest.raises(UserError, match=r"\(1.0 MiB\) does not fit on the disk"):
            fetch(file)
    usage = weights.shutil.disk_usage(nowhere)
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"does not fit on the disk .* \(1000 B free\)"):
        fetch(file)
    assert leftovers(nowhere / "cache" / "weights") == []


def test_a_cache_that_is_no_folder_is_told(publisher, nowhere, monkeypatch):
    (nowhere / "file").write_text("")
    monkeypatch.setenv("FAUSSAIRE_CACHE", str(nowhere / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        fetch(published(f"{publisher}/good"))


def test_of_two_downloads_at_once_one_is_made(publisher, nowhere, monkeypatch):
    made = []
    plain = weights._download
    monkeypatch.setattr(weights, "_download", lambda *given: (made.append(1), plain(*given)))
    file = published(f"{publisher}/good")
    threads = [threading.Thread(target=fetch, args=(file,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert locate(file) is not None


def test_places_are_asked_in_order(nowhere, monkeypatch):
    file = published("http://127.0.0.1:1", others=("tiny.safetensors",))
    folders = [nowhere / "given", nowhere / "named", nowhere / "cache" / "weights",
               nowhere / "torch" / "hub" / "checkpoints"]  # fmt: skip
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(nowhere / "named"))
    for folder in folders:
        assert locate(file, nowhere / "given") == folder / NAME
        (folder / NAME).unlink()
    assert locate(file, nowhere / "given") is None
    (folders[1] / "tiny.safetensors").write_bytes(b"other bytes, other sum")
    assert locate(file, nowhere / "given") == folders[1] / "tiny.safetensors"


def test_a_given_file_serves_whatever_its_name_but_one_in_the_environment_only_by_it(
    nowhere, monkeypatch
):
    (nowhere / "mine.pth").write_bytes(b"mine")
    file = published("http://127.0.0.1:1")
    assert locate(file, nowhere / "mine.pth") == nowhere / "mine.pth"
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(nowhere / "mine.pth"))
    assert locate(file) is None
    (nowhere / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(nowhere / NAME))
    assert locate(file) == nowhere / NAME


def test_a_place_that_does_not_exist_is_told(nowhere, monkeypatch):
    with pytest.raises(UserError, match=r"no file or folder '.*absent' \(--weights\)"):
        locate(SQUEEZENET_1_1, nowhere / "absent")
    monkeypatch.setenv("FAUSSAIRE_WEIGHTS", str(nowhere / "gone"))
    with pytest.raises(UserError, match=r"gone' \(FAUSSAIRE_WEIGHTS\)"):
        locate(SQUEEZENET_1_1)


def test_a_damaged_file_is_refused_by_its_name(nowhere):
    (nowhere / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=f"is damaged: its SHA-256 begins .* not with {SHA256[:8]}"):
        locate(published("http://127.0.0.1:1"), nowhere)


@pytest.mark.parametrize("file", [INCEPTION_2015, SQUEEZENET_1_1, SQUEEZENET_1_0])
def test_published_names_carry_their_sums(file):
    assert f"-{file.sha256[:8]}.pth" in file.name
    assert file.url.startswith("https://")
    assert file.url.endswith("/" + file.name)


def test_tensors_are_read_from_both_formats_and_summed(nowhere):
    state = {"weight": torch.randn(2, 3), "bias": torch.zeros(2)}
    torch.save(state, nowhere / "net.pth")
    save_file(state, nowhere / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        found = read_tensors(nowhere / name)
        assert found.keys() == state.keys()
        assert torch.equal(found["weight"], state["weight"])
        assert checksum(nowhere / name) == hashlib.sha256((nowhere / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_damaged_files_are_refused_however_they_are_damaged(nowhere, ending):
    path = nowhere / f"net.{ending}"
    state = {"weight": torch.randn(20, 30), "bias": torch.zeros(2)}
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    whole = path.read_bytes()
    for cut in (0, 1, 7, 8, 9, 60, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"cannot be read as weights|or is damaged"):
            read_tensors(path)
    generator = torch.Generator().manual_seed(0)
    told = []
    for _ in range(60):  # a changed byte in the head either does no harm or is told
        at = int(torch.randint(min(len(whole), 1500), (1,), generator=generator))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read_tensors(path)
        except UserError as error:
            told.append(str(error))
    assert told
    assert all("\n" not in sentence for sentence in told)


def test_a_file_that_would_execute_is_refused(nowhere):
    class Harmful:
        def __reduce__(self):
            return exec, ("raise SystemExit('executed')",)

    torch.save({"weight": Harmful()}, nowhere / "net.pth")
    with pytest.raises(UserError, match="holds more than weights"):
        read_tensors(nowhere / "net.pth")
    torch.save([torch.zeros(1)], nowhere / "list.pth")
    with pytest.raises(UserError, match="holds list, not a state dict"):
        read_tensors(nowhere / "list.pth")


def test_filling_a_network_compares_names_shapes_and_values():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {name: torch.full_like(value, 2) for name, value in net.state_dict().items()}
    path = Path("net.pth")
    for change, words in [
        ({"0.bias": None}, "1 of its 6 tensors are missing, 0.bias first"),
        ({"2.bias": torch.zeros(1)}, "has 1 tensors too many, 2.bias first"),
        ({"0.bias": torch.zeros(4)}, r"0.bias has the shape \(4,\), not \(3,\)"),
        ({"0.bias": torch.full((3,), float("nan"))}, "0.bias holds NaN or infinity"),
    ]:
        wrong = {name: value for name, value in {**state, **change}.items() if value is not None}
        with pytest.raises(UserError, match=words) as caught:
            fill(net, wrong, path, "Use another.")
        assert caught.value.hint == "Use another."
    del state["1.num_batches_tracked"]
    fill(net, state, path, "Use another.")
    assert all(bool((value == 2).all()) for value in net.parameters())
