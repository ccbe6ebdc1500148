"""What a path tells of an image: data.pattern, a template such as {camera}/{person}/{} or a regular expression.

{person} {camera} {tracklet}   what is read; any text without "/"; where one comes again it must be the same text
{} or *                        anything within one name of a folder or file
**                             anything, folders too
(?P<person>\\d+)                with named groups in it the whole is a regular expression, looked for in the path
A | B                          with spaces around the bar: B where A does not fit
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reidray.data.image_files import EXTENSIONS

FIELDS = ("person", "camera", "tracklet")

_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<deep>\*\*)|(?P<star>\*)|(?P<brace>[{}])|(?P<text>[^{}*]+)")
_ENDING = rf"(?:\.(?i:{'|'.join(EXTENSIONS)}))*"
_ADVICE = "for example data.pattern='{camera}/{person}/{}'"


@dataclass(frozen=True)
class PathPattern:
    """A compiled data.pattern.

    Attributes:
      text: as it was given.
      forms: one regular expression each of its alternatives.
    """

    text: str
    forms: tuple[re.Pattern[str], ...]

    @property
    def fields(self) -> frozenset[str]:
        """What it may tell: some of person, camera and tracklet."""
        return frozenset(field for form in self.forms for field in form.groupindex)

    def match(self, path: str, *, after: int = 0) -> dict[str, str] | None:
        """What a path tells, by field; None where it does not fit.

        Args:
          path: relative, with "/" between folders.
          after: the place in the path before which no field may begin.
        """
        for form in self.forms:
            found = form.search(path)
            if found is not None and all(
                found.start(field) >= after for field, text in found.groupdict().items() if text
            ):
                return {field: text for field, text in found.groupdict().items() if text}
        return None


def compiled(text: str) -> PathPattern:
    """Compiles data.pattern.

    Raises:
      ValueError: it is no template and no regular expression, or names nothing that is read.
    """
    forms = tuple(_form(part.strip(), text) for part in text.split(" | "))
    pattern = PathPattern(text, forms)
    odd = sorted(pattern.fields - set(FIELDS))
    if odd or not pattern.fields:
        got = f"{{{odd[0]}}}" if odd else "none of them"
        raise ValueError(
            f"data.pattern={text}: expected some of {{person}}, {{camera}} and {{tracklet}}, got {got}; {_ADVICE}"
        )
    return pattern


def _form(part: str, whole: str) -> re.Pattern[str]:
    try:
        return re.compile(part if "(?P<" in part else _expression(part, whole))
    except re.error as error:
        raise ValueError(f"data.pattern={whole}: {part!r} is no regular expression ({error}); {_ADVICE}") from error


def _expression(template: str, whole: str) -> str:
    """A template as a regular expression."""
    words, seen = [], set()
    for token in _TOKEN.finditer(template):
        field = token["field"]
        if token["brace"] is not None or (field and field not in FIELDS):
            raise ValueError(
                f"data.pattern={whole}: expected {{person}}, {{camera}}, {{tracklet}} or {{}}, got {token[0]!r}; "
                f"{_ADVICE}"
            )
        if field:
            words.append(f"(?P={field})" if field in seen else rf"(?P<{field}>[^/]+?)")
            seen.add(field)
        elif token["deep"] is not None:
            words.append(".*?")
        elif token["text"] is not None:
            words.append(re.escape(token["text"]))
        else:
            words.append("[^/]*?")
    return rf"\A{''.join(words)}{_ENDING}\Z"
