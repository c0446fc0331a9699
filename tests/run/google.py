"""A server of one's own that speaks the XML API of Google Cloud Storage, as far as its documentation says how.

It is not moto, which takes part in the S3 tests: that one cannot read a request that bears no AWS signature.
"""

import hashlib
import re
import secrets
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

_SMALLEST_PART = 5 * 2**20
"""Bytes that every part of an upload must have but the last one."""
_DATE = "2026-01-02T03:04:05.000Z"


@dataclass
class Reply:
    """What is answered to a request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class RefusalError(Exception):
    """What the server does not do, by the status and the code that Google gives for it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.reply = Reply(f"<Error><Code>{code}</Code><Message>TOKENDETAIL</Message></Error>".encode(), status)


@dataclass
class Google:
    """Buckets in memory."""

    url: str = ""
    buckets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    """What requests bore to show who asks."""
    is_closed: bool = False
    """Whether nobody has a right to anything."""

    def reset(self) -> None:
        """Forget all, and make one bucket."""
        self.buckets, self.uploads, self.tokens, self.is_closed = {"results": {}}, {}, set(), False

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request, or say as Google does why not."""
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        # Google takes a whole name as one part of the path; the client so quotes each slash of it.
        bucket, _, name = (urllib.parse.unquote(part) for part in parts.path[1:].partition("/"))
        self.tokens.add(headers.get("Authorization", "").removeprefix("Bearer").strip())
        try:
            if self.is_closed:
                raise RefusalError(403, "AccessDenied")
            if bucket not in self.buckets:
                raise RefusalError(404, "NoSuchBucket")
            objects = self.buckets[bucket]
            match method:
                case "GET" if not name:
                    return _list(objects, query)
                case "GET" | "HEAD":
                    return _get(objects, name, headers.get("Range"))
                case "PUT":
                    return self._put(objects, name, query, body)
                case "POST":
                    return self._post(objects, name, query, body)
                case _:
                    objects.pop(name)
                    return Reply(status=204)
        except RefusalError as refusal:
            return refusal.reply

    def _put(self, objects: dict[str, bytes], name: str, query: Mapping[str, str], body: bytes) -> Reply:
        if "uploadId" in query:
            self.uploads[query["uploadId"]][int(query["partNumber"])] = body
        else:
            objects[name] = body
        return Reply(headers=_describe(body))

    def _post(self, objects: dict[str, bytes], name: str, query: Mapping[str, str], body: bytes) -> Reply:
        """Begin an upload in parts, or end one: the object appears then."""
        if "uploads" in query:
            upload = secrets.token_hex(8)
            self.uploads[upload] = {}
            return Reply(_xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"))
        parts = self.uploads.pop(query["uploadId"])
        chosen = [parts[int(number)] for number in re.findall(r"<PartNumber>(\d+)<", body.decode())]
        if any(len(part) < _SMALLEST_PART for part in chosen[:-1]):
            raise RefusalError(400, "EntityTooSmall")
        objects[name] = b"".join(chosen)
        described = _describe(objects[name])
        return Reply(_xml("CompleteMultipartUploadResult", f"<ETag>{described['ETag']}</ETag>"), headers=described)


def _get(objects: Mapping[str, bytes], name: str, span: str | None) -> Reply:
    if name not in objects:
        raise RefusalError(404, "NoSuchKey")
    content = objects[name]
    headers = {**_describe(content), "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", span or "")
    if not found:
        return Reply(content, headers=headers)
    start, last = int(found[1]), min(int(found[2]), len(content) - 1)
    if start >= len(content):
        raise RefusalError(416, "InvalidRange")
    headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
    return Reply(content[start : last + 1], 206, headers)


def _list(objects: Mapping[str, bytes], query: Mapping[str, str]) -> Reply:
    assert query["list-type"] == "2"
    after = query.get("continuation-token", "")
    names = sorted(name for name in objects if name.startswith(query.get("prefix", "")) and name > after)
    page = names[: int(query.get("max-keys", 1000))]
    contents = "".join(
        f"<Contents><Key>{escape(name)}</Key><LastModified>{_DATE}</LastModified>"
        f"<ETag>{_describe(objects[name])['ETag']}</ETag><Size>{len(objects[name])}</Size></Contents>"
        for name in page
    )
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) < len(names) else ""
    return Reply(_xml("ListBucketResult", contents + token))


def _describe(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "x-goog-generation": "1"}


def _xml(tag: str, text: str) -> bytes:
    return f"<?xml version='1.0' encoding='UTF-8'?><{tag}>{text}</{tag}>".encode()


@contextmanager
def serve() -> Iterator[Google]:
    """Let a server run on this machine."""
    google = Google()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            """Take a request of any method."""
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = google.answer(self.command, self.path, self.headers, body)
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else reply.body)

        def log_request(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        google.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield google
        finally:
            server.shutdown()
            thread.join()
