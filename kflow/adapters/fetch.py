"""Fetch a file once and verify it; a member can be taken out of an archive.

    digits:
      kind: fetch
      origin: data/digits.h5          # a path beside this file, file://, http:// or https://
      file_hash: sha256:5d2c4f...     # strongly recommended for what comes over a network

A file on this machine stays where it is; one from a network is downloaded into the store. With
``extract: true`` the origin is a tar or zip archive, and ``member`` names the file inside it to hand on.

    faces:
      kind: fetch
      origin: https://example.org/faces.h5
      file_hash: sha256:5d2c4f...     # with mirrors, it says that all bring the same bytes
      mirrors: [https://mirror.example.org/faces.h5]
      max_size: 2000000000
      timeouts: {connect: 10, read: 30, total: 3600}

A server that fails or stalls is asked again, and a mirror at once. With ``KFLOW_OFFLINE=1`` in the environment no
network is asked.

Outputs: ``file``.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from kflow.spec.base import Examination, NotFingerprinted, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import Fact, FileFact
from kflow.spec.types import Bool, Digest, File, Float, Origin, PositiveInt

if TYPE_CHECKING:
    from kflow.core.files import Retry

Seconds = Annotated[Float, Field(gt=0)]


class Timeouts(BaseModel):
    """The seconds that a download may take, part by part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect: Seconds = Field(default=30.0, description="Seconds to wait for a connection.")
    read: Seconds = Field(default=30.0, description="Seconds to wait for the headers, and for each part of the body.")
    total: Seconds = Field(default=86400.0, description="Seconds for everything together, all tries included.")


class Fetch(StepSpec, kind="fetch", version=1):
    """A file from a network or from this machine."""

    is_light = True

    origin: Origin
    file_hash: Digest | None = Field(default=None, description="The digest that the file must have.")
    fname: str | None = Field(
        default=None, pattern=r"^[^/\\\x00]+$", description="The name to give a downloaded file; default from the URL."
    )
    # What brings the same bytes by another way, or gives up sooner, does not change the result.
    mirrors: Annotated[tuple[Origin, ...], NotFingerprinted()] = Field(
        default=(), description="Further URLs of the same bytes, tried when the origin fails."
    )
    max_size: Annotated[PositiveInt, NotFingerprinted()] = Field(
        default=20 * 2**30, description="The most bytes to accept."
    )
    timeouts: Annotated[Timeouts, NotFingerprinted()] = Field(
        default=Timeouts(), description="How long to wait, in seconds."
    )
    extract: Bool = Field(default=False, description="Whether the file is an archive to take `member` from.")
    member: str | None = Field(default=None, description="The file inside the archive to hand on.")

    class Outputs(StepOutputs):
        """What others may reference."""

        file: File

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Verify a file that is here already."""
        if self.extract != (self.member is not None):
            exam.problem("'extract: true' and 'member' belong together: the archive, and the file to take out of it")
        if self.member is not None and not self._has_plain_member():
            exam.problem(f"{self.member!r} leads out of the archive; a member is named by its path inside", "member")
        self._check_mirrors(exam)
        if self.origin.is_remote:
            self._check_url(exam, self.origin, "origin")
            return {}
        if not exam.look.is_file(self.origin.local_path):
            return {}
        self._verify(exam)
        return {} if self.extract else {"file": FileFact(exam.look.absolute(self.origin.local_path))}

    def _has_plain_member(self) -> bool:
        """Tell whether the member is named by a path that cannot leave the folder that the archive is unpacked to."""
        path = PurePosixPath(self.member or "")
        return not path.is_absolute() and ".." not in path.parts

    def _check_mirrors(self, exam: Examination) -> None:
        if self.mirrors and not self.origin.is_remote:
            exam.problem(
                "a file on this machine needs no mirrors; remove them, or make one of them the origin", "mirrors"
            )
        elif self.mirrors and self.file_hash is None:
            exam.problem("mirrors need a 'file_hash', which says that they bring the same bytes", "mirrors")
        for index, mirror in enumerate(self.mirrors):
            if mirror.is_remote:
                self._check_url(exam, mirror, "mirrors", index)
            else:
                exam.problem("a mirror must be an http or https URL", "mirrors", index)

    def _check_url(self, exam: Examination, url: str, *path: str | int) -> None:
        from kflow.core.files.urls import check_url

        try:
            check_url(url)
        except ValueError as error:
            exam.problem(str(error), *path)

    def _verify(self, exam: Examination) -> None:
        if self.file_hash is None:
            return
        from kflow.core.files.digests import parse_digest

        try:
            algorithm, expected = parse_digest(self.file_hash)
            found = exam.look.digest(self.origin.local_path, algorithm)
        except ValueError as error:
            exam.problem(str(error), "file_hash")
            return
        if found != expected:
            message = f"{self.origin} does not have this digest; its {algorithm} is {found}"
            exam.problem(message, "file_hash")

    def promises(self) -> Mapping[str, str]:
        """Return the digest of a file that is handed on as it came."""
        if self.file_hash is None or self.extract:
            return {}
        algorithm, _, digest = self.file_hash.lower().rpartition(":")
        return {"file": digest} if algorithm in {"", "sha256"} and len(digest) == 64 else {}

    def run(self, context: StepContext) -> StepOutputs:
        """Fetch with `kflow.core.get_file`."""
        return self.Outputs(file=self._take_member(context, self._fetch(context)))

    def _fetch(self, context: StepContext) -> Path:
        if not self.origin.is_remote:
            return context.root / self.origin.local_path
        from kflow.core.files import get_file

        name = self.fname or self.origin.partition("?")[0].rstrip("/").rpartition("/")[2] or "download"

        def progress(done: int, total: int | None) -> None:
            context.report({"event": "download", "done": done, "total": total})

        def retry(told: "Retry") -> None:
            context.report({"event": "retry", "text": str(told)})

        return Path(
            get_file(
                name,
                str(self.origin),
                file_hash=self.file_hash,
                cache_dir=str(context.workdir),
                cache_subdir="",
                progress=progress,
                on_retry=retry,
                mirrors=self.mirrors,
                max_size=self.max_size,
                timeout=self.timeouts.model_dump(),
            )
        )

    def _take_member(self, context: StepContext, path: Path) -> Path:
        if self.member is None:
            return path
        from kflow.core.archives import extract_archive

        folder = context.workdir / "extracted"
        extract_archive(path, folder)
        found = folder / self.member
        if not self._has_plain_member() or not found.is_file():
            message = f"{path.name} has no file {self.member!r}"
            raise FileNotFoundError(message)
        return found
