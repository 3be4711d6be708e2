"""Real inputs of Parquet tables, COCO files, interleaved pages and lines with pictures, and what must come of each."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import PngImagePlugin

from tests.components.data.real_inputs import Case, encoded, noise, words

Entry = dict[str, Any]
NUMBER = 8
NUMBERS = range(NUMBER)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
WORDS = [words(number) for number in NUMBERS]
LINKS = [f"https://example.org/{number}.jpg?width=640" for number in NUMBERS]
PAGES = [f"https://example.org/articles/{number}" for number in NUMBERS]
NONE_SAYS = r"or set `images: none` on the corpus 'mine'"


def blobs(format: str = "JPEG") -> list[bytes]:
    return [encoded(number, format) for number in NUMBERS]


def base64s(head: str = "") -> list[str]:
    return [head + base64.b64encode(blob).decode() for blob in blobs()]


def structs(*, with_bytes: bool = True) -> pa.Array:
    values = [{"bytes": encoded(n) if with_bytes else None, "path": f"pics/{n}.jpg"} for n in NUMBERS]
    return pa.array(values, STRUCT)


def files(folder: Path, name: str = "pics/{}.jpg") -> list[str]:
    """A picture under each name, and the names."""
    names = [name.format(number) for number in NUMBERS]
    for number, found in enumerate(names):
        (folder / found).parent.mkdir(parents=True, exist_ok=True)
        (folder / found).write_bytes(encoded(number))
    return names


def table(**columns: Any) -> Callable[[Path], Entry]:
    """A Parquet file of these columns; `images` beside the columns is the corpus's key where it is a string."""

    def make(folder: Path) -> Entry:
        entry = {"images": columns["images"]} if isinstance(columns.get("images"), str) else {}
        made = {name: column for name, column in columns.items() if not isinstance(column, str)}
        pq.write_table(pa.table(made), folder / "part-0.parquet", row_group_size=3)
        return {"format": "parquet", "path": str(folder), **entry}

    return make


def table_of_names(name: str, images: str = "", **more: Any) -> Callable[[Path], Entry]:
    """A Parquet file whose column names files that lie in `pics` beside it."""

    def make(folder: Path) -> Entry:
        columns = {name: files(folder), "caption": WORDS, **more}
        pq.write_table(pa.table(columns), folder / "part-0.parquet")
        return {"format": "parquet", "path": str(folder / "part-0.parquet"), "images": images and str(folder / images)}

    return make


def path_structs_beside(folder: Path) -> Entry:
    files(folder)
    return table(image=structs(with_bytes=False), caption=WORDS)(folder)


def names_in_an_images_folder(folder: Path) -> Entry:
    entry = table(image=[f"{number}.jpg" for number in NUMBERS], text=WORDS)(folder)
    files(folder / "elsewhere", "{}.jpg")
    return {**entry, "images": str(folder / "elsewhere")}


def names_that_lead_out(folder: Path) -> Entry:
    files(folder, "secret{}.jpg")
    (folder / "in").mkdir()
    return table(image=[f"../secret{number}.jpg" for number in NUMBERS], caption=WORDS)(folder / "in")


def hub_table(folder: Path) -> Entry:
    """As `datasets` writes it: the features stand in the schema, under a name that says nothing."""
    features = {"input": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
    made = pa.table({"input": pa.nulls(2, STRUCT).take([0, 1]), "text": WORDS[:2]})
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(made, folder / "nothing-in-it.parquet")
    full = pa.table({"input": structs(), "text": WORDS}).replace_schema_metadata(made.schema.metadata)
    pq.write_table(full, folder / "train.parquet")
    return {"format": "parquet", "path": str(folder)}


def names_of_no_files(folder: Path) -> Entry:
    """Among the pictures a pipe, which nobody writes to, links to a device and to itself, and a name that is too long."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    others = ["pipe.jpg", "zero.jpg", "loop.jpg", f"{'x' * 300}.jpg"]
    return table(image=[*files(folder)[:4], *others], caption=WORDS)(folder)


def pages_of_another_ending(folder: Path) -> Entry:
    """OBELICS pages in Parquet, which their name does not say."""
    columns = {"images": [[None, blob] for blob in blobs()], "texts": [[text, None] for text in WORDS]}
    pq.write_table(pa.table(columns), folder / "pages.pq")
    return {"format": "obelics", "path": str(folder / "pages.pq")}


def late_pictures(folder: Path) -> Entry:
    """A text corpus in whose column `extra` pictures begin after a thousand other values."""
    extra = [b"\x00\x01"] * 1000 + [encoded(1)]
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1001)], "extra": extra}), folder / "a.parquet")
    return {"format": "parquet", "path": str(folder)}


def few_picture_pages(folder: Path) -> Entry:
    """Web pages, of which one is named like a picture."""
    urls = [f"https://example.org/{number}" for number in range(39)] + ["https://example.org/wiki/File:A.jpg"]
    pq.write_table(pa.table({"text": [f"a text of page {n}" for n in range(40)], "url": urls}), folder / "a.parquet")
    return {"format": "parquet", "path": str(folder)}


def coco(folder: Path, images: list[Any], annotations: list[Any]) -> Entry:
    made = {"info": {}, "categories": [{"id": 1, "name": "thing"}], "images": images, "annotations": annotations}
    (folder / "captions.json").write_text(json.dumps(made))
    return {"format": "coco", "path": str(folder / "captions.json"), "images": str(folder / "pics")}


def captions() -> list[Any]:
    return [{"id": number, "image_id": number, "caption": sentence} for number, sentence in enumerate(WORDS)]


def boxes() -> list[Any]:
    return [{"id": 100 + n, "image_id": n // 2, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25} for n in range(2 * NUMBER)]


def listed(folder: Path) -> list[Any]:
    return [{"id": number, "file_name": name.removeprefix("pics/")} for number, name in enumerate(files(folder))]


def coco_names(folder: Path) -> Entry:
    """Absolute names, names in folders, names of Windows and a file URL, all of them inside the folder."""
    names = files(folder, "pics/sub/{}.jpg")
    spelled = [str(folder / name) if number % 2 else name.removeprefix("pics/") for number, name in enumerate(names)]
    spelled[0], spelled[1] = r".\sub\0.jpg", (folder / names[1]).as_uri()
    return coco(folder, [{"id": number, "file_name": name} for number, name in enumerate(spelled)], captions())


def pages(folder: Path, records: list[Any], format: str, images: str = "pics") -> Entry:
    (folder / "pages.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"format": format, "path": str(folder / "pages.jsonl"), "images": images and str(folder / images)}


def pages_with_gaps(folder: Path) -> Entry:
    """A download in which some pictures failed leaves nothing at their place."""
    names = [name.removeprefix("pics/") for name in files(folder)]
    records = [
        {"images": [None, name, None], "texts": [sentence, None, None]} for name, sentence in zip(names, WORDS, strict=True)
    ]
    return pages(folder, records, "obelics")


def pages_that_link_elsewhere(folder: Path) -> Entry:
    records = [
        {"images": [None], "texts": [sentence], "image_urls": [link]} for sentence, link in zip(WORDS, LINKS, strict=True)
    ]
    return pages(folder, records, "obelics", "")


def interleaved_table(folder: Path) -> Entry:
    columns = {"images": [[None]] * NUMBER, "texts": [[sentence] for sentence in WORDS], "thumbs": blobs()}
    pq.write_table(pa.table({**columns, "images": pa.array(columns["images"], pa.list_(pa.string()))}), folder / "p.parquet")
    return {"format": "obelics", "path": str(folder / "p.parquet")}


def matched_lines(folder: Path) -> Entry:
    names = [name.removeprefix("pics/") for name in files(folder)]
    records = [
        {"text_list": [sentence], "image_info": [{"image_name": name, "raw_url": "https://x/1.jpg", "matched_text_index": 0}]}
        for name, sentence in zip(names, WORDS, strict=True)
    ]
    return pages(folder, records, "mmc4")


def matched_lines_with_more(folder: Path) -> Entry:
    files(folder)
    records = [{"text_list": [sentence], "image_info": [], "image": link} for sentence, link in zip(WORDS, LINKS, strict=True)]
    return pages(folder, records, "mmc4")


def lines(images: str = "", **columns: Any) -> Callable[[Path], Entry]:
    """JSON lines of these fields; `pics` holds the files that they may name."""

    def make(folder: Path) -> Entry:
        files(folder)
        names = list(columns)
        records = [
            {name: value for name, value in zip(names, record, strict=True) if value is not ...}
            for record in zip(*columns.values(), strict=True)
        ]
        (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return {"format": "jsonl", "path": str(folder / "a.jsonl"), "images": images}

    return make


def png_with_text(folder: Path) -> Entry:
    for number in NUMBERS:
        info = PngImagePlugin.PngInfo()
        info.add_text("workflow", "x" * (1_500_000 if number % 2 else 10), zip=True)
        noise(number).save(folder / f"{number}.png", pnginfo=info)
        (folder / f"{number}.txt").write_text(WORDS[number])
    return {"format": "image_folder", "path": str(folder)}


NAMES = [f"pics/{number}.jpg" for number in NUMBERS]
UUIDS = [uuid.UUID(int=(number + 1) * 0xF1E2D3C4B5A6978812345678) for number in NUMBERS]
GRID = pa.array([[[[0, 1, 2]] * 2] * 2] * NUMBER, pa.list_(pa.list_(pa.list_(pa.uint8()))))
LISTED = pa.array([[encoded(n), encoded(n + 1)] for n in NUMBERS], pa.list_(pa.binary()))
TWO_EACH = [[f"{sentence} {k}" for k in range(2)] for sentence in WORDS]
GAPPED = [None, [], *TWO_EACH[2:]]


def all_read(name: str, make: Callable[[Path], Entry], says: str = "") -> Case:
    return Case(name, make, documents=NUMBER, images=NUMBER, says=says)


def text_alone(name: str, make: Callable[[Path], Entry], says: str = "") -> Case:
    return Case(name, make, documents=NUMBER, says=says)


BYTES = (
    all_read("struct", table(image=structs(), caption=WORDS, label=list(NUMBERS))),
    all_read("img2dataset's own table", table(key=WORDS, jpg=blobs(), url=LINKS, txt=WORDS, width=[32] * 8, height=[24] * 8)),
    all_read("png", table(png=blobs("PNG"), text=WORDS)),
    all_read("webp", table(webp=blobs("WEBP"), TEXT=WORDS)),
    all_read("large binary", table(Image=pa.array(blobs(), pa.large_binary()), caption=WORDS)),
    all_read("binary view", table(photo=pa.array(blobs(), pa.binary_view()), caption=WORDS)),
    all_read("dictionary", table(image=pa.array(blobs()).dictionary_encode(), caption=WORDS)),
    all_read("a name that says nothing", table(content_bytes=blobs(), caption=WORDS)),
    all_read("base64", table(image=base64s(), caption=WORDS)),
    all_read(
        "base64 for URLs",
        table(image=[one.translate(str.maketrans("+/", "-_")).rstrip("=") for one in base64s()], caption=WORDS),
    ),
    all_read("data URI", table(image=base64s("data:image/jpeg;base64,"), caption=WORDS)),
    all_read("content and caption", table(content=blobs(), caption=WORDS)),
    all_read("text and content", table(text=WORDS, content=structs())),
    all_read("text and content in lines", lines(text=WORDS, content=base64s("data:image/jpeg;base64,"))),
    all_read("text and alt_text", table(text=base64s(), alt_text=WORDS)),
    all_read("pages of another ending", pages_of_another_ending),
    Case("several a record", table(images=LISTED, caption=WORDS), documents=8, images=16),
    Case("Hub features", hub_table, documents=8, images=8, rejected=2, says="2 missing image"),
    Case("no picture in some records", table(jpg=[*blobs()[:6], None, b""], caption=WORDS), 6, 6, 2, says="2 missing image"),
    Case("not a picture in some", table(jpg=[*blobs()[:6], b"a.jpg", b"junk"], caption=WORDS), 6, 6, 2, says="1 image is not"),
)
REFUSED = (
    Case("image names, no files", table(image=NAMES, caption=WORDS), refused=rf"column image \(pics/0.jpg\), .*{NONE_SAYS}"),
    Case("LAION's metadata", table(URL=LINKS, TEXT=WORDS), refused=rf"links .* column URL .*img2dataset.*{NONE_SAYS}"),
    Case("links as ids", table(id=LINKS, caption=WORDS), refused=rf"links .* column id .*{NONE_SAYS}"),
    Case("links as ids of lines", lines(id=LINKS, text=WORDS), refused=rf"links .* column id .*{NONE_SAYS}"),
    Case("links without ending", table(url=PAGES, caption=WORDS), refused="column url"),
    Case("COYO's metadata", table(url=PAGES, text=WORDS, width=[1] * 8, height=[1] * 8), refused="column url"),
    Case("links beside text", table(source=LINKS, text=WORDS), refused="column source"),
    Case("imageUrl", table(imageUrl=LINKS, text=WORDS), refused="column imageUrl"),
    Case("a link in a struct", table(meta=[{"thumb": link} for link in LINKS], text=WORDS), refused="column meta.thumb"),
    Case("links in a list", table(urls=[[link] for link in LINKS], text=WORDS), refused="column urls"),
    Case("pixels", table(image=GRID, caption=WORDS), refused=r"numbers in the column image"),
    Case("pixels of no name", table(x=GRID, text=WORDS), refused="numbers in the column x"),
    Case("ids of pictures", table(image_id=list(NUMBERS), caption=WORDS), refused="by an id in the column image_id"),
    Case("numbers of pictures", table(image=list(NUMBERS), text=WORDS), refused="by an id in the column image"),
    Case(
        "a link in JSON",
        table(meta=[json.dumps({"img": {"url": u}}) for u in LINKS], text=WORDS),
        refused="column meta.img.url",
    ),
    Case("lines without text", lines(image=NAMES, turns=[[{"from": "human"}]] * 8), refused="columns image, turns and none of"),
    Case("two columns", table(image=structs(), mask=blobs("PNG"), text=WORDS), refused="columns image, mask; keep one"),
    Case("pixels beside", table(image=structs(), pixel_values=GRID, text=WORDS), refused="numbers in the column pixel_values"),
    Case("bytes in a struct", table(sample=[{"x": {"data": b}} for b in blobs()], text=WORDS), refused="column sample.x.data"),
    Case("pictures that come late", late_pictures, refused="column extra"),
    Case("names that lead out", names_that_lead_out, refused="none of the first lies in"),
    Case("no column of text", table(image=structs(), label=list(NUMBERS)), refused="has the columns image, label and none of"),
    Case("two captions", table(img=structs(), caption_en=WORDS, caption_de=WORDS), refused="captions: caption_en, caption_de"),
    Case("a line's link", lines(text=WORDS, image=LINKS), refused="column image"),
    Case("a late line's link", lines(text=WORDS * 9, image=[None] * 71 + LINKS[:1]), refused="column image"),
    Case("a late line's name", lines(text=WORDS * 9, image=[None] * 71 + NAMES[:1]), refused="behind records that have none"),
    Case("a line's nested link", lines(text=WORDS, meta=[{"image_url": u} for u in LINKS]), refused="column meta.image_url"),
    Case("pages that link elsewhere", pages_that_link_elsewhere, refused="column image_urls"),
    Case("bytes beside pages", interleaved_table, refused="column thumbs"),
    Case("links beside matched lines", matched_lines_with_more, refused="column image"),
    Case("COCO's instances", lambda folder: coco(folder, listed(folder), boxes()), refused="boxes or segments and no captions"),
)
NAMED = (
    Case("names of no files", names_of_no_files, 4, 4, 4, "2 image file is a pipe or a device; 2 image file is missing"),
    all_read("names as ids", table_of_names("id")),
    all_read("names as ids in lines", lines(id=NAMES, caption=WORDS)),
    all_read("paths beside the table", path_structs_beside),
    all_read("names beside the table", table_of_names("image")),
    all_read("names in another folder", names_in_an_images_folder),
    all_read("file_name and a link", table_of_names("file_name", url=LINKS)),
    all_read("img_path", table_of_names("img_path")),
    all_read("names in lines", lines(text=WORDS, image=NAMES)),
    all_read("metadata.jsonl of the Hub", lines(file_name=NAMES, text=WORDS)),
    all_read("base64 in lines", lines(caption=WORDS, img=base64s())),
    Case(
        "some lines with pictures",
        lines(text=WORDS, image=[*NAMES[:3], None, "", ..., "gone.jpg", "../a.jpg"]),
        6,
        3,
        2,
        "1 .*out",
    ),
)
CHOSEN = (
    text_alone("images: none, links", table(URL=LINKS, TEXT=WORDS, images="none")),
    text_alone("images: none, bytes", table(image=structs(), caption=WORDS, images="none")),
    text_alone("images: none, lines", lines("none", text=WORDS, image=LINKS)),
    text_alone("images: none, COCO", lambda folder: {**coco(folder, listed(folder), captions()), "images": "none"}),
    text_alone(
        "images: none, pages", lambda folder: {**pages_with_gaps(folder), "images": "none"}, says="8 a place has neither"
    ),
    text_alone("images: none, matched", lambda folder: {**matched_lines(folder), "images": "none"}),
    text_alone("web pages", table(text=WORDS, url=PAGES, image_width=list(NUMBERS), license=WORDS)),
    text_alone("lines of web pages", lines(text=WORDS, url=PAGES, meta=[{"source": "C4"}] * 8)),
    text_alone("an empty column", table(text=WORDS, image=pa.nulls(8)), says="8 a column for pictures is empty"),
    text_alone("empty links", table(text=WORDS, image_url=pa.nulls(8, pa.string())), says="8 a column for pictures is empty"),
    Case("few picture pages", few_picture_pages, documents=40, says="1 names a picture in a field that is not read"),
)
OTHERS = (
    text_alone("file names as captions", table(text=[f"{number}.jpg" for number in NUMBERS], page=WORDS)),
    text_alone("UUIDs", table(id=pa.array([one.bytes for one in UUIDS], pa.binary(16)), text=WORDS)),
    all_read("UUIDs of Arrow", table(id=pa.array([one.bytes for one in UUIDS], pa.uuid()), image=structs(), caption=WORDS)),
    text_alone("digests", table(id=[bytes([number, 255, 0]) for number in NUMBERS], text=WORDS)),
    Case("list of fixed size", table(image=structs(), captions=pa.array(TWO_EACH, pa.list_(pa.string(), 2))), 16, 16),
    Case(
        "gaps in a list of fixed size",
        table(image=structs(), captions=pa.array([None, *TWO_EACH[1:]], pa.list_(pa.string(), 2))),
        *(14, 14, 1),
        says="missing caption",
    ),
    Case(
        "large list", table(img=structs(), captions=pa.array(GAPPED, pa.large_list(pa.large_string()))), 12, 12, 2, "2 missing"
    ),
    Case("list view", table(img=structs(), captions=pa.array(GAPPED, pa.list_view(pa.string()))), 12, 12, 2, "2 missing"),
    Case("captions alone", table(captions=TWO_EACH), documents=16),
    all_read("alt_text", table(image=structs(), alt_text=WORDS)),
    all_read("caption_en", table(image=structs(), caption_en=WORDS, image_caption_score=[0.5] * 8)),
    all_read("Caption", table(IMAGE=structs(), Caption=WORDS)),
    all_read("boxes beside captions", lambda f: coco(f, listed(f), [*captions(), *boxes()]), says="8 boxes ignored"),
    all_read("COCO's names", coco_names),
    all_read("pages with gaps", pages_with_gaps, says="8 a place has neither text nor image"),
    all_read("matched lines", matched_lines),
    all_read("PNG with much text", png_with_text),
)

TABLES_CASES = (*BYTES, *REFUSED, *NAMED, *CHOSEN, *OTHERS)
