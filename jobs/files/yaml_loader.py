"""Reads YAML safely.

It refuses keys written twice, recursion, unbounded expansion and unusable characters, and names the line.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

MERGE_TAG = "tag:yaml.org,2002:merge"

# Far more than a person writes. PyYAML and pydantic recurse once per level, so the depth is bounded first.
MOST_LEVELS = 64
# Values in the file, every alias written out. Nine aliases of nine aliases, nine levels deep, would be 387 million.
MOST_VALUES = 200_000

# No path, name or header may contain a NUL, and half of a surrogate pair cannot be encoded as UTF-8.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


class Fault(yaml.constructor.ConstructorError):
    """Something that YAML allows and spec files do not, with its line."""

    def __init__(self, sentence: str, node: yaml.Node) -> None:
        super().__init__(None, None, sentence, node.start_mark)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also checks the document before it constructs any value."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node. Raises Fault if it is nested deeper than MOST_LEVELS."""
        self._level += 1
        try:
            if self._level > MOST_LEVELS:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                sentence = f"more than {MOST_LEVELS} levels of nesting"
                raise Fault(sentence, yaml.ScalarNode("", "", start_mark=mark, end_mark=mark))
            return super().compose_node(parent, index)
        finally:
            self._level -= 1

    def document(self) -> tuple[Any, yaml.Node | None]:
        """The document's value and its node tree; `(None, None)` if the text has no document.

        Raises:
            yaml.YAMLError: the text is not valid YAML; a Fault where it is valid and we refuse it.
        """
        root = self.get_single_node()
        if root is None:
            return None, None
        self._check(root)
        return self.construct_document(root), root

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> Any:
        """A date. PyYAML raises ValueError, without a line, for one that is in no calendar."""
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError as error:
            raise Fault(f"{node.value} is no date ({error}); put a text in quotes", node) from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """A whole number. Python raises ValueError for one of more than 4,300 digits."""
        try:
            return super().construct_yaml_int(node)
        except ValueError as error:
            raise Fault("a whole number with more digits than can be read; put a text in quotes", node) from error

    def _check(self, root: yaml.Node) -> None:
        """Raise Fault for the document's first fault.

        It visits each node once, so it refuses a document whose aliases would expand to gigabytes in milliseconds.
        """
        sizes: dict[int, int] = {}
        self._count(root, sizes, set())

    def _count(self, node: yaml.Node, sizes: dict[int, int], open_nodes: set[int]) -> int:
        """How many values the node has with its aliases written out. Raises Fault."""
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise Fault("an anchor whose value refers to the anchor itself", node)
        open_nodes.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            unusable = _UNUSABLE.search(node.value)
            if unusable is not None:
                raise Fault(f"a text holds the character {unusable[0]!a}, which no path or name can hold", node)
        size = 1
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node, sizes, open_nodes)
            size += sum(self._count(value, sizes, open_nodes) for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(self._count(item, sizes, open_nodes) for item in node.value)
        if size > MOST_VALUES:
            raise Fault(f"with its aliases written out this has more than {MOST_VALUES:,} values", node)
        open_nodes.discard(id(node))
        sizes[id(node)] = size
        return size

    def _check_keys(self, node: yaml.MappingNode, sizes: dict[int, int], open_nodes: set[int]) -> None:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            self._count(key_node, sizes, open_nodes)
            key = key_node.value if key_node.tag == MERGE_TAG else self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise Fault("a list or a mapping cannot be a key", key_node)
            if key in keys:
                raise Fault(f"the key {key!r} is there twice", key_node)
            keys.add(key)


Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_yaml_timestamp)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def load(text: str) -> tuple[Any, yaml.Node | None]:
    """Parse a text into its value and its node tree. Raises yaml.YAMLError."""
    loader = Loader(text)
    try:
        return loader.document()
    finally:
        loader.dispose()


def reason(error: yaml.YAMLError) -> str:
    """What is wrong, on one line: without the positions that PyYAML adds on lines of their own."""
    problem = (error.problem or error.context) if isinstance(error, yaml.MarkedYAMLError) else None
    return " ".join((problem or str(error)).split())
