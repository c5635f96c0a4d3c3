"""An index of tiles by their embeddings, over the GeoParquet files of many runs: which look like this one?

Search is exact (scikit-learn's brute force over standardised embeddings): 100 000 tiles of 40 numbers are 16 MB, so
an approximate index would save nothing and could miss a hit. The Parquet files are the index; nothing else is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from sim.features.extract import extract
from sim.features.files import PARQUET, need
from sim.features.source import Asked, open_source

#: What is read of a row besides its embedding.
ABOUT = ("scene", "scene_id", "sensed_at", "bundle", "row", "col", "valid_share", "geometry")


@dataclass(frozen=True, eq=False)
class Index:
    """Rows of tiles, and their embeddings [n, D]."""

    rows: Sequence[Mapping[str, Any]]
    embeddings: NDArray[np.float32]
    bundle: str

    def nearest(self, wanted: NDArray[np.float32], count: int, leave_out: int | None = None) -> list[tuple[int, float]]:
        """Places of the nearest rows and their distances in standard deviations (root mean square over numbers),
        nearest first. `leave_out`: a row that is not looked for."""
        if len(wanted) != self.embeddings.shape[1]:
            raise InputError(f"an embedding of {len(wanted)} numbers, the index has {self.embeddings.shape[1]}; "
                             "give tiles of one bundle")  # fmt: skip
        mean, scale = self.embeddings.mean(axis=0), self.embeddings.std(axis=0) + 1e-6
        neighbours = need("sklearn.neighbors").NearestNeighbors(algorithm="brute")
        fitted = neighbours.fit((self.embeddings - mean) / scale)
        most = min(len(self.rows), count + (leave_out is not None))
        distances, places = fitted.kneighbors(((wanted - mean) / scale)[None], most)
        found = zip(places[0].tolist(), (distances[0] / len(wanted) ** 0.5).tolist(), strict=True)
        return [(place, distance) for place, distance in found if place != leave_out][:count]

    def place_of(self, folder: Path, row: int, col: int) -> int:
        """Where the tile of a folder stands. InputError where it is not in the index."""
        for place, about in enumerate(self.rows):
            if (about["folder"], about["row"], about["col"]) == (str(folder), row, col):
                return place
        raise InputError(f"{folder}@{row},{col}: no such tile in the index; name a searched folder and its tile")


def read_index(folders: Sequence[Path], bundle: str | None = None) -> Index:
    """Every embedding below the folders, of one bundle. InputError where there are none, or several bundles and no
    choice."""
    files = sorted(path for folder in folders for path in folder.rglob(PARQUET))
    rows = [row for path in files for row in _rows(path)]
    bundles = sorted({row["bundle"] for row in rows})
    if bundle is None and len(bundles) > 1:
        raise InputError(f"embeddings of the bundles {', '.join(bundles)} do not compare; name one as --bundle")
    kept = [row for row in rows if bundle is None or row["bundle"] == bundle]
    if not kept:
        where = ", ".join(str(folder) for folder in folders)[:120]
        raise InputError(f"{where}: no {PARQUET} with tiles of {bundle or 'any bundle'}; run `sim features` first")
    return Index(kept, np.array([row.pop("embedding") for row in kept], np.float32), kept[0]["bundle"])


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        table = need("pyarrow.parquet").read_table(path, columns=[*ABOUT, "embedding"])
    except (OSError, ValueError, KeyError) as error:
        cause = str(error).splitlines()[0][:100]
        raise InputError(f"{path}: is no file of embeddings ({cause}); write it with `sim features`") from None
    return [{**row, "folder": str(path.parent)} for row in table.to_pylist()]


def embedding_of(like: str, index: Index, asked: Asked) -> tuple[NDArray[np.float32], int | None]:
    """The embedding that is looked for, and its own place in the index. `like`: FOLDER@ROW,COL, a tile of the index; or
    whatever `sim features` reads, of which the tile in the middle is taken."""
    folder, at, address = like.rpartition("@")
    if at:
        place = index.place_of(Path(folder), *_address(like, address))
        return index.embeddings[place], place
    with open_source(asked) as source:
        tiles = list(extract(source))
    if not tiles:
        raise InputError(f"{like}: no tile holds features; give another picture")
    return tiles[len(tiles) // 2].embedding, None


def _address(like: str, text: str) -> tuple[int, int]:
    row, comma, col = text.partition(",")
    if not (comma and row.isdecimal() and col.isdecimal()):
        raise InputError(f"--like {like[:80]!r}: wanted FOLDER@ROW,COL, as in out/features@2,3")
    return int(row), int(col)
