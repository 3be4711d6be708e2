"""Real inputs whose shape misleads: JSON that is no lines, tables that disagree, texts that are no texts, odd names."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.components.data.real_inputs import Case, encoded, words

Entry = dict[str, Any]
NUMBER = 10
NUMBERS = range(NUMBER)
WORDS = [words(number) for number in NUMBERS]
ROWS = [{"text": sentence} for sentence in WORDS]
OTHER_LINES = [json.dumps({"text": f"line {number}"}) for number in range(400)]
LINES = [json.dumps(record) for record in ROWS]


def lines_beside(content: str | bytes, name: str = "b.jsonl", format: str = "jsonl") -> Callable[[Path], Entry]:
    """A file of lines as they should be, and another file, which would be one bad record among many."""

    def make(folder: Path) -> Entry:
        (folder / "a.jsonl").write_text("\n".join(OTHER_LINES))
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return {"format": format, "path": str(folder)}

    return make


def json_file(content: str, name: str = "all.json", format: str = "jsonl") -> Callable[[Path], Entry]:
    def make(folder: Path) -> Entry:
        (folder / name).write_text(content)
        return {"format": format, "path": str(folder / name)}

    return make


def old_mac_lines() -> bytes:
    """As the classic Mac OS and some spreadsheets end lines, one blank among them, in a file with another kind of lines."""
    return "\r".join([*LINES[:5], "", *LINES[5:], "\n".join(LINES).replace("picture", "view") + "\r\r\n"]).encode()


def wrapped(**beside: Any) -> dict[str, Any]:
    return {"version": "1.0", **beside, "data": ROWS}


def wrapped_but_a_line_each() -> str:
    return '{"records": [' + ",\n".join(LINES) + "]}\n"


def documents_in_one_object(folder: Path) -> Entry:
    return {**json_file(json.dumps({"docs": [{}]}), format="mmc4")(folder), "images": str(folder)}


COLUMNS = {"text": dict(enumerate(WORDS)), "id": dict(enumerate(NUMBERS))}

JSON = (
    Case("lines that end in returns", lines_beside(old_mac_lines()), documents=400 + 2 * NUMBER, says="^1 blank lines"),
    Case("lines that end in returns alone", json_file("\r".join(LINES)), documents=NUMBER),
    Case("an object around the records", lines_beside(json.dumps(wrapped())), refused=r"b\.jsonl is one object.*'data'.*jq"),
    Case(
        "an indented object around the records",
        lines_beside(json.dumps(wrapped(), indent=1)),
        refused=r"b\.jsonl is one object over many lines.*'data'.*jq -c '.*data.*b\.jsonl",
    ),
    Case("a description beside the records", json_file(json.dumps(wrapped(description="mine"))), refused="the list 'data'"),
    Case("an object around a line each", json_file(wrapped_but_a_line_each()), refused=r"all\.json is one object.*'records'"),
    Case("objects over several lines", json_file("\n".join(json.dumps(r, indent=2) for r in ROWS)), refused=r"jq -c \. .*all"),
    Case("a list of texts", lines_beside(json.dumps(WORDS)), refused=r"b\.jsonl is one list"),
    Case("an object around texts", json_file(json.dumps({"id": 1, "data": WORDS})), refused="the list 'data'"),
    Case("columns, as pandas writes them", lines_beside(json.dumps(COLUMNS)), refused=r"fields text, id; .*pandas"),
    Case("columns of lists", json_file(json.dumps({"caption": WORDS, "image": WORDS})), refused="fields caption, image; "),
    Case("pages in one object", json_file(json.dumps({"data": [{}]}), format="obelics"), refused="the list 'data'"),
    Case("documents in one object", documents_in_one_object, refused="the list 'docs'"),
    Case("a single line", json_file(json.dumps({"text": "alone", "tags": [{"a": 1}], "meta": {"b": [2]}})), documents=1),
    Case(
        "a single line of pages",
        json_file(json.dumps({"texts": [WORDS[0], WORDS[1]], "images": [None, None]}), format="obelics"),
        documents=1,
    ),
    Case(
        "a first line that is cut",
        json_file("\n".join(['{"text": ', *OTHER_LINES])),
        documents=400,
        rejected=1,
        says="broken",
    ),
)


def tables(*made: dict[str, Any]) -> Callable[[Path], Entry]:
    """A folder of Parquet files with these columns."""

    def make(folder: Path) -> Entry:
        for number, columns in enumerate(made):
            pq.write_table(pa.table(columns), folder / f"part-{number}.parquet")
        return {"format": "parquet", "path": str(folder)}

    return make


def lines_of(records: Sequence[dict[str, Any]]) -> Callable[[Path], Entry]:
    return json_file("\n".join(map(json.dumps, records)), "a.jsonl")


def files_of(files: Sequence[tuple[str | bytes, bytes]]) -> Callable[[Path], Entry]:
    """A folder of pictures and captions; names may be any bytes."""

    def make(folder: Path) -> Entry:
        for name, data in files:
            (folder / os.fsdecode(name)).write_bytes(data)
        return {"format": "image_folder", "path": str(folder)}

    return make


def tar_of(files: Sequence[tuple[str | bytes, bytes]]) -> Callable[[Path], Entry]:
    """The same as a tar, in the order of the files."""

    def make(folder: Path) -> Entry:
        with tarfile.open(folder / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in files:
                member = tarfile.TarInfo(os.fsdecode(name))
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return {"format": "webdataset", "path": str(folder)}

    return make


PICTURES = [encoded(number) for number in NUMBERS]
URIS = [f"data:image/jpeg;base64,{base64.b64encode(blob).decode()}" for blob in PICTURES]
WITH, WITHOUT = {"image": PICTURES, "caption": WORDS}, {"caption": [f"text {number}" for number in NUMBERS]}
EMPTY = {"caption": WITHOUT["caption"], "image": pa.nulls(NUMBER, pa.string())}

TABLES = (
    Case(
        "a table without pictures last",
        tables(WITH, WITHOUT),
        refused=r"part-1.*no column of pictures, and .*part-0.*`images: none`",
    ),
    Case("a table without pictures first", tables(WITHOUT, WITH), refused=r"part-1\S* has pictures, and .*part-0\S* has none"),
    Case(
        "an empty table without the column",
        tables({"caption": pa.nulls(0, pa.string())}, WITH),
        *(NUMBER, NUMBER),
        says="no record",
    ),
    Case(
        "a table whose pictures are missing", tables(WITH, EMPTY), 2 * NUMBER, NUMBER, says="10 a column for pictures is empty"
    ),
    Case(
        "tables with pictures and without, as text",
        lambda folder: {**tables(WITH, WITHOUT)(folder), "images": "none"},
        documents=2 * NUMBER,
    ),
)

SVG = [f'<?xml version="1.0"?>\n<!-- {number} -->\n<svg xmlns="http://www.w3.org/2000/svg"/>' for number in NUMBERS]
JSON_LISTS = [json.dumps([sentence, f"view {number}"]) for number, sentence in enumerate(WORDS)]
PRINTED_LISTS = [repr([sentence, f"it's view {number}"]) for number, sentence in enumerate(WORDS)]
NUMPY_LISTS = [f"['{sentence}' 'view {number}']" for number, sentence in enumerate(WORDS)]
TUPLES = [repr(tuple(json.loads(one))) for one in JSON_LISTS]
PRINTED_BYTES = [repr(sentence.encode()) for sentence in WORDS]
# One begins as two bytes of a JXL do.
DIGESTS = [base64.b64encode(b"\xff\x0a" + bytes(range(number, number + 62))).decode() for number in NUMBERS]
ROWS_OF_TEXT = [{"text": f"text {number}"} for number in range(3)]
OBJECTS = [json.dumps({"en": sentence, "de": sentence}) for sentence in WORDS]
LIKE_LISTS = ["[2021]", "[a] b", "{a}", "[1, 2]", "[", "{'a'}", "[...]", "(a)", "{1}", "['a"]
PLAIN = r"(it's |a )?(picture numbered|view) \d+( with some words)?"
NUM_BOTH = 2 * NUMBER


def base64s(format: str) -> list[str]:
    return [base64.b64encode(encoded(number, format)).decode() for number in NUMBERS]


AVIFS = [{"blob": blob, "text": text} for blob, text in zip(base64s("AVIF"), WORDS, strict=True)]


def captioned_files(texts: Sequence[str]) -> list[tuple[str | bytes, bytes]]:
    pairs = zip(PICTURES, texts, strict=True)
    return [file for n, (blob, text) in enumerate(pairs) for file in ((f"{n}.jpg", blob), (f"{n}.txt", text.encode()))]


TEXTS = (
    Case("SVG as texts", tables({"text": SVG}), refused=r"SVG markup in the column text .*`images: none`"),
    Case("SVG as texts of lines", lines_of([{"text": one} for one in SVG]), refused="SVG markup in the column text"),
    Case("SVG that is wanted as text", lambda f: {**tables({"text": SVG})(f), "images": "none"}, documents=NUMBER),
    Case("SVG beside captions", tables({"drawing": SVG, "caption": WORDS}), refused="SVG markup in the column drawing"),
    Case("SVG beside captions of lines", lines_of([{"img": SVG[n], "text": WORDS[n]} for n in NUMBERS]), refused="column img"),
    Case("some SVG among pictures", tables({"image": [*URIS[1:], SVG[0]], "caption": WORDS}), 9, 9, 1, says="1 image is SVG"),
    Case("lists in JSON", tables({"image": PICTURES, "caption": JSON_LISTS}), NUM_BOTH, NUM_BOTH, texts=PLAIN),
    Case("lists as Python prints them", tables({"image": PICTURES, "caption": PRINTED_LISTS}), NUM_BOTH, NUM_BOTH, texts=PLAIN),
    Case("lists as numpy prints them", tables({"image": PICTURES, "caption": NUMPY_LISTS}), refused=r"printed list.*\(10\)"),
    Case("lists in JSON without pictures", tables({"captions": JSON_LISTS}), documents=NUM_BOTH),
    Case("lists in lines", lines_of([{"captions": json.loads(one)} for one in JSON_LISTS]), documents=NUM_BOTH),
    Case("lists in JSON in lines", lines_of([{"captions": one} for one in JSON_LISTS]), documents=NUM_BOTH),
    Case("lists in JSON in a folder", files_of(captioned_files(JSON_LISTS)), NUM_BOTH, NUM_BOTH, texts=PLAIN),
    Case("lists in JSON in a tar", tar_of(captioned_files(JSON_LISTS)), NUM_BOTH, NUM_BOTH),
    Case("objects as captions", tables({"image": PICTURES, "caption": OBJECTS}), refused=r"caption is a JSON object.*\(10\)"),
    Case("captions like lists", tables({"image": PICTURES, "caption": LIKE_LISTS}), NUMBER, NUMBER),
    Case("tuples as Python prints them", tables({"image": PICTURES, "caption": TUPLES}), NUM_BOTH, NUM_BOTH, texts=PLAIN),
    Case("bytes as Python prints them", tables({"image": PICTURES, "caption": PRINTED_BYTES}), NUMBER, NUMBER, texts=PLAIN),
    Case("BMP in base64 of no name", tables({"blob": base64s("BMP"), "caption": WORDS}), NUMBER, NUMBER),
    Case(
        "AVIF in base64 of no name",
        lines_of(AVIFS),
        NUMBER,
        NUMBER,
    ),
    Case("digests in base64", tables({"blob": DIGESTS, "text": WORDS}), documents=NUMBER),
    Case(
        "lines without pictures among others",
        lines_of([*({"image": uri, "text": text} for uri, text in zip(URIS, WORDS, strict=True)), *ROWS_OF_TEXT]),
        *(NUMBER + 3, NUMBER),
        says="3 text without a picture among records that have one",
    ),
    Case("lists as text", lines_of([{"text": one} for one in JSON_LISTS]), documents=NUMBER),
)

PARTS = [[{"type": "image_url", "image_url": {"url": uri}}] for uri in URIS]
EARLY = [{"text": f"line {number}"} for number in range(400)]

LATE = (
    Case(
        "parts from the first line on",
        lines_of([{"text": w, "content": p} for w, p in zip(WORDS, PARTS, strict=True)]),
        refused="content.image_url.url",
    ),
    Case(
        "parts that begin late",
        lines_of([*EARLY, {"text": "late", "content": PARTS[0]}]),
        refused=r"column content\.image_url\.url",
    ),
    Case(
        "parts in JSON that begin late",
        lines_of([*EARLY, {"text": "late", "content": json.dumps(PARTS[0])}]),
        refused="column content",
    ),
    Case(
        "pictures as content that begin late",
        lines_of([*EARLY, {"text": "late", "content": URIS[0]}]),
        refused="column content .*behind",
    ),
    Case(
        "pictures as texts that begin late",
        lines_of([*EARLY, {"text": URIS[0]}]),
        400,
        rejected=1,
        says="1 text is an encoded picture",
    ),
    Case(
        "two pictures a record that begin late",
        lines_of([*({"img": u, "text": "a"} for u in URIS * 5), {"img": URIS[0], "text": "a", "content": URIS[1]}]),
        refused="column content",
    ),
    Case(
        "parts in a table",
        tables({"text": [record["text"] for record in EARLY], "content": [None] * 399 + PARTS[:1]}),
        refused=r"column content\.image_url\.url",
    ),
    Case(
        "texts beside texts", lines_of([{"text": w, "content": f"see {w}", "caption": "[x"} for w in WORDS]), documents=NUMBER
    ),
)

CAFE_NFC, CAFE_NFD = (unicodedata.normalize(form, "caf\u00e9 \u1ec7") for form in ("NFC", "NFD"))


def other_spellings(bytes_of_name: Callable[[int], tuple[str | bytes, str | bytes]]) -> list[tuple[str | bytes, bytes]]:
    named = ((bytes_of_name(number), number) for number in NUMBERS)
    return [file for (jpg, txt), n in named for file in ((jpg, PICTURES[n]), (txt, WORDS[n].encode()))]


def in_languages() -> list[tuple[str | bytes, bytes]]:
    some = [
        file
        for n in range(4)
        for file in ((f"{n}.jpg", PICTURES[n]), (f"{n}.de.txt", b"ein Bild"), (f"{n}.en.txt", b"a picture"))
    ]
    return [*some, ("with.jpg", PICTURES[4]), ("with.txt", b"x"), ("with.de.txt", b"ein Bild")]


def names_in_nfc(folder: Path) -> Entry:
    for number in NUMBERS:
        (folder / f"{CAFE_NFD} {number}.jpg").write_bytes(PICTURES[number])
    return lines_of([{"image": f"{CAFE_NFC} {number}.jpg", "text": WORDS[number]} for number in NUMBERS])(folder)


LATIN_1 = other_spellings(lambda n: (f"caf\u00e9 {n}.jpg".encode("latin-1"), f"caf\u00e9 {n}.txt".encode("latin-1")))
NFC_AND_NFD = other_spellings(lambda n: (f"{CAFE_NFD} {n}.jpg", f"{CAFE_NFC} {n}.txt"))
NAMES = (
    Case(
        "captions in languages", files_of(in_languages()), rejected=4, refused=r"4 of 5 .*several captions .* keep one.*\(4\)"
    ),
    Case("captions in languages in a tar", tar_of(in_languages()), rejected=4, refused=r"4 of 5 .*several captions .*\(4\)"),
    Case("names in Latin-1", files_of(LATIN_1), NUMBER, NUMBER),
    Case("names in Latin-1 in a tar", tar_of(LATIN_1), NUMBER, NUMBER),
    Case("accents in two spellings", files_of(NFC_AND_NFD), NUMBER, NUMBER),
    Case("accents in two spellings in a tar", tar_of(NFC_AND_NFD), NUMBER, NUMBER),
    Case("accents in two spellings in lines", names_in_nfc, NUMBER, NUMBER),
)

SHAPES_CASES = (*JSON, *TABLES, *TEXTS, *LATE, *NAMES)
