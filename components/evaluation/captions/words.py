"""The words of a caption, which every score of captions counts: one simple rule for all languages.

Lower case; punctuation ends a word and is none; what is written without spaces (Chinese, Japanese) has a word a character.
COCO's own evaluation runs the Penn Treebank's tokenizer in Java and drops punctuation too; the two differ in contractions and
hyphens ("man's" is "man 's" there and "man s" here).
"""

from __future__ import annotations

import re
import unicodedata

# Hiragana and katakana, and the unified ideographs.
SPACELESS = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")

Words = tuple[str, ...]


def words_of_caption(text: str) -> Words:
    """Its words in order; of a text that is punctuation alone, its runs of that."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    spaced = "".join(" " if unicodedata.category(sign).startswith("P") else sign for sign in lowered)
    return tuple(SPACELESS.sub(r" \1 ", spaced).split() or lowered.split())
