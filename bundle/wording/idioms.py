"""Phrases that only together mean something: 'leave the liver out', 'nothing apart from the liver', 'all organs'."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

from bundle.wording.phrases import Item, Phrases
from bundle.wording.spelling import Word, fold
from bundle.wording.terms import grammar, vocabulary

_BOUNDS = ("split", "comma", "contrast")
_EVERYTHING = ("everything", "quantifiers")
_LIGHT = ("filler", "transparent", "of")
_ROMAN = frozenset(("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"))
#: Lists of grammar.yaml that idioms look words up in.
_LISTS = ("groups", "plural_groups", "group_words", "whichever_one", "participles", "actions")
_FURTHEST = 8  # phrases between the two parts of an idiom


class Idioms:
    """Reads the phrases of one prompt anew, from left to right, where others decide on what they mean.

    Args:
        items: phrases as the word lists have them.
        words: of the prompt.
        findings: names of terms that are reported with their place.
    """

    def __init__(self, items: list[Item], words: list[Word], findings: Collection[str]) -> None:
        self._words = words
        self._findings = findings
        self._items = items
        self._phrases = Phrases(items)
        self._lesions = frozenset(map(fold, vocabulary()["heads"]["lesion"]))
        particles = grammar()["apart"]["particles"]
        self._particles = [
            position for position, one in enumerate(items) if words[one.start].folded in particles
        ]
        self._single = [words[one.start].folded if one.end == one.start + 1 else "" for one in items]
        known = grammar()
        self._known = {kind: frozenset(known[kind]) for kind in _LISTS} | {
            "plurals": frozenset(map(fold, known["plural_groups"])),
            "verbs": frozenset(known["apart"]["verbs"]),
        }

    def read(self) -> Phrases:
        """The phrases as they are meant."""
        for idiom in (
            self._bracketed_side,
            self._group,
            self._part_of_organ,
            self._discontinuous,
            self._than_all,
            self._denied_action,
            self._beside_negation,
            self._only,
        ):
            self._phrases = Phrases(self._items)
            for position in range(len(self._items)):
                idiom(position, self._items[position])
        return Phrases(self._items)

    def _set(self, position: int, kind: str) -> None:
        self._items[position] = self._items[position]._replace(kind=kind, value=None)

    def _word(self, position: int) -> str:
        """The one word that a phrase consists of; '' of longer ones."""
        return self._single[position]

    def _is(self, position: int | None, *kinds: str) -> bool:
        return position is not None and self._items[position].kind in kinds

    def _bracketed_side(self, position: int, item: Item) -> None:
        """'(L) kidney' is 'L kidney', and 'kidney / left' is 'kidney, left'."""
        word, last = self._word(position), len(self._items) - 1
        if word == "/" and 0 < position < last and self._is(position + 1, "side"):
            behind = self._phrases.next_but(position, "filler", "side", "and")
            if self._items[position - 1].kind == "term" and not self._is(behind, "term"):
                self._set(position, "comma")
        elif word == "?" and position < last and self._is(position + 1, "not", "wanted", "side"):
            self._set(position, "filler")  # 'the aorta? no.'
        elif item.kind == "split" and 0 < position < last and self._is(position - 1, "side"):
            alone = position == 1 or self._is(position - 2, "split")
            if alone and self._is(position + 1, "term"):
                self._set(position, "filler")  # 'Left. Kidney.'
        elif (
            word in ("(", "[")
            and position + 1 < last
            and self._is(position + 1, "side")
            and self._word(position + 2) in (")", "]")
        ):
            self._set(position, "filler")
            self._set(position + 2, "filler")

    def _group(self, position: int, item: Item) -> None:
        """'all visible organs', 'as many organs as possible' and, where nothing else is named, 'the organs'."""
        words = self._words[item.start : item.end]
        if (
            item.kind in ("filler", "transparent")
            and len(words) == 1
            and words[0].folded in self._known["plurals"]
        ):
            alone = words[0].text.lower() in self._known["plural_groups"] and not self._is(
                self._phrases.last_but(position, "filler", "of"),
                "side",
                "unknown",
                "things",
                "near",
                *_EVERYTHING,
                "not",
                "nothing",
                "except",
            )
            if alone:
                self._set(position, "quantifiers")
            return
        if item.kind == "everything" and self._narrows(position, self._phrases.next_but(position, *_LIGHT)):
            self._set(position, "unknown")
        if item.kind != "quantifiers":
            return
        groups, between = self._known["groups"], self._known["group_words"]
        for later in range(position + 1, min(position + 1 + _FURTHEST, len(self._items))):
            word = self._word(later)
            if word in groups and self._items[later].kind in ("filler", "transparent", "things"):
                behind = self._phrases.next_but(later, *_LIGHT)
                if word == "part" and self._is(behind, "term"):  # 'all parts of the liver'
                    self._set(later, "transparent")
                    return
                if not self._narrows(later, behind):
                    self._set(position, "everything")
                    for one in range(position + 1, later + 1):
                        self._set(one, "filler")
                return
            if (
                self._items[later].kind not in ("filler", "transparent", "of")
                and word not in between
                and not (word.isdigit() or self._items[later].kind == "and")
            ):
                return

    def _narrows(self, noun: int, behind: int | None) -> bool:
        """Whether what follows picks some of all: 'all organs of the pelvis'."""
        if behind is None or self._is(behind, "term", "adjective", "side"):
            return behind is not None
        joint = self._phrases.next_of(noun, "of")
        part = self._is(behind, "things") and self._word(behind) not in self._known["group_words"]
        return part and joint is not None and joint < behind

    def _than_all(self, position: int, item: Item) -> None:
        """'all less the liver', 'all - liver', 'every other organ than the liver'; elsewhere the word says nothing."""
        if item.kind == "contrast" and self._word(position) == "but":  # 'everything else but the liver'
            of_all = self._is(self._phrases.last_but(position, "filler", "transparent", "side"), *_EVERYTHING)
            if of_all and self._is(self._phrases.next_but(position, "filler"), "term", "side"):
                self._set(position, "except")
        if item.kind not in ("less", "dash"):
            return
        before = self._phrases.last_but(position, "filler", "transparent", "of", "comma")
        if item.kind == "dash":
            chained = self._is(before, "term") and self._is(
                self._phrases.last_but(before or 0, "filler", "side", "and"), "dash"
            )
            first = self._phrases.last_but(before or 0, "filler", "side", "and") if chained else None
            taken_out = chained and first is not None and self._items[first].kind == "except"
            behind = self._phrases.next_but(position, "filler")
            all_before = self._is(before, *_EVERYTHING) and self._is(behind, "term", "side", "adjective")
            self._set(position, "except" if all_before or taken_out else "comma")
            return
        wanted = self._is(before, *_EVERYTHING)
        if before is None:  # 'save the liver, everything'
            comma = self._phrases.next_of(position, "comma")
            wanted = comma is not None and self._phrases.next_of(comma, "everything") is not None
        nearby = range(max(0, item.start - _FURTHEST), item.start)
        if self._word(position) == "than" and any(self._words[one].folded == "rather" for one in nearby):
            self._set(position, "not")
            return
        if self._word(position) == "than" and (wanted or self._is(before, "not", "nothing")):
            wanted = any(self._words[one].folded in ("other", "else", "more") for one in nearby)
        self._set(position, "except" if wanted else "filler")

    def _part_of_organ(self, position: int, item: Item) -> None:
        """'segment VIII', 'liver segments', 'artery to the kidney', 'left hepatic lobe', 'the other kidney'."""
        word = self._word(position)
        following = position + 1 if position + 1 < len(self._items) else None
        if word in self._lesions and item.kind == "things" and position:
            ahead = self._items[position - 1]
            if ahead.kind == "term" and ahead.value.name in self._findings:
                self._set(position, "transparent")  # 'pneumonia lesions'
        elif word == "segment":
            numbered = following is not None and (
                self._word(following) in _ROMAN or self._word(following).isdigit()
            )
            behind = self._phrases.next_but(position, "filler")
            followed = self._is(behind, "term", "side", *_EVERYTHING)
            if numbered or (position and self._items[position - 1].kind == "term" and not followed):
                self._set(position, "things")
        elif item.kind == "comma" and position and self._is(position - 1, "things"):
            organ = self._phrases.next_but(position, "filler", "side")
            first = self._phrases.last_but(position - 1, "filler") is None
            if first and self._is(organ, "term") and self._phrases.next_but(organ or 0, "filler") is None:
                self._set(position, "of")  # 'cyst, left kidney'
        elif word == "to" and position and self._items[position - 1].kind == "things":
            self._set(position, "of")
        elif item.kind == "adjective" and len(item.value.parts) == 2 and self._is(following, "side"):
            behind = self._phrases.next_but(position + 1, "filler")
            if behind is None or self._is(behind, *_BOUNDS):  # 'renal left'
                self._items[position] = item._replace(kind="term")
        elif item.kind == "term" and item.value.opposite is None and len(item.value.parts) == 1:
            if self._words[item.end - 1].text.lower() == "lobe" and item.end - item.start <= 2:
                self._set(position, "things")
        elif word in self._known["whichever_one"] and following is not None:
            noun = self._items[following]
            one = noun.kind == "term" and len(noun.value.parts) == 2 and noun.value.name not in self._findings
            if one and not self._words[noun.end - 1].text.lower().endswith("s"):
                self._set(position, "whichever")

    def _beside_negation(self, position: int, item: Item) -> None:
        """'except only the liver' is 'except the liver', and after a comma 'do the liver' asks for it."""
        if item.kind == "verbs" and self._is(self._phrases.last_but(position, "filler"), "except"):
            self._set(position, "filler")  # 'do not want to segment'
        if item.kind == "only" and self._is(self._phrases.last_but(position, "filler"), "except"):
            self._set(position, "filler")
        if self._word(position) == "do" and item.kind == "filler":
            first = position and self._items[position - 1].kind in _BOUNDS
            if first and not self._is(self._phrases.next_but(position, "filler"), "not"):
                self._set(position, "verbs")

    def _discontinuous(self, position: int, item: Item) -> None:
        """'leave the liver out' is an exception."""
        if self._word(position) not in self._known["verbs"]:
            return
        nearest = bisect_right(self._particles, position)
        if nearest == len(self._particles):
            return
        later = self._particles[nearest]
        bound = self._phrases.next_of(position, "split", "contrast", "verbs")
        if bound is None or later < bound:
            self._set(position, "except")
            self._set(later, "filler")

    def _denied_action(self, position: int, item: Item) -> None:
        """'do not mark the liver' is an exception, 'the liver is not needed' takes back what was named."""
        if item.kind != "not":
            return
        bound = self._phrases.last_of(position, *_BOUNDS)
        named = self._phrases.last_of(position, "term", "side")
        spoken_of = named is not None and (bound is None or bound < named)
        for behind in range(position + 1, min(position + 1 + _FURTHEST, len(self._items))):
            word, kind = self._word(behind), self._items[behind].kind
            if spoken_of and word in self._known["participles"]:
                self._set(position, "unwanted")
                self._set(behind, "filler")
                return
            if kind == "verbs" or word in self._known["actions"]:
                self._deny(position, behind, spoken_of)
                return
            if kind not in _LIGHT:
                return

    def _deny(self, position: int, verb: int, spoken_of: bool) -> None:
        thing = self._phrases.next_of(
            verb, "term", "side", "everything", "quantifiers", "adjective", *_BOUNDS
        )
        if spoken_of and (thing is None or self._items[thing].kind in _BOUNDS):
            self._set(position, "unwanted")
        elif (
            self._is(thing, "term") and thing is not None and self._items[thing].value.name in self._findings
        ):
            pass  # 'does not show consolidation' denies it of this place only
        else:
            self._set(position, "except")
        last = min(verb + _FURTHEST, len(self._items)) if thing is None else min(verb + _FURTHEST, thing)
        for one in range(verb, last):  # 'no need to segment'
            if self._items[one].kind == "verbs":
                self._set(one, "filler")

    def _only(self, position: int, item: Item) -> None:
        """'nothing apart from the liver', 'do not segment anything but the liver' are only the liver."""
        if item.kind != "except":
            return
        own = {word.folded for word in self._words[item.start : item.end]}
        all_but = bool(own & {"all", "anything", "everything"})
        behind = self._phrases.next_of(position, "unwanted", *_BOUNDS)
        if self._is(behind, "unwanted") and behind is not None and all_but:
            self._set(position, "only")  # 'anything but the liver is unwanted'
            self._set(behind, "filler")
            return
        if all_but:
            self._items[position] = item._replace(value="all")
        passed = ("filler", "transparent", "of", *_EVERYTHING)
        before = self._phrases.last_but(position, *passed)
        if before is None or self._items[before].kind not in ("not", "nothing", "except", "only"):
            return
        between = range(before + 1, position)
        all_but = all_but or any(self._items[one].kind in _EVERYTHING for one in between)
        groups = self._known["groups"] | {"other"}
        if self._items[before].kind in ("except", "only") and not all_but:
            return
        said = [one for one in between if self._items[one].kind != "filler"]
        grouped = all_but or any(self._word(one) in groups for one in between)
        if self._items[before].kind == "not" and said and not grouped:
            return
        self._set(position, "only")
        for one in (before, *between):
            self._set(one, "filler")
