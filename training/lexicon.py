"""Builds ``sg_guardrails/core/lexicon.txt.gz`` from WordNet 3.0: everyday words, their synonyms, kinds and opposites.

Run: ``apt-get install wordnet-base; pip install wordfreq; python -m training.lexicon``. wordfreq only picks which words
are everyday ones; none of its data is written.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).parents[1] / "sg_guardrails" / "core" / "lexicon.txt.gz"
EVERYDAY = 25_000
"""Words are taken from this many of the most frequent ones, so that rare senses and names stay out."""
KINDS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
SENSES = {"n": 3, "v": 4, "a": 3, "r": 2}
"""Most frequent senses of a word that count for synonymy."""
KIND_SENSES = {"n": 2, "v": 2}
"""Most frequent senses that count for "is a kind of"."""
TOO_GENERAL = frozenset(
    """entity thing object whole unit artifact artefact matter substance abstraction group attribute event act action
    activity state relation quality change make move do be have get go instrumentality psychological feature
    measure part cause agent causal communication being organism cognition knowledge content happening occurrence
    interact travel locomote location region area living equipment device instrument structure construction
    covering cover container product commodity good goods physical phenomenon process body form shape property
    material portion piece line point cut hit put take set give touch""".split()  # noqa: SIM905 - a list of eighty strings is not easier to read
)
NOTICE = """\
Derived from WordNet 3.0: selected words only, relations rewritten. word|=synonyms|^kinds|!opposites|~kin|+base forms
WordNet Release 3.0. This software and database is being provided to you, the LICENSEE, by Princeton University under
the following license. By obtaining, using and/or copying this software and database, you agree that you have read,
understood, and will comply with these terms and conditions: Permission to use, copy, modify and distribute this
software and database and its documentation for any purpose and without fee or royalty is hereby granted, provided that
you agree to comply with the following copyright notice and statements, including the disclaimer, and that the same
appear on ALL copies of the software, database and documentation, including modifications that you make for internal
use or for distribution.
WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES, EXPRESS
OR IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES OF
MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR
DOCUMENTATION WILL NOT INFRINGE ANY THIRD PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS.
The name of Princeton University or Princeton may not be used in advertising or publicity pertaining to distribution of
the software and/or database. Title to copyright in this software, database and any associated documentation shall at
all times remain with Princeton University and LICENSEE agrees to preserve same.
"""
Synset = tuple[str, str]


class WordNet:
    """The parts of the database files that are needed, read whole."""

    def __init__(self, folder: Path) -> None:
        self.senses: dict[tuple[str, str], list[Synset]] = {}
        self.words: dict[Synset, list[str]] = {}
        self.pointers: dict[Synset, list[tuple[str, Synset, int, int]]] = {}
        self.bases: dict[str, set[str]] = defaultdict(set)
        for name, kind in KINDS.items():
            for line in _lines(folder / f"index.{name}"):
                fields = line.split()
                self.senses[fields[0], kind] = [(kind, offset) for offset in fields[-int(fields[2]) :]]
            for line in _lines(folder / f"data.{name}"):
                self._synset(kind, line.split(" | ")[0].split())
            for line in (folder / f"{name}.exc").read_text().splitlines():
                form, *bases = line.split()
                self.bases[form].update(bases)

    def _synset(self, kind: str, fields: list[str]) -> None:
        count = int(fields[3], 16)
        end = 4 + 2 * count
        synset = (kind, fields[0])
        self.words[synset] = [re.sub(r"\(.*\)", "", word).lower() for word in fields[4:end:2]]
        self.pointers[synset] = [
            (symbol, ("a" if part == "s" else part, offset), int(ends[:2], 16), int(ends[2:], 16))
            for symbol, offset, part, ends in zip(
                *[iter(fields[end + 1 : end + 1 + 4 * int(fields[end])])] * 4, strict=True
            )
        ]

    def close(self, word: str, kind: str, synset: Synset, most: int) -> bool:
        """Whether the synset is among the word's `most` most frequent senses of that kind."""
        return synset in self.senses.get((word, kind), [])[:most]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("  ")]


def relations(net: WordNet, word: str, known: set[str]) -> dict[str, set[str]]:
    """Synonyms ``=``, kinds ``^``, opposites ``!`` and kin ``~`` (derived or near words) of one word."""
    found: dict[str, set[str]] = {mark: set() for mark in "=^!~"}
    for kind, most in SENSES.items():
        for rank, synset in enumerate(net.senses.get((word, kind), [])[:most]):
            found["="] |= {other for other in net.words[synset] if net.close(other, kind, synset, most)}
            position = net.words[synset].index(word) + 1
            for symbol, target, source, end in net.pointers[synset]:
                lexical = source in {0, position}
                names = set(net.words[target] if not end else [net.words[target][end - 1]])
                if symbol == "!" and lexical:
                    found["!"] |= names
                elif symbol in {"+", "\\"} and lexical:
                    found["~"] |= names
                elif symbol in {"&", "^", "$"} and rank < 2:
                    found["~"] |= {name for name in names if net.close(name, target[0], target, 2)}
            if rank < KIND_SENSES.get(kind, 0):
                found["^"] |= _kinds(net, synset, kind)
    found["^"] -= found["="]
    found["~"] -= found["="] | found["^"] | found["!"]
    return {mark: (names & known) - {word} for mark, names in found.items()}


def _kinds(net: WordNet, synset: Synset, kind: str) -> set[str]:
    """Words for the synset's ancestors: all of a noun's, a verb's parents only (verb chains soon say nothing)."""
    names: set[str] = set()
    frontier = [synset]
    for _ in range(12 if kind == "n" else 1):
        frontier = [target for node in frontier for symbol, target, _, _ in net.pointers[node] if symbol in {"@", "@i"}]
        for node in frontier:
            names |= {word for word in net.words[node] if net.close(word, kind, node, 2)}
    return names - TOO_GENERAL


def main() -> None:
    """Write the lexicon."""
    from wordfreq import top_n_list  # type: ignore[import-not-found]  # noqa: PLC0415 - only this builder needs it

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    net = WordNet(parser.parse_args().wordnet)
    frequent = [word for word in top_n_list("en", EVERYDAY) if re.fullmatch(r"[a-z]{2,}", word)]
    lemmas = {lemma for lemma, _ in net.senses}
    known = {word for word in frequent if word in lemmas}
    for word in frequent:  # a frequent plural or tense makes its base form an everyday word too
        known |= {base for base in net.bases.get(word, set()) | _regular(word) if base in lemmas and base.isalpha()}
    lines = []
    for word in sorted(known):
        parts = [f"{mark}{' '.join(sorted(names))}" for mark, names in relations(net, word, known).items() if names]
        lines.append("|".join([word, *parts]))
    for form in sorted(set(frequent) & set(net.bases)):
        bases = sorted(net.bases[form] & known - {form})
        if bases:
            lines.append(f"{form}|+{' '.join(bases)}")
    notice = "".join(f"# {line}\n" for line in NOTICE.splitlines())
    TARGET.write_bytes(gzip.compress((notice + "\n".join(lines) + "\n").encode(), 9, mtime=0))
    print(f"{TARGET}: {len(lines):,} lines, {TARGET.stat().st_size:,} bytes")


def _regular(word: str) -> set[str]:
    endings = (("s", ""), ("es", ""), ("ies", "y"), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"))
    return {word[: -len(end)] + base for end, base in endings if word.endswith(end) and len(word) > len(end) + 2}


if __name__ == "__main__":
    main()
