"""C++ as a digest counts it: by its tokens, not by comments and layout."""

import re

COMMENT_OR_TEXT = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
OPERATOR = r"<<=|>>=|->\*?|\.\.\.|::|\+\+|--|<<|>>|[<>=!+*/%&|^-]=|&&|\|\||##?"
TOKEN = re.compile(rf"{COMMENT_OR_TEXT}|\w[\w.]*|{OPERATOR}|\\?\n|[^\w\s]", re.DOTALL)


def tokens(text):
    """The tokens of a C++ file in one line, a directive of the preprocessor on a line of its own."""
    found, in_directive, starts = [], False, True
    for token in TOKEN.findall(text):
        if token.startswith(("//", "/*")) or token == "\\\n":
            continue
        if token == "\n":
            found += ["\n"] if in_directive else []
            in_directive, starts = False, True
            continue
        if starts and token == "#":
            in_directive = True
            found.append("\n")
        starts = False
        found.append(token)
    return " ".join(found)
