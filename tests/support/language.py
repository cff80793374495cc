"""Find words that are not plain English in the repository: ``python -m tests.support.language [FILE ...]``."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final


INSTEAD: Final = {
    r"anew|begin(s|ning)? again": "again, start over",
    r"a local Copy\.ai": "emulator",
    r"(?<!leave )(?<!leaves )alone": "only, by itself",
    r"answer(s|ed|ing)?": "response, respond, reply",
    r"arrows|rooms?|houses?|floors?": "import rules, module, package, baseline",
    r"(as|what) (it|((its|the|a) )?[^ \n]+) says": "according to",
    r"asked[ -]for": "requested",
    r"at the (least|most)": "at least, at most",
    r"befall(s|en)?|befell": "happen",
    r"begun": "started",
    r"bears?|bore": "tolerate",
    r"believ(e|es|ed|ing)": "trust, verify",
    r"blot(s|ted)?[ _]out": "redact",
    r"broken[ _]off|break(s|ing)?[ _]off|broke off": "interrupted",
    r"by any death": "crash",
    r"can't be one": "invalid",
    r"dress(es|ed)?|undressed": "apply quirks",
    r"drift(s|ed|ing)?": "changes",
    r"for ever": "forever, without a limit",
    r"from (\d+|when|where|which|here|there) on": "starting with, >=, since",
    r"gates?|pass_through|sinks?|trails?": "rate limit, acquire, writer, resume",
    r"gist": "preview",
    r"give(s)? (it|them|that) up": "stop, cancel",
    r"(goes|go|went) on": "continue",
    r"hand(s|ed|ing)? (over|out)": "pass",
    r"hear(s|ing|d)?": "receive",
    r"in doubt": "unconfirmed",
    r"in vain": "without success",
    r"invented|made[ -]up|makes? up": "sample, example",
    r"(?<!there )(is|are|was|were|be) no(?= (?!longer|more|such|doubt)[a-z])": "is not a, are not",
    r"is there already": "already exists",
    r"(is|are|was) over": "is finished",
    r"is whole": "is complete",
    r"known? (of|nothing|no)|knows (of|nothing|no)": "known about, does not support",
    r"let(s|ting)?[ _](go|in)": "release, accept",
    r"lives? through": "tolerate",
    r"met twice": "seen",
    r"moment(s)?": "time, datetime",
    r"news|pieces? of news": "events, changes",
    r"whoever|whomever": "users, callers",
    r"of (its|their) own": "its own, separate",
    r"of one's own|ones own": "your own, custom",
    r"only ever": "only",
    r"postman": "sender",
    r"putt?(s|ing)? out": "print, write",
    r"roads?": "approach",
    r"sent along": "included",
    r"side by side": "in parallel, concurrently",
    r"so (many|much)": "N, as many",
    r"some (seconds|minutes|hours|days)": "a few",
    r"stands?|stood|standing": "is, are",
    r"steer(s|ed|ing)?": "control",
    r"stretch(es)?": "page range",
    r"tells|told": "report, show, say",
    r"unasked": "without asking",
    r"under way": "in progress",
    r"walk(s|ed|ing)?": "iteration, listing",
    r"weakness(es)?": "vulnerability",
    r"whatever": "regardless of, any",
    r"who (has|have|is|are|wants|reads|needs) [^?\n]*\b(gets|must|may|can)": "if you, callers that",
    r"whole numbers?": "integer",
}
"""Patterns of words to avoid, in any case, and what to write instead."""

INSTEAD_ON_PAGES: Final = {
    r"(as|which) (it|they) (is|are)(?= and|[.,;:])": "unchanged",
    r"(costs?|cost) no (page|run|second run)": "no run is lost",
    r"(?<!connection )refus(al|e|es|ed|ing)": "reject, raise",
    r"for good": "permanently",
    r"gives? (it|them)": "return, send",
    r"however (it|the [a-z]+|they) (ends?|ended|stops?)": "after an error, Ctrl-C or a crash",
    r"in the words of": "with the names of",
    r"nothing (that|which)": "no ...",
    r"of your own": "your own",
    r"the like": "others",
    r"(is|are|was|were) (not|never) noticed": "is not detected",
    r"what (is|was|are|were) (not )?(in|known|left|new|on|promised|read|stored|there|written)": "a noun",
    r"whether or not": "whether, even if",
}
"""More patterns, for Markdown and reST files only."""

_CHECKED: Final = {".cfg", ".md", ".py", ".rst", ".sh", ".toml", ".yaml", ".yml", ".html"}
_EXEMPT: Final = {"tests/support/language.py"}
_ALLOWED: Final = re.compile(r"\b(ast|os|tree)\.walk\(|::test_\w+")
"""Names of other projects, and of tests on a page, that contain such a word."""
# Parts of identifiers count as words: `told_url` contains "told".
_AVOIDED, _AVOIDED_ON_PAGES = (
    {re.compile(f"(?<![a-z])(?:{pattern})(?![a-z])", re.IGNORECASE): instead for pattern, instead in patterns.items()}
    for patterns in (INSTEAD, INSTEAD_ON_PAGES)
)


def findings(path: str, text: str) -> Iterator[str]:
    """Yield a line for each word to avoid, in the form that linters use."""
    avoided = _AVOIDED | (_AVOIDED_ON_PAGES if path.endswith((".md", ".rst")) else {})
    for pattern, instead in avoided.items():
        for found in pattern.finditer(_ALLOWED.sub("", text)):
            yield f"{path}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}: write {instead}"


def main(arguments: Sequence[str]) -> int:
    """Check the named files, or all that git tracks; return the exit code."""
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
    paths = arguments or [path for path in tracked.stdout.splitlines() if Path(path).suffix in _CHECKED]
    found = [line for path in paths if path not in _EXEMPT for line in findings(path, Path(path).read_text("utf-8"))]
    print("\n".join(found) or "no words to avoid")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
