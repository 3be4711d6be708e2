"""What the types of a Parquet file's columns mean here: which hold pictures, and strings as bytes until they are checked."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.ingest.readers.picture_signs import says_picture

# Pixels as a grid of numbers, by whoever wrote them: Arrow, the Hugging Face datasets.
GRID_TYPES = ("arrow.fixed_shape_tensor", "arrow.variable_shape_tensor", "datasets.features.features.Array")


def is_list(kind: pa.DataType) -> bool:
    """A list of any of the layouts that Arrow has."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(test(kind) for test in tests) or pa.types.is_large_list_view(kind)


def is_string(kind: pa.DataType) -> bool:
    """A string of any of the layouts that Arrow has."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Bytes of any of the layouts that Arrow has."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def storage(kind: pa.DataType) -> pa.DataType:
    """The type without what Arrow puts around it: extension and dictionary."""
    if isinstance(kind, pa.BaseExtensionType):
        return storage(kind.storage_type)
    return storage(kind.value_type) if pa.types.is_dictionary(kind) else kind


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type can be encoded images: binary, struct{bytes, ...}, or a list of these."""
    kind = storage(kind)
    if is_list(kind):
        return holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and is_binary(storage(kind.field(at).type))
    return is_binary(kind)


def holds_text(kind: pa.DataType) -> bool:
    """Whether strings or bytes stand anywhere in values of this type."""
    kind = storage(kind)
    if is_list(kind):
        return holds_text(kind.value_type)
    if pa.types.is_map(kind):
        return holds_text(kind.key_type) or holds_text(kind.item_type)
    if pa.types.is_struct(kind):
        return any(holds_text(field.type) for field in kind)
    return is_string(kind) or is_binary(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts, or lists of them."""
    kind = storage(kind)
    return is_text(kind.value_type) if is_list(kind) else is_string(kind) or is_binary(kind)


def are_pixels(field: pa.Field) -> bool:
    """Whether the column's numbers are pictures: grids of bytes, or of any number under a name that says picture."""
    kind, depth = field.type, 0
    extension = kind.extension_name if isinstance(kind, pa.BaseExtensionType) else ""
    metadata: dict[bytes, bytes] = field.metadata or {}
    extension = extension or metadata.get(b"ARROW:extension:name", b"").decode(errors="replace")
    is_grid = extension.startswith(GRID_TYPES)
    kind = storage(kind)
    while is_list(kind):
        kind, depth = storage(kind.value_type), depth + 1
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    # Lists in lists of bytes are pixels under any name. Flat lists and other numbers are embeddings, boxes and masks as well.
    return is_number and ((says_picture(field.name) and (is_grid or depth >= 1)) or (depth >= 2 and pa.types.is_uint8(kind)))


def hub_images(schema: pa.Schema) -> set[str]:
    """The columns that the Hugging Face datasets say are images, or lists of them; other metadata says nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name for name, feature in features.items() if _is_hub_image(feature)}
    # JSON that anybody may have written, of any shape.
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return set()


def with_plain_lists(table: pq.ParquetFile) -> pq.FileMetaData | None:
    """The file's metadata with plain lists for those of fixed size or of views, which Arrow does not read back whole.

    Of fixed size it refuses a null, and of views it makes arrays that cannot be cast. None where there are no such lists,
    or where the file's own types are none that Arrow would write.
    """
    schema = table.schema_arrow
    plain = pa.schema([field.with_type(_plain(field.type)) for field in schema])
    if plain.equals(schema):
        return None
    made = io.BytesIO()
    try:
        # The file's own row groups below the new schema: what lies in the file is read under other types.
        pq.write_metadata(plain, made, metadata_collector=[table.metadata])
    except (pa.ArrowException, RuntimeError):
        return None
    return pq.read_metadata(made)


def strings_as_bytes(column: pa.Array) -> pa.Array:
    """The column with binary for every string in it: Parquet does not check that strings are UTF-8."""
    if isinstance(column, pa.ExtensionArray):
        return strings_as_bytes(column.storage)
    if pa.types.is_dictionary(column.type):
        return strings_as_bytes(column.dictionary_decode())
    wanted = _with_bytes(column.type)
    return column if wanted == column.type else column.cast(wanted)


def as_stored(value: Any, kind: pa.DataType) -> Any:
    """One value of `strings_as_bytes`, its strings as str again; what is no UTF-8 becomes lone surrogates."""
    kind = storage(kind)
    if isinstance(value, bytes) and is_string(kind):
        return value.decode(errors="surrogateescape")
    if isinstance(value, list) and is_list(kind):
        return [as_stored(entry, kind.value_type) for entry in value]
    if isinstance(value, dict) and pa.types.is_struct(kind):
        return {field.name: as_stored(value.get(field.name), field.type) for field in kind}
    return value


def _is_hub_image(feature: Any) -> bool:
    if isinstance(feature, list):
        # The older spelling of a list of images is [feature].
        return len(feature) == 1 and _is_hub_image(feature[0])
    kind = feature.get("_type") if isinstance(feature, dict) else None
    return kind == "Image" or (kind in ("Sequence", "List", "LargeList") and _is_hub_image(feature.get("feature")))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The same type with a plain list for every one of fixed size or of views."""
    if is_list(kind):
        is_large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
        return (pa.large_list if is_large else pa.list_)(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _with_bytes(kind: pa.DataType) -> pa.DataType:
    """The same type with binary for every string in it."""
    kind = storage(kind)
    if is_string(kind):
        # A view has no offsets to tell by how much there may be, so it gets the large ones.
        return pa.large_binary() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_with_bytes(kind.value_type))
    if is_list(kind):
        return pa.list_(_with_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_bytes(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_with_bytes(kind.key_type), _with_bytes(kind.item_type))
    return kind
