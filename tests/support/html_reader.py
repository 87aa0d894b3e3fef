"""Reads pages as a strict reader would: every element closed in its order, attributes by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "input", "img", "br", "col", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As it would be read: white space collapsed."""
        return " ".join(self._all_text().split())

    def _all_text(self) -> str:
        return "".join(
            child if isinstance(child, str) else " " + child._all_text() + " " for child in self.children
        )

    def find(self, *tags: str, **attributes: str) -> list[Element]:
        """Descendants with one of these tags (any for none) and these attributes, in the order of the page."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                right = {name.replace("_", "-").rstrip("-"): value for name, value in attributes.items()}
                if (not tags or child.tag in tags) and right.items() <= child.attributes.items():
                    found.append(child)
                found += child.find(*tags, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = self.root

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is given twice"
        element = Element(tag, {name: value or "" for name, value in attrs}, self.open)
        self.open.children.append(element)
        if tag not in _VOID:
            self.open = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.tag == tag, f"</{tag}> closes <{self.open.tag}>"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.children.append(data)


def read_html(page: str) -> Element:
    """The page as a tree; fails where elements are not closed in their order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open is reader.root, f"<{reader.open.tag}> is not closed"
    return reader.root


def check_safe(root: Element) -> None:
    """Fail where the page would load from elsewhere, run what is not its own, or hold two equal ids."""
    [policy] = [
        meta.attributes["content"] for meta in root.find("meta", http_equiv="Content-Security-Policy")
    ]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    every = root.find()
    assert not {"link", "iframe", "object", "embed", "base"} & {element.tag for element in every}
    scripts = [script for script in root.find("script") if "type" not in script.attributes]
    assert len(scripts) == 1
    ids = [element.attributes["id"] for element in every if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in every:
        for name, value in element.attributes.items():
            assert not name.startswith("on") and name != "style", (element.tag, name)
            if name == "src":
                assert element.tag == "img" and value.startswith("data:image/jpeg;base64,")
            if name == "href":
                assert value.startswith(("./", "../index.html"))
            if name == "for" or name.startswith("aria-labelledby"):
                assert value in ids
        if element.tag == "img":
            assert element.attributes["alt"]
        if element.tag in {"input", "select"}:
            labelled = "aria-label" in element.attributes
            parent = element.parent
            while parent is not None and not labelled:
                labelled, parent = parent.tag == "label" and bool(parent.text), parent.parent
            assert labelled, element


def content_of(root: Element) -> dict[str, Any]:
    """What a case's page holds for its script."""
    [script] = root.find("script", type="application/json")
    content: dict[str, Any] = json.loads(script._all_text())
    return content
