"""Files of farms: every feature either becomes a draft of a farm or is rejected with a reason."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.domain import FarmDraft, RejectedFeature
from models.errors import BadInput
from tasks.farms.boundaries import AreaLimits, Boundary, boundary_from
from tasks.farms.geojson import read_geojson
from tasks.farms.identity import Wanted, is_identifying, made_id, own_id, shape_id, text_of
from tasks.farms.layers import (
    Layer,
    check_size,
    dataset_name,
    read_geopackage,
    read_geoparquet,
    read_shapefile,
    read_zipped_shapefile,
)
from tasks.farms.projection import WGS84, Projection, crs_from, horizontal, projection_from, same_crs

READERS: dict[str, Callable[..., Layer]] = {
    ".geojson": read_geojson,
    ".json": read_geojson,
    ".gpkg": read_geopackage,
    ".parquet": read_geoparquet,
    ".geoparquet": read_geoparquet,
    ".shp": read_shapefile,
    ".zip": read_zipped_shapefile,
}
"""How each kind of file is read, by the end of its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmFile:
    """What a file of farms came to: every feature of it is either a draft or rejected."""

    drafts: tuple[FarmDraft, ...]
    rejected: tuple[RejectedFeature, ...]
    identified_by: str
    """Where the farms' identity came from, in words."""
    dataset: str
    """What identifies the source, with which identities are made."""
    made_ids: frozenset[uuid.UUID]
    """Identities that were made of the dataset and an id in it, not brought by the file."""
    warnings: tuple[str, ...] = ()
    """What the reader of the file remarked."""


def read_farms(
    path: Path,
    *,
    limits: AreaLimits,
    id_field: str | None = None,
    name_field: str | None = None,
    user_field: str | None = None,
    layer: str | None = None,
    crs: str | None = None,
    dataset: str | None = None,
) -> FarmFile:
    """Read a file of farms: GeoJSON, GeoPackage, Shapefile (also zipped) or GeoParquet, in any CRS.

    Args:
        path: the file.
        limits: areas that are accepted.
        id_field: field with the source's own id, unique in the file; unset, it is looked for.
        name_field: field with the farm's name.
        user_field: field with the owner as the calling system knows them.
        layer: which layer, where the file has several.
        crs: coordinate reference system, for a file that does not say.
        dataset: name of the source, where the file's name changes from one delivery to the next.

    Raises:
        BadInput: when nothing of the file can be used, naming the field and what is allowed.
    """
    size = _size_of(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput("file", f"{path.name} is of a kind that is not read", allowed=", ".join(READERS))
    if not size:
        raise BadInput("file", f"{path.name} is empty: it has 0 bytes", allowed="a file with farms in it")
    check_size(size)
    wanted = Wanted(id_field=id_field, name_field=name_field, user_field=user_field)
    found = reader(path, layer=layer, wanted=wanted)
    if not found.geometries:
        raise BadInput("file", f"{path.name} has no features")
    projection = _projection(found, crs=crs, is_json=reader is read_geojson)
    name = found.dataset if dataset is None else dataset_name(dataset)
    return _Reading(path.name, found, dataset=name, limits=limits, projection=projection).farm_file()


def _size_of(path: Path) -> int:
    """Bytes of a file that can be read.

    Raises:
        BadInput: it is none, or nobody lets us.
    """
    try:
        if path.is_dir():
            raise BadInput("file", f"{path} is a folder", allowed="one file of it at a time")
        if not path.is_file():
            raise BadInput("file", f"there is no file {path}")
        with path.open("rb"):
            return path.stat().st_size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput("file", f"{path} cannot be read: {reason}", allowed="a file that you may read") from error


def _projection(layer: Layer, *, crs: str | None, is_json: bool) -> Projection:
    given = None if crs is None else crs_from(crs, field="crs")
    if given is not None and layer.crs is not None and not same_crs(horizontal(given), horizontal(layer.crs)):
        raise BadInput("crs", f"the file says {layer.crs.name!r}, not {given.name!r}", allowed="leave --crs out")
    chosen = layer.crs or given
    if chosen is not None:
        return projection_from(chosen)
    if is_json:
        return WGS84
    raise BadInput("crs", "the file does not say its coordinate reference system", allowed="--crs EPSG:...")


class _Reading:
    """One pass over the features of a layer: what is shared by all of them, and what was met so far."""

    def __init__(self, file: str, layer: Layer, *, dataset: str, limits: AreaLimits, projection: Projection) -> None:
        self.file = file
        self.layer = layer
        self.dataset = dataset
        self.limits = limits
        self.projection = projection
        self.id_name, self.source_ids = _source_ids(layer)
        self.seen: dict[uuid.UUID, str] = {}
        self.made_ids: set[uuid.UUID] = set()

    def farm_file(self) -> FarmFile:
        drafts: list[FarmDraft] = []
        rejected: list[RejectedFeature] = []
        for index in range(len(self.layer.geometries)):
            try:
                drafts.append(self.draft(index))
            except BadInput as error:
                rejected.append(RejectedFeature(file=self.file, feature=self.label(index), reason=str(error)))
        own = self.layer.columns.own_id
        made = f"field {self.id_name}" if self.id_name else "the shape itself"
        return FarmFile(
            drafts=tuple(drafts),
            rejected=tuple(rejected),
            identified_by=f"field {own}, where it is empty {made}" if own and own != self.id_name else made,
            dataset=self.dataset,
            made_ids=frozenset(self.made_ids),
            warnings=self.layer.warnings,
        )

    def label(self, index: int) -> str:
        """Name a feature for messages: its place in the file, and its id."""
        source_id = _shown(self.source_ids, index) or _shown(
            self.layer.fields.get(self.layer.columns.own_id or ""), index
        )
        return f"feature {index + 1}" + (f" ({source_id})" if source_id else "")

    def draft(self, index: int) -> FarmDraft:
        drawn = self.layer.geometries[index]
        if isinstance(drawn, str):
            raise BadInput("geometry", drawn)
        boundary = boundary_from(drawn, limits=self.limits, projection=self.projection)
        identity, source_id = self.identity(index, boundary)
        name = self.text(self.layer.columns.name, index) or f"{self.dataset} {source_id or str(identity)[:8]}"
        draft = FarmDraft(
            external_farm_id=identity,
            name=name,
            external_user_id=self.text(self.layer.columns.user, index),
            boundary=boundary.wkb,
            bbox=boundary.bbox,
            area_ha=boundary.area_ha,
            feature=self.label(index),
            repairs=boundary.repairs,
        )
        self.seen[identity] = draft.feature
        if source_id is not None:
            self.made_ids.add(identity)
        return draft

    def identity(self, index: int, boundary: Boundary) -> tuple[uuid.UUID, str | None]:
        """Return the farm's UUID, and the source's own id where that made it."""
        columns = self.layer.columns
        own = self.text(columns.own_id, index)
        source_id: str | None = None
        if own is not None and not (columns.is_named and columns.ids == (columns.own_id,) and not _is_uuid(own)):
            identity = own_id(own)
        elif self.source_ids is None:
            identity = made_id(self.dataset, shape_id(boundary.wkb))
        else:
            source_id = _stored(self.id_name or "id", self.source_ids[index])
            if source_id is None:
                raise BadInput(self.id_name or "id", "is empty", allowed="a value of its own for every feature")
            identity = made_id(self.dataset, source_id)
        if identity in self.seen:
            raise BadInput(
                "id",
                f"{self.label(index)} is the same farm as {self.seen[identity]}, which came first",
                allowed="each id once; --id-field names another field",
            )
        return identity, source_id

    def text(self, column: str | None, index: int) -> str | None:
        return None if column is None else _stored(column, self.layer.fields[column][index])


def _stored(column: str, value: object) -> str | None:
    try:
        return text_of(value)
    except BadInput as error:
        raise BadInput(column, error.problem, allowed=error.allowed) from error


def _shown(values: Sequence[object] | None, index: int) -> str | None:
    if values is None:
        return None
    try:
        return text_of(values[index])
    except BadInput:
        return None


def _is_uuid(text: str) -> bool:
    try:
        own_id(text)
    except BadInput:
        return False
    return True


def _source_ids(layer: Layer) -> tuple[str | None, Sequence[object] | None]:
    """Choose the field that tells the features of a layer apart; None, None when there is none."""
    if layer.columns.is_named:
        [name] = layer.columns.ids
        return name, layer.fields[name]
    choices: list[tuple[str, Sequence[object]]] = [(name, layer.fields[name]) for name in layer.columns.ids]
    if layer.feature_ids is not None:
        choices.append(("id of the feature", layer.feature_ids))
    for name, values in choices:
        if is_identifying([_shown(values, index) for index in range(len(values))]):
            return name, values
    return None, None
