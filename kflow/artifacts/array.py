"""Rows of numbers: a ``.npy`` file, or a description of rows elsewhere and what is done to them when read.

Slicing, scaling, encoding and normalizing compose as descriptions. The bytes move once, batch by batch,
when a step that computes asks for them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kflow.artifacts import ExternalFile, Saved, digest_file, digest_json

if TYPE_CHECKING:
    import numpy as np

NAME = "array.npy"
BLOCK_BYTES = 16 * 2**20
"""How much is read at once when a whole array is walked through."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows as they lie on disk: a window of an HDF5 data set, or a ``.npy`` file."""

    path: str
    content: str
    """The digest of the file, so that the digest of a view does not depend on where the file lies."""
    dataset: str | None = None
    start: int = 0
    end: int | None = None

    def open(self) -> Any:
        """Return an array-like that reads when it is indexed."""
        import numpy as np

        if self.dataset is None:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        from kflow.core.hdf5 import HDF5Matrix

        return HDF5Matrix(self.path, self.dataset, self.start, self.end)


@dataclass(frozen=True, slots=True)
class Rows:
    """An array that is read by rows: a source, and what is done to each block of rows in turn."""

    source: Source
    operations: tuple[Mapping[str, Any], ...]
    raw: Any
    """The open source: anything that NumPy can index by rows."""
    is_read_by_rows: ClassVar[bool] = True
    """Tells `kflow.core.rows.streaming` from an array in memory."""

    @classmethod
    def of(cls, source: Source, operations: tuple[Mapping[str, Any], ...] = ()) -> "Rows":
        """Open a source."""
        return cls(source, operations, source.open())

    def then(self, operation: Mapping[str, Any]) -> "Rows":
        """Return the same rows with one more operation."""
        return replace(self, operations=(*self.operations, operation))

    def __len__(self) -> int:
        return int(self.raw.shape[0])

    def __getitem__(self, rows: Any) -> "np.ndarray[Any, Any]":
        """Read the rows that a slice or an index array names."""
        import numpy as np

        block = np.asarray(self.raw[rows])
        for operation in self.operations:
            block = apply(operation, block)
        return block

    @property
    def sample(self) -> "np.ndarray[Any, Any]":
        """The first row, or a made one where there is none: it shows shape and dtype of all."""
        import numpy as np

        if len(self):
            return self[0:1]
        block = np.zeros((1, *self.raw.shape[1:]), self.raw.dtype)
        for operation in self.operations:
            block = apply(operation, block)
        return block

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and the shape of one."""
        return (len(self), *self.sample.shape[1:])

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The type of the entries."""
        dtype: np.dtype[Any] = self.sample.dtype
        return dtype

    def blocks(self) -> Iterator[tuple[int, "np.ndarray[Any, Any]"]]:
        """Yield all rows in blocks of bounded size, each with the number of its first row."""
        size = max(1, BLOCK_BYTES // max(1, self.sample.nbytes))
        for start in range(0, len(self), size):
            yield start, self[start : min(start + size, len(self))]

    def unpack(self, start: int, end: int, *, is_shuffled: bool) -> None:
        """Make rows quick to read in any order; see `kflow.core.HDF5Matrix.unpack`."""
        if self.source.dataset is not None:
            self.raw.unpack(start, end, is_shuffled=is_shuffled)

    def stored(self, start: int, end: int) -> "tuple[np.ndarray[Any, Any], int] | None":
        """Return where rows lie in a mapped file as they are; see `kflow.core.HDF5Matrix.stored`."""
        if self.operations or self.source.dataset is None:
            return None
        found: tuple[np.ndarray[Any, Any], int] | None = self.raw.stored(start, end)
        return found

    def describe(self) -> dict[str, Any]:
        """Return the form that is stored."""
        source = self.source
        return {
            "source": {
                "path": source.path,
                "content": source.content,
                "dataset": source.dataset,
                "start": source.start,
                "end": source.end,
            },
            "operations": [dict(operation) for operation in self.operations],
            "shape": list(self.shape),
            "dtype": str(self.sample.dtype),
        }


def apply(operation: Mapping[str, Any], block: Any) -> Any:
    """Do one operation to a block of rows.

    Parameters
    ----------
    operation : mapping
        ``{"do": "scale" | "one_hot" | "normalize", ...}`` with its arguments.
    block : ndarray
        Some rows, shape ``(rows, ...)``.

    Returns
    -------
    ndarray
        As many rows.
    """
    import numpy as np

    from kflow.core import normalize, to_categorical

    match operation["do"]:
        case "scale":
            dtype = np.dtype(operation["dtype"])
            scaled = np.multiply(block, operation["scale"], dtype=dtype)
            return np.add(scaled, operation["offset"], out=scaled) if operation["offset"] else scaled
        case "one_hot":
            more = {name: operation[name] for name in ("classes", "label_smoothing") if name in operation}
            return to_categorical(block, operation["num_classes"], operation["dtype"], **more)
        case "normalize":
            axis = operation["axis"]
            order = float("inf") if operation["order"] == "inf" else operation["order"]
            return normalize(block, tuple(axis) if isinstance(axis, list) else axis, order)
        case other:
            message = f"this version of kflow knows no operation {other!r}"
            raise ValueError(message)


def save(value: "Rows | np.ndarray[Any, Any]", folder: Path) -> Saved:
    """Store values as a ``.npy`` file, and rows elsewhere as their description."""
    if isinstance(value, Rows):
        description = value.describe()
        identity = description | {"source": {k: v for k, v in description["source"].items() if k != "path"}}
        return Saved(digest_json(identity), description, (ExternalFile.of(Path(value.source.path)),))
    import numpy as np

    folder.mkdir(exist_ok=True)
    # Not np.save: into a file of the system it writes past Python, and does not notice that the disk took no more.
    with (folder / NAME).open("w+b") as stream:  # neither a BufferedWriter, for which write_array does the same
        np.lib.format.write_array(stream, np.asanyarray(value), allow_pickle=False)
    digest = digest_file(folder / NAME)
    return Saved(digest, {"name": NAME, "content": digest, "shape": list(value.shape), "dtype": str(value.dtype)})


def load(description: Mapping[str, Any], folder: Path) -> Rows:
    """Open the rows for reading."""
    if "name" in description:
        return Rows.of(Source(str(folder / description["name"]), description["content"]))
    return Rows.of(Source(**description["source"]), tuple(description["operations"]))
