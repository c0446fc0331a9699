"""What comes of a download that meets one of sixty-four faults between a server and a client."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.faults import CASES, Case, Expectation
from tests.hostile.server import BODY, CERTIFICATE, Server, Talk

__all__ = ["CASES", "Case", "outcome"]

Fetch = Callable[[str, str | None, Path], str]


def _with_kflow(url: str, digest: str | None, folder: Path) -> str:
    from kflow.core import get_file

    return get_file(
        "a.bin",
        url,
        file_hash=digest,
        cache_dir=folder,
        progress=False,
        on_retry=lambda _: None,
        timeout=0.3,
        max_size=2**22,
        retries=2,
        backoff=0.01,
    )


def _with_keras(url: str, digest: str | None, folder: Path) -> str:
    import keras

    return str(keras.utils.get_file("a.bin", url, file_hash=digest, cache_dir=str(folder)))


def _with_pooch(url: str, digest: str | None, folder: Path) -> str:
    import pooch

    pooch.get_logger().disabled = True
    registry = {"a.bin": digest}
    store = pooch.create(folder, base_url="", registry=registry, urls={"a.bin": url}, retry_if_failed=2)
    return str(store.fetch("a.bin", downloader=pooch.HTTPDownloader(timeout=1)))


_SUBJECTS: dict[str, Fetch] = {"kflow": _with_kflow, "keras": _with_keras, "pooch": _with_pooch}


def outcome(case: Case, subject: str, folder: Path) -> str:
    """Let a library meet a fault, with a digest and without, and then a server that is well again.

    Returns "right", or what was wrong in a few words.
    """
    with_digest = _play(
        case, _SUBJECTS[subject], folder / "digest", case.expected, hashlib.sha256(case.file).hexdigest()
    )
    blind = _play(case, _SUBJECTS[subject], folder / "blind", case.blind, None)
    found = [*with_digest, *(f"{fault} (no digest)" for fault in blind if fault not in with_digest)]
    return ", ".join(found) or "right"


def _elsewhere(talk: Talk) -> None:
    """Answer at the other site, to which some faults lead."""
    if "authorization" in talk.headers:
        talk.server.breaches.append("sent the password to another site")
    talk.answer(BODY)


def _play(case: Case, fetch: Fetch, folder: Path, expected: Expectation, digest: str | None) -> list[str]:
    cache = folder / "cache"
    cache.mkdir(parents=True)
    with (
        Server(_elsewhere).running() as other,
        Server(case.serve, case.file, case.is_secure, other).running() as server,
    ):
        url = server.url.replace("//", f"//{case.user}") + "/a"
        with _environment(is_trusted=case.is_trusted):
            first = _try(fetch, url, digest, cache)
        server.is_healthy = True
        with _environment(is_trusted=True):
            then = _try(fetch, url, digest, cache)
        found = sorted({*server.breaches, *other.breaches}) + _judge(first, then, case.file, expected)
    outside = sorted(path.name for path in folder.iterdir() if path != cache)
    return found + [f"WRONG: wrote {name} outside" for name in outside]


def _try(fetch: Fetch, url: str, digest: str | None, cache: Path) -> bytes | Exception:
    try:
        return Path(fetch(url, digest, cache)).read_bytes()
    except Exception as error:  # noqa: BLE001  each library has errors of its own
        return error


def _judge(first: bytes | Exception, then: bytes | Exception, file: bytes, expected: Expectation) -> list[str]:
    if expected == "any":
        return []
    found = []
    if isinstance(first, Exception):
        found += [f"gave up: {type(first).__name__}"] if expected == "deliver" else []
    elif expected == "refuse" or first != file:
        found += ["WRONG: accepted " + ("it" if first == file else "wrong bytes")]
    if isinstance(then, Exception):
        found += [f"then STUCK: {type(then).__name__}"]
    elif then != file:
        found += ["then POISONED"]
    return found


@contextlib.contextmanager
def _environment(*, is_trusted: bool) -> Iterator[None]:
    """Let no proxy stand between, and the certificate of the server count."""
    settings = {"no_proxy": "*", "NO_PROXY": "*"}
    if is_trusted:
        settings |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(CERTIFICATE))
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
