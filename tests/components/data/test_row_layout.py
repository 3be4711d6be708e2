"""A laid-out batch is what one gets by building it document by document."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.row_layout import RowForm, lay_out, places

PAD, BOI, EOI = 0, 3, 4

Document = list[int | str]  # text ids, and "image" or "hidden" (an image that must not see its caption)
document_strategy = st.lists(st.one_of(st.integers(5, 30), st.sampled_from(["image", "hidden"])), max_size=6)


def test_documents_of_a_row_stand_one_behind_the_other() -> None:
    stored = [[1, 9, BOI, EOI, 2], [1, 8, 7, 2], [1, BOI, EOI, BOI, EOI, 5, 2], [1, 6, 2]]
    tokens, document_at = np.array([id for ids in stored for id in ids], np.int32), np.cumsum([0, *map(len, stored)])
    form = RowForm(length=24, patches_per_image=3, boi=BOI, pad=PAD)
    assert places(form, tokens, document_at, np.array([0, 0, 1, 1])).tolist() == [0, 8, 24, 37]


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.lists(document_strategy, max_size=3), min_size=1, max_size=3), patches=st.integers(1, 4))
def test_layout_equals_documents_laid_out_one_by_one(rows: list[list[Document]], patches: int) -> None:
    row_length = 100
    stored = [[1, *_flat(document), 2] for row in rows for document in row]
    tokens, document_at = np.array([id for ids in stored for id in ids], np.int32), np.cumsum([0, *map(len, stored)])
    document_row = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    hidden = [part == "hidden" for row in rows for doc in row for part in doc if isinstance(part, str)]
    form = RowForm(row_length, patches, boi=BOI, pad=PAD)
    layout = lay_out(
        form,
        tokens,
        document_at,
        places(form, tokens, document_at, document_row),
        hidden_captions=np.array(hidden, bool),
        num_rows=len(rows),
    )
    expected = _by_hand(rows, row_length, patches)
    is_patch = np.zeros(len(rows) * row_length, bool)
    is_patch[layout.patch_positions] = True
    assert np.array_equal(np.where(is_patch, PAD, layout.input_ids.ravel()), expected["input_ids"])
    for name in ("position_ids", "kv_start", "kv_end"):
        assert np.array_equal(getattr(layout, name).ravel(), expected[name]), name
    for name in ("patch_positions", "loss_positions", "labels", "after_image"):
        assert getattr(layout, name).tolist() == expected[name], name


def _flat(document: Document) -> list[int]:
    return [id for part in document for id in ([BOI, EOI] if isinstance(part, str) else [part])]


def _by_hand(rows: list[list[Document]], row_length: int, patches: int) -> dict[str, list[int]]:
    """The layout straight from its definition, one position at a time."""
    out: dict[str, list[int]] = {
        name: []
        for name in (
            "input_ids",
            "position_ids",
            "kv_start",
            "kv_end",
            "patch_positions",
            "loss_positions",
            "labels",
            "after_image",
        )
    }
    for number, row in enumerate(rows):
        cells: list[tuple[int, int, int, int]] = []  # id, position, first, last
        for document in row:
            start, text_before, image_before, parts = len(cells), False, False, [1, *document, 2]
            for index, part in enumerate(parts):
                at = len(cells)
                # A document ends in 2; behind an image, neither that nor another image is a text about it.
                is_text = isinstance(parts[index - 1], int) or (isinstance(part, int) and part != 2)
                if isinstance(part, int):
                    if text_before:
                        out["loss_positions"].append(number * row_length + at - 1)
                        out["labels"].append(part)
                        out["after_image"].append(image_before and is_text)
                    cells.append((part, at - start, start, at))
                    text_before = True
                    continue
                first = at if part == "hidden" else start
                # The token before an image predicts its begin; the begin and the patches predict no text, the end does.
                out["loss_positions"].append(number * row_length + at - 1)
                out["labels"].append(BOI)
                out["after_image"].append(image_before and is_text)
                image_before = True
                cells.append((BOI, at - start, first, at))
                for patch in range(at + 1, at + 1 + patches):
                    out["patch_positions"].append(number * row_length + patch)
                    cells.append((PAD, patch - start, first, at + patches))
                cells.append((EOI, len(cells) - start, start, len(cells)))
        cells += [(PAD, 0, at, at) for at in range(len(cells), row_length)]
        for name, values in zip(("input_ids", "position_ids", "kv_start", "kv_end"), zip(*cells, strict=True), strict=True):
            out[name] += values
    return out
