"""Messages, help texts and the first screen of each document read as plain English: none has a phrase of the list below, each of
which made readers stop. A text that needs one all the same is named in ALLOWED."""

import re

import pytest

# Phrase -> what to write instead.
FOREIGN = {
    r"(?<![Tt]here )\b(is|are) no (?!longer|more\b)": "is not a ..., or: expected ..., found ...",
    r"\b(told|tells?)\b": "reported, shown",
    r"\bso (many|long|much)\b(?! as)": "the number, up to N, for this duration",
    r"\bmakes? no sense\b": "invalid ...: expected ...",
    r"\byou wish\b": "the change, the request",
    r"\bwho (has|have|is|are)\b": "a noun: a worker that ...",
    r"\b(is|are|was|were) (not |already )?there\b": "exists, does not exist, is missing",
    r"\bas (it is|they are)\b": "unchanged",
    r"\bbe it\b": "whether ... or ...",
    r"\bbesides?\b": "in addition to, apart from",
    r"\bby (itself|themselves|himself)\b": "automatically, alone",
    r"\banew\b": "again",
    r"\bof (yours|theirs|ours)\b": "your ..., their ...",
    r"\b(a|one|each|every) (plain )?text\b(?! (file|editor))": "text, a string",
    r"\b(go|goes|went|going) on\b": "continue",
    r"\bputs? (it|them) back\b": "restore",
    r"\bwhoever\b": "any program that ...",
    r"\b(has|have|of) no (meaning|use)\b": "does not apply",
    r"\bno \w+( \w+)? (is|are) (called|there)\b": "X does not exist",
    r"\b(hold|holds|held) (an?|the) (run|model|data)\b": "contains",
    r"\bunder way\b": "in progress",
    r"\bnames of classes\b": "class names",
    r"\bof (32|64) bits\b": "32-bit",
    r"\bthose (who|which)\b": "repeat the noun",
    r"\bjust then\b": "at that moment",
    r"(^|  )\.\.\. [a-z]": "a whole phrase: the help of an option stands alone",
}

# Texts that use a phrase in its plain meaning.
ALLOWED = {
    r"\b(told|tells?)\b": [
        "cannot tell the format of %s from its name: expected .csv, .tsv (or with .gz), .txt, .data, .npz or .pack",
    ],
}
ALLOWED_PAIRS = {(phrase, text) for phrase, texts in ALLOWED.items() for text in texts}


def literals(text):
    """(line, literal) of each string literal of C source; neighbours that the compiler joins are one."""
    token = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|\s+|\\\n|.', re.S)
    line, open_literal, found = 1, None, []
    for piece in (match.group() for match in token.finditer(text)):
        if piece.startswith('"'):
            if open_literal is None:
                open_literal = (line, [])
                found.append(open_literal)
            open_literal[1].append(piece[1:-1])
        elif not piece.isspace() and not piece.startswith(("/*", "//", "\\")):
            open_literal = None
        line += piece.count("\n")
    return [(at, "".join(pieces).replace(r"\"", '"').replace(r"\n", " ")) for at, pieces in found]


def sentences_of_programs(root):
    """Whatever the programs may print: each literal with a blank between words."""
    for top in ("client", "worker", "coordinator", "common"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".c", ".h", ".inc"):
                for line, text in literals(path.read_text()):
                    if re.search(r"[A-Za-z%] [a-z%]", text):
                        yield f"{path.relative_to(root)}:{line}", text


def first_screens(root):
    """The lines of prose and tables on the first screen of each document."""
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        inside = False
        for number, line in enumerate(path.read_text().splitlines()[:25], 1):
            inside ^= line.startswith("```")
            if not inside:
                yield f"{path.relative_to(root)}:{number}", re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def complaints(places):
    found = [(place, text, instead, re.search(phrase, text)) for place, text in places for phrase, instead in FOREIGN.items()
             if (phrase, text) not in ALLOWED_PAIRS]
    return [f'{place}: "{match.group()}" (write: {instead}) in: {text[:200]}' for place, text, instead, match in found if match]


def test_messages_and_help_are_plain_english(root):
    places = list(sentences_of_programs(root))
    assert len(places) > 1200
    assert complaints(places) == []


def test_first_screens_are_plain_english(root):
    places = list(first_screens(root))
    assert len(places) > 400
    assert complaints(places) == []


def test_each_allowed_text_still_exists(root):
    texts = {text for _, text in [*sentences_of_programs(root), *first_screens(root)]}
    assert [text for _, text in ALLOWED_PAIRS if text not in texts] == []


@pytest.mark.parametrize("source", [
    'fail("%s is no data set that can be told by its name");', 'fail("the evaluation makes "\n     "no sense");', 'fail("more than %u bytes "  /* why */ "are no job file");',
    'help = "who has waited";', '"what you wish of job %llu could not be stored"', '"each of so many workers"', '#define X "a line" \\\n    "that is not there"'])
def test_odd_phrases_are_found(source):
    """Sentences that readers of earlier versions had to read twice."""
    assert complaints([("x.c", text) for _, text in literals(source)])
