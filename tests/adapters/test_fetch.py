"""Tests of the kind fetch."""

import hashlib
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kflow.adapters.fetch import Fetch
from kflow.spec.facts import FileFact


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Say nothing of clients that go away."""


@pytest.fixture
def server(tmp_path):
    """Serve the folder ``served`` on the loopback address."""
    (tmp_path / "served").mkdir()
    with _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "served"))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def _digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_local_file_stays_where_it_is(bench):
    """A path of the workspace is handed on, not copied."""
    outputs = bench.run(Fetch, origin="digits.h5")

    assert outputs["file"] == bench.root / "digits.h5"


def test_a_remote_file_is_downloaded_and_verified(bench, server):
    """The same file from an HTTP server has the same bytes, and progress is told."""
    data = (bench.root / "digits.h5").read_bytes()
    (bench.root / "served" / "digits.h5").write_bytes(data)

    outputs = bench.run(Fetch, origin=f"{server}/digits.h5?version=1", file_hash=_digest(data))

    assert outputs["file"].read_bytes() == data
    assert bench.events[-1] == {"event": "download", "done": len(data), "total": len(data)}


def test_a_remote_file_with_another_digest_is_refused(bench, server):
    """A download that is not what was asked for fails the step and says what it got."""
    (bench.root / "served" / "a.bin").write_bytes(b"other")

    with pytest.raises(ValueError, match=hashlib.sha256(b"other").hexdigest()):
        bench.run(Fetch, origin=f"{server}/a.bin", file_hash=_digest(b"expected"))


def test_a_failing_server_is_told_of_and_a_mirror_helps(bench, server):
    """The event names the next try, and the mirror's bytes are those of the digest."""
    (bench.root / "served" / "a.bin").write_bytes(b"right")

    outputs = bench.run(
        Fetch,
        origin=f"{server}/nothing",
        mirrors=[f"{server}/a.bin"],
        file_hash=_digest(b"right"),
        timeouts={"read": 5},
    )

    assert outputs["file"].read_bytes() == b"right"
    assert bench.events[0] == {
        "event": "retry",
        "text": f"try 1 of 5 of {server}/a.bin: cannot fetch {server}/nothing: the server answered 404 (Not Found)",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_size": 4}, "exceed max_size=4"),
        ({"timeouts": {"total": 1e-9}}, r"more than 1e-09 s; raise timeout\['total'\]"),
    ],
)
def test_a_download_has_limits(bench, server, fields, message):
    """Size and time are those of the workflow."""
    (bench.root / "served" / "a.bin").write_bytes(b"right")

    with pytest.raises(OSError, match=message):
        bench.run(Fetch, origin=f"{server}/a.bin", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"origin": "https://h/x", "mirrors": ["https://h/y"]}, "mirrors need a 'file_hash'"),
        ({"origin": "digits.h5", "mirrors": ["https://h/y"]}, "needs no mirrors"),
        ({"origin": "https://h/x", "file_hash": _digest(b""), "mirrors": ["y"]}, "must be an http or https URL"),
        ({"origin": "https://h/x", "file_hash": _digest(b""), "mirrors": ["http:///y"]}, "no valid URL"),
    ],
)
def test_mirrors_are_checked_beforehand(bench, fields, message):
    """What cannot be a mirror is found before anything is fetched."""
    _, problems = bench.examine(Fetch(**fields))

    assert [message in problem for problem in problems] == [True]


def test_a_member_is_taken_out_of_an_archive(bench):
    """With extract the named member is handed on."""
    with tarfile.open(bench.root / "data.tar.gz", "w:gz") as archive:
        archive.add(bench.root / "digits.h5", "inside/digits.h5")

    outputs = bench.run(Fetch, origin="data.tar.gz", extract=True, member="inside/digits.h5")

    assert outputs["file"].read_bytes() == (bench.root / "digits.h5").read_bytes()


def test_a_missing_member_is_an_error(bench):
    """The message names the member."""
    with tarfile.open(bench.root / "data.tar.gz", "w:gz") as archive:
        archive.add(bench.root / "digits.h5", "digits.h5")

    with pytest.raises(FileNotFoundError, match=r"data\.tar\.gz has no file 'nothing'"):
        bench.run(Fetch, origin="data.tar.gz", extract=True, member="nothing")


def _members_that_lead_out(root):
    """Return names of a file beside the workflow, as they would be found from a folder far below."""
    return [*("../" * depth + "mine.txt" for depth in range(1, 9)), "inside/../../../../mine.txt", f"{root}/mine.txt"]


def test_a_member_leads_to_no_file_of_the_users(bench):
    """It would be taken away from its place; an archive has no such member."""
    (bench.root / "mine.txt").write_text("mine")
    with tarfile.open(bench.root / "data.tar.gz", "w:gz") as archive:
        archive.add(bench.root / "digits.h5", "inside/digits.h5")

    for member in _members_that_lead_out(bench.root):
        with pytest.raises(FileNotFoundError, match=r"data\.tar\.gz has no file '.*mine\.txt'"):
            bench.run(Fetch, origin="data.tar.gz", extract=True, member=member)
        _, problems = bench.examine(Fetch(origin="data.tar.gz", extract=True, member=member))
        assert problems == [f"{member!r} leads out of the archive; a member is named by its path inside"]
    assert (bench.root / "mine.txt").read_text() == "mine"


def test_a_link_in_an_archive_leads_nowhere(bench):
    """An archive that holds one is not unpacked."""
    (bench.root / "mine.txt").write_text("mine")
    (bench.root / "link").symlink_to(bench.root / "mine.txt")
    with tarfile.open(bench.root / "data.tar.gz", "w:gz") as archive:
        archive.add(bench.root / "link", "link")

    with pytest.raises(ValueError, match="symbolic link"):
        bench.run(Fetch, origin="data.tar.gz", extract=True, member="link")
    assert (bench.root / "mine.txt").read_text() == "mine"


def test_a_local_digest_is_checked_beforehand(bench):
    """A file that is here already is verified before anything runs, in any case of letters."""
    right = _digest((bench.root / "digits.h5").read_bytes())

    assert bench.examine(Fetch(origin="digits.h5", file_hash=right.upper().replace("SHA", "sha"))) == (
        {"file": FileFact(str(bench.root / "digits.h5"))},
        [],
    )
    assert "does not have this digest" in bench.examine(Fetch(origin="digits.h5", file_hash=_digest(b"")))[1][0]


@pytest.mark.parametrize("fields", [{"extract": True}, {"member": "a"}])
def test_extract_and_member_belong_together(bench, fields):
    """One without the other is a problem."""
    _, problems = bench.examine(Fetch(origin="digits.h5", **fields))

    assert "belong together" in problems[0]


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("http:///x", "no valid URL; it names no host"),
        ("http://a b/c", "no valid URL; quote blanks"),
        ("https://h:99999/x", "no valid URL; its port is no number from 1 to 65535"),
        ("http://h:0/x", "no valid URL; its port is no number from 1 to 65535"),
        ("http://me:p/w@h/x", "http:... is no valid URL; its port"),
        ("http://[::1/x", "no valid URL; its host cannot be read"),
    ],
)
def test_an_invalid_url_is_found_beforehand(bench, origin, message):
    """The message says what is wrong with it, and shows no password."""
    _, problems = bench.examine(Fetch(origin=origin))

    assert message in problems[0]


@pytest.mark.parametrize(
    ("fields", "promised"),
    [
        ({}, {}),
        ({"file_hash": "SHA256:" + "AB" * 32}, {"file": "ab" * 32}),
        ({"file_hash": "ab" * 32}, {"file": "ab" * 32}),
        ({"file_hash": "md5:" + "ab" * 16}, {}),
        ({"file_hash": "ab" * 32, "extract": True, "member": "a"}, {}),
    ],
)
def test_a_file_hash_is_a_promise(fields: dict[str, object], promised: dict[str, str]) -> None:
    """A remote must keep it; the hash of an archive says nothing of what is taken out of it."""
    spec = Fetch.model_validate({"origin": "https://example.org/a.h5", **fields})

    assert spec.promises() == promised
