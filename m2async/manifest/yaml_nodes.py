"""YAML as nodes with line numbers: every scalar is the text that is written, and nothing is constructed.

The nodes are built from the parser's events, so that depth and number are bounded while they come and
an alias costs no copy. PyYAML is imported when it is first needed: it comes with the `cli` extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

from m2async.errors import ConfigurationError, ManifestError
from m2async.manifest.source import Source, decoded

MAX_BYTES = 8 * 1024 * 1024
MAX_NODES = 500_000
_MAX_DEPTH = 16  # a manifest needs 6

_NULLS = {"", "~", "null", "Null", "NULL"}  # YAML 1.1, "Null Language-Independent Type"


class Scalar(NamedTuple):
    """A text as it is written, or None for a plain null."""

    text: str | None
    line: int

    def __repr__(self) -> str:
        return repr(self.text)


class List(NamedTuple):
    """A sequence."""

    items: Sequence[Node]
    line: int

    def __repr__(self) -> str:
        return "a list"  # and not what is in it: aliases can make that endless


class Map(NamedTuple):
    """A mapping whose keys are texts, in the order of the file."""

    entries: Mapping[str, Node]
    line: int

    def __repr__(self) -> str:
        return "a mapping"


Node: TypeAlias = Scalar | List | Map
"""What a YAML document is made of."""


def compose(source: Source) -> Node | None:
    """Compose the file's one document; None if it is empty.

    Raises ManifestError, with the line, for what is not YAML and for what a manifest has no use for: a
    second document, tags, merge keys, a mapping's key given twice, an alias within what it stands for,
    more than MAX_BYTES bytes or MAX_NODES nodes. Raises ConfigurationError if PyYAML is not installed.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationError("YAML manifests need PyYAML: pip install 'm2async[cli]'") from None
    text = _text(source)
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return _Composer(events, source).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at character {mark.column + 1}" if mark else ""
        raise source.error(mark.line + 1 if mark else None, f"not valid YAML{place}: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, text.find(chr(error.character))) + 1
        raise source.error(line, f"the character U+{error.character:04X} is not allowed in YAML") from None


def _text(source: Source) -> str:
    content = bytearray()
    for chunk in source.chunks():
        content += chunk
        if len(content) > MAX_BYTES:
            raise source.error(None, f"a YAML manifest has at most {MAX_BYTES:,} bytes: write the rows as CSV or JSONL")
    texts = []
    for number, line in enumerate(BytesIO(content), 1):
        text, fault = decoded(line)
        if fault:
            raise source.error(number, fault)
        texts.append(text)
    return "".join(texts)


class _Composer:
    def __init__(self, events: Iterator[Any], source: Source) -> None:
        self._events = events
        self._source = source
        self._anchors: dict[str, Node | None] = {}  # None while its node is not complete
        self._count = 0

    def document(self) -> Node | None:
        node = None
        for event in self._events:
            match type(event).__name__:
                case "DocumentStartEvent" if node is not None:
                    raise self._error(event, "a second document begins: a manifest is one document")
                case "AliasEvent" | "ScalarEvent" | "SequenceStartEvent" | "MappingStartEvent":
                    node = self._node(event, 1)
        return node

    def _node(self, event: Any, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES:,} values: use ranges, or write the rows as CSV or JSONL")
        if depth > _MAX_DEPTH:
            raise self._error(event, "is nested too deeply")
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._aliased(event)
        if event.tag is not None:
            raise self._error(event, f"the tag {event.tag!r:.80} is not allowed: every value is taken as it is written")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node: Node
        if kind == "ScalarEvent":
            node = self._scalar(event)
        elif kind == "SequenceStartEvent":
            node = self._list(event, depth)
        else:
            node = self._map(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise self._error(event, f"the alias *{event.anchor:.80} has no anchor before it")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(event, f"the alias *{event.anchor:.80} stands within what it stands for")
        return node

    def _scalar(self, event: Any) -> Scalar:
        plain = not event.style
        return Scalar(None if plain and event.value in _NULLS else event.value, _line(event))

    def _list(self, start: Any, depth: int) -> List:
        items = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            items.append(self._node(event, depth + 1))
        return List(items, _line(start))

    def _map(self, start: Any, depth: int) -> Map:
        entries: dict[str, Node] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar) or key.text is None:
                raise self._error(event, "a mapping's key must be a text")
            if key.text == "<<":
                raise self._error(event, "merge keys (<<) are not supported: put shared fields into defaults")
            if key.text in entries:
                raise self._error(event, "is given twice in one mapping: keep one", key.text)
            entries[key.text] = self._node(next(self._events), depth + 1)
        return Map(entries, _line(start))

    def _error(self, event: Any, reason: str, column: str | None = None) -> ManifestError:
        return self._source.error(_line(event), reason, column)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
