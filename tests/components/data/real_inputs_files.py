"""Real inputs of tars, folders of pictures and JSON lines: what people have, and what must come of it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.components.data.real_inputs import Case, encoded, words

Entry = dict[str, Any]
Members = list[tuple[str, bytes]]

# AppleDouble: what macOS writes beside a file on a drive of another system.
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(100)
NUMBER = 12


def pair(key: str, number: int, ending: str = "jpg") -> Members:
    return [(f"{key}.{ending}", encoded(number)), (f"{key}.txt", words(number).encode())]


def plain_pairs(numbers: Sequence[int] = range(NUMBER)) -> Members:
    return [member for number in numbers for member in pair(f"{number:05d}", number)]


def lines(numbers: Sequence[int] = range(NUMBER)) -> str:
    return "".join(json.dumps({"text": words(number)}) + "\n" for number in numbers)


def write_tar(path: Path, members: Members, mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_files(folder: Path, files: Members) -> None:
    for name, data in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def tar_of(make: Callable[[], Members], name: str = "0.tar") -> Callable[[Path], Entry]:
    """A folder with one tar."""

    def write(folder: Path) -> Entry:
        write_tar(folder / name, make())
        return {"format": "webdataset", "path": str(folder)}

    return write


def folder_of(make: Callable[[], Members]) -> Callable[[Path], Entry]:
    """A folder of pictures and captions."""

    def write(folder: Path) -> Entry:
        write_files(folder, make())
        return {"format": "image_folder", "path": str(folder)}

    return write


def lines_of(make: Callable[[], bytes], name: str = "a.jsonl") -> Callable[[Path], Entry]:
    """A folder with one file of lines."""

    def write(folder: Path) -> Entry:
        (folder / name).write_bytes(make())
        return {"format": "jsonl", "path": str(folder)}

    return write


# Tars


def apart() -> Members:
    """tar cf x.tar *.jpg *.txt"""
    both = plain_pairs()
    return [*both[::2], *both[1::2]]


def apart_and_compressed(folder: Path) -> Entry:
    write_tar(folder / "0.tar", apart(), "w:gz")
    return {"format": "webdataset", "path": str(folder)}


def half_with_dots() -> Members:
    return [member for number in range(NUMBER) for member in pair(f"{'plain' if number % 2 else 'shoot.'}{number:03d}", number)]


def all_with_dots() -> Members:
    return [member for number in range(100) for member in pair(f"v1.{number:03d}", number)]


def masks_beside() -> Members:
    """As webdataset means it: the key ends at the first dot, and a sample has parts of many kinds."""
    members: Members = []
    for number in range(NUMBER):
        key = f"{number:03d}"
        members += [(f"{key}.jpg", encoded(number)), (f"{key}.seg.png", encoded(number + 100, "PNG")), (f"{key}.cls", b"3")]
        members.append((f"{key}.caption.txt" if number % 2 else f"{key}.txt", words(number).encode()))
    return members


def listed_formats() -> Members:
    kinds = [("jpg", "JPEG"), ("gif", "GIF"), ("bmp", "BMP"), ("avif", "AVIF"), ("JFIF", "JPEG"), ("webp", "WEBP")]
    members: Members = []
    for number in range(NUMBER):
        ending, format = kinds[number % len(kinds)]
        members += [(f"{number:05d}.{ending}", encoded(number, format)), (f"{number:05d}.txt", words(number).encode())]
    return members


def unlisted_format() -> Members:
    members = plain_pairs(range(1, NUMBER))
    return [*members, ("scan.tif", encoded(0, "TIFF")), ("scan.txt", b"a scan")]


def hard_links(folder: Path) -> Entry:
    """GNU tar writes a link for a file that is linked on the disk."""
    source = folder / "source"
    write_files(source, plain_pairs())
    for number in range(1, NUMBER, 2):
        (source / f"{number:05d}.txt").unlink()
        os.link(source / f"{number - 1:05d}.txt", source / f"{number:05d}.txt")
    subprocess.run(["tar", "--sort=name", "-C", str(source), "-cf", str(folder / "0.tar"), "."], check=True)
    return {"format": "webdataset", "path": f"{folder}/0.tar"}


def same_keys(folder: Path) -> Entry:
    for shard in range(3):
        write_tar(folder / f"{shard:05d}.tar", [m for n in range(4) for m in pair(f"{n:05d}", 4 * shard + n)])
    return {"format": "webdataset", "path": str(folder)}


def braces(folder: Path) -> Entry:
    for shard in range(4):
        write_tar(folder / f"{shard:05d}.tar", plain_pairs(range(3 * shard, 3 * shard + 3)))
    return {"format": "webdataset", "path": f"{folder}/{{00000..00003}}.tar"}


def braces_with_a_gap(folder: Path) -> Entry:
    braces(folder)
    (folder / "00002.tar").unlink()
    return {"format": "webdataset", "path": f"{folder}/{{00000..00003}}.tar"}


def brackets(folder: Path) -> Entry:
    write_tar(folder / "set [2021] {a,b}" / "0.tar", plain_pairs())
    return {"format": "webdataset", "path": f"{folder}/set [2021] {{a,b}}/*.tar"}


def compressed_tars(folder: Path) -> Entry:
    """By content: one has no ending of its compression, one has that of another."""
    for number, (name, mode) in enumerate((("0.tar", "w:gz"), ("1.tar.gz", "w:bz2"), ("2.tar.xz", "w:xz"), ("3.tar", "w"))):
        write_tar(folder / name, plain_pairs(range(3 * number, 3 * number + 3)), mode)
    write_tar(folder / "4.tar", plain_pairs(range(12, 15)))
    data = (folder / "4.tar").read_bytes()
    (folder / "4.tar").unlink()
    (folder / "4.tar.zst").write_bytes(pa.Codec("zstd").compress(data, asbytes=True))
    return {"format": "webdataset", "path": str(folder)}


def mac_tar(folder: Path) -> Entry:
    inside = [member for name, data in plain_pairs() for member in ((f"._{name}", APPLE_DOUBLE), (name, data))]
    write_tar(folder / "0.tar", [(".DS_Store", b"x"), *inside, ("__MACOSX/._00000.jpg", APPLE_DOUBLE)])
    (folder / "._0.tar").write_bytes(APPLE_DOUBLE)
    return {"format": "webdataset", "path": str(folder)}


# Folders of pictures


def linked_folders(folder: Path) -> Entry:
    """Two of four are links, one of them leads to itself in the end, and one folder is linked twice."""
    for number in range(4):
        place = folder / ("inside" if number < 2 else "elsewhere") / f"class{number}"
        write_files(place, plain_pairs(range(3 * number, 3 * number + 3)))
        if number >= 2:
            (folder / f"inside/class{number}").symlink_to(place)
    (folder / "inside/again").symlink_to(folder / "elsewhere/class3")
    (folder / "elsewhere/class2/loop").symlink_to(folder / "inside")
    (folder / "inside/class0/gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "inside/class1/itself").symlink_to(folder / "inside/class1/itself")
    return {"format": "image_folder", "path": f"{folder}/inside"}


def left_by_systems() -> Members:
    others = ["._00001.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/00001.jpg", ".ipynb_checkpoints/00001.txt"]
    others += ["00001.txt~", ".00001.txt.swp", "#00001.txt#", ".syncthing.00001.jpg.tmp", "00001.jpg.crdownload"]
    others += ["00001 (conflicted copy 2024-05-01).txt", "00001.sync-conflict-20240501-101010-ABCDEFG.jpg"]
    others += ["00001.jpg.part", "00001.tmp", ".git/objects/00001.jpg", "@eaDir/00001.jpg", "~$00001.txt"]
    return [*plain_pairs(), *((name, APPLE_DOUBLE) for name in others)]


def byte_order_marks() -> Members:
    members: Members = []
    for number in range(NUMBER):
        text = f"{words(number)}\r\n"
        caption = text.encode("utf-16") if number % 3 == 2 else b"\xef\xbb\xbf" + text.encode()
        members += [(f"{number:03d}.jpg", encoded(number)), (f"{number:03d}.txt", caption)]
    return members


def latin_1() -> Members:
    texts = [f"un caf\u00e9 num\u00e9ro {number}".encode("utf-8" if number % 4 else "latin-1") for number in range(NUMBER)]
    return [member for n, text in enumerate(texts) for member in ((f"{n:03d}.jpg", encoded(n)), (f"{n:03d}.txt", text))]


def halves_missing() -> Members:
    return [*plain_pairs(), ("alone.jpg", encoded(100)), ("words only.txt", b"x"), ("notes.md", b"x"), ("list.csv", b"x")]


def folders_by_braces(folder: Path) -> Entry:
    for number, part in enumerate(("train", "val", "other")):
        write_files(folder / part / "photos", [m for n in range(4) for m in pair(f"{n}", 4 * number + n)])
    return {"format": "image_folder", "path": f"{folder}/{{train,val}}/photos"}


# Lines


def linked_shards(folder: Path) -> Entry:
    """Shards behind links, a link beside the file that it leads to, and one that leads nowhere."""
    for number in range(3):
        place = folder / ("set" if number == 0 else f"other{number}")
        place.mkdir()
        (place / f"{number}.jsonl").write_text(lines(range(4 * number, 4 * number + 4)))
    (folder / "set/1.jsonl").symlink_to(folder / "other1/1.jsonl")
    (folder / "set/more").symlink_to(folder / "other2")
    (folder / "set/latest.jsonl").symlink_to(folder / "set/0.jsonl")
    (folder / "set/gone.jsonl").symlink_to(folder / "nowhere")
    return {"format": "jsonl", "path": f"{folder}/set"}


def mac_lines(folder: Path) -> Entry:
    (folder / "a.jsonl").write_text(lines())
    for name in ("._a.jsonl", "a (Ann's conflicted copy 2024-05-01).jsonl", "~a.jsonl"):
        (folder / name).write_bytes(APPLE_DOUBLE if name.startswith(".") else lines().encode())
    return {"format": "jsonl", "path": f"{folder}/*"}


def lines_and_others(folder: Path) -> Entry:
    (folder / "a.jsonl").write_text(f"\ufeff{lines()}\n \n")
    (folder / "b.NDJSON").write_text('{"text": "one more"}')
    (folder / "empty.jsonl").touch()
    (folder / "README").touch()
    return {"format": "jsonl", "path": str(folder)}


def array_of_objects() -> bytes:
    return json.dumps([*({"text": words(number)} for number in range(NUMBER)), "no object"], indent=1).encode()


FILES_CASES = (
    Case("pictures and captions apart in a tar", tar_of(apart), documents=NUMBER, images=NUMBER),
    Case("pictures and captions apart in a compressed tar", apart_and_compressed, rejected=NUMBER, refused="tar --sort=name"),
    Case("dots in half of a tar's keys", tar_of(half_with_dots), documents=NUMBER, images=NUMBER),
    Case("one name before the dot of all keys", tar_of(all_with_dots), documents=100, images=100),
    Case(
        "masks and labels beside pictures",
        tar_of(masks_beside),
        documents=NUMBER,
        images=NUMBER,
        says=rf"{NUMBER} files with another ending \(\.cls\).*; {NUMBER} pictures or captions beside those of their record",
    ),
    Case("every listed format in a tar", tar_of(listed_formats), documents=NUMBER, images=NUMBER),
    Case("every listed format in a folder", folder_of(listed_formats), documents=NUMBER, images=NUMBER),
    Case(
        "a format that is not listed",
        folder_of(unlisted_format),
        documents=NUMBER - 1,
        images=NUMBER - 1,
        rejected=1,
        says="image is not PNG, JPEG",
    ),
    Case("hard links in a tar", hard_links, documents=NUMBER, images=NUMBER),
    Case("shards that number their records alike", same_keys, documents=4, images=4, rejected=8, refused="keys must be unique"),
    Case("a brace pattern", braces, documents=NUMBER, images=NUMBER),
    Case("a brace pattern with a shard missing", braces_with_a_gap, refused=r"has no .* at .*00002\.tar, which"),
    Case("brackets and braces in a folder's name", brackets, documents=NUMBER, images=NUMBER),
    Case("compressed tars", compressed_tars, documents=15, images=15),
    Case(
        "a tar from a Mac",
        mac_tar,
        documents=NUMBER,
        images=NUMBER,
        says=rf"{2 * NUMBER + 3} hidden, temporary or system files",
    ),
    Case(
        "links to folders",
        linked_folders,
        documents=NUMBER,
        images=NUMBER,
        says=r"2 links to nothing that can be read .*; 2 links to what is read already",
    ),
    Case(
        "what systems and editors leave",
        folder_of(left_by_systems),
        documents=NUMBER,
        images=NUMBER,
        says=r"^18 hidden, temporary or system files \([^;]*$",
    ),
    Case("byte order marks and ends of lines of Windows", folder_of(byte_order_marks), documents=NUMBER, images=NUMBER),
    Case("captions in Latin-1", folder_of(latin_1), documents=9, images=9, rejected=3, says="3 invalid UTF-8"),
    Case("most captions in Latin-1", folder_of(lambda: latin_1()[:2]), rejected=1, refused="iconv -f LATIN1"),
    Case(
        "pictures without captions and the other way round",
        folder_of(halves_missing),
        documents=NUMBER,
        images=NUMBER,
        rejected=2,
        says=r"\(\.csv\).*\(\.md\).*1 missing caption; 1 missing image",
    ),
    Case("folders by braces", folders_by_braces, documents=8, images=8),
    Case(
        "linked shards",
        linked_shards,
        documents=NUMBER,
        says=r"1 links to nothing that can be read .*; 1 links to what is read already",
    ),
    Case("lines from a Mac", mac_lines, documents=NUMBER, says=r"^\d hidden, temporary or system files"),
    Case(
        "lines beside other files",
        lines_and_others,
        documents=NUMBER + 1,
        says=r"2 blank lines .*; 1 files that hold no record .*; 1 files without an ending",
    ),
    Case("UTF-16", lines_of(lambda: lines().encode("utf-16")), documents=NUMBER),
    Case("UTF-16 without a mark", lines_of(lambda: lines().encode("utf-16-be")), documents=NUMBER),
    Case("an array of objects", lines_of(array_of_objects), documents=NUMBER, rejected=1, says="entry is no JSON object"),
    Case("gzip under a plain name", lines_of(lambda: gzip.compress(lines().encode())), documents=NUMBER),
    Case("bzip2", lines_of(lambda: bz2.compress(lines().encode()), "a.jsonl.bz2"), documents=NUMBER),
    Case("xz", lines_of(lambda: lzma.compress(lines().encode()), "a.jsonl.xz"), documents=NUMBER),
    Case("zstd", lines_of(lambda: pa.Codec("zstd").compress(lines().encode(), asbytes=True), "a.jsonl.zst"), documents=NUMBER),
    Case(
        "zstd that is cut short",
        lines_of(lambda: pa.Codec("zstd").compress(lines().encode(), asbytes=True)[:-9], "a.jsonl.zst"),
        refused=r"a\.jsonl\.zst cannot be read to its end",
    ),
    Case(
        "lines in a file with a Latin-1 name",
        lines_of(lambda: lines().encode(), os.fsdecode(b"caf\xe9.jsonl")),
        documents=NUMBER,
    ),
    Case("a tar in a tar", tar_of(lambda: [("in.tar", b"")]), refused=r"empty, beside .*another ending \(.tar\)"),
    Case("only what a Mac leaves", lines_of(lambda: APPLE_DOUBLE, "._a.jsonl"), refused=r"passed over: 1 hidden.*\._a\.jsonl"),
)
