"""What a text does: the cases with their own text, without any, and with the text of another case.

Where there are no texts but names, as of organs on CT, each structure is asked for by its name, by none, and by the
name of another structure.
"""

from __future__ import annotations

import logging
import random
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from bundle.cases import CaseReference

TextMode = Literal["on", "off", "shuffled"]
#: One for the whole case, or one for each of its structures.
CasePrompt = str | Mapping[str, str]
#: In the order of importance: results are written for the first one that is evaluated.
TEXT_MODES: tuple[TextMode, ...] = get_args(TextMode)

logger = logging.getLogger(__name__)


def text_prompts(
    references: Sequence[CaseReference],
    reads_text: bool,
    modes: Sequence[str] = TEXT_MODES,
    seed: int = 0,
    names_structures: bool = False,
) -> dict[TextMode, dict[str, CasePrompt]]:
    """The prompt of every case in every mode that can be evaluated.

    'on' is the case's own text; 'off' is no text; 'shuffled' is the text of another case, see `shuffled_texts`.
    A case without a text is asked for by the names of its labels, one by one, if the network understands names;
    shuffled, for each by the name of the next. Every mode holds every case, so that their figures can be compared.

    Args:
        references: of one list.
        reads_text: whether the network does; for one that reads none only 'off' is evaluated.
        modes: those that are wanted. 'on' needs a case with a text or with names, 'shuffled' another text or name
            for every case; where neither leaves one of the wanted modes, 'off' stands in.
        seed: of the shuffling.
        names_structures: whether a prompt chooses what is segmented.

    Returns:
        mode -> case id -> prompt, or structure -> prompt; in the order of `TEXT_MODES`.

    Raises:
        ValueError: a mode that does not exist.
    """
    wanted = [modes] if isinstance(modes, str) else list(modes)
    for mode in wanted:
        if mode not in TEXT_MODES:
            raise ValueError(
                f"text_modes: {mode!r} is none; give 'on', 'off' or 'shuffled', in quotes, since YAML reads a "
                "bare on or off as true or false"
            )
    texts = {reference.id: reference.prompt for reference in references}
    silent = [reference for reference in references if not reference.prompt]
    names = {
        reference.id: list(reference.labels.values()) if names_structures else [] for reference in silent
    }
    prompts: dict[TextMode, dict[str, CasePrompt]] = {"off": dict.fromkeys(texts, "")}
    if reads_text and (any(texts.values()) or any(names.values())):
        own = {case: {name: name for name in named} or "" for case, named in names.items()}
        others: dict[str, CasePrompt] = {
            case: dict(zip(named, [*named[1:], named[0]], strict=True))
            for case, named in names.items()
            if len(named) > 1
        }
        others |= shuffled_texts({case: text for case, text in texts.items() if case not in others}, seed)
        prompts = {
            "on": {**texts, **own},
            **prompts,
            **({"shuffled": others} if len(others) == len(texts) else {}),
        }
    possible = {mode: prompts[mode] for mode in prompts if mode in wanted} or {"off": prompts["off"]}
    left_out = [mode for mode in wanted if mode not in possible]
    if left_out and reads_text:
        logger.info("text modes %s are left out: the list has too few texts", ", ".join(left_out))
    return possible


def shuffled_texts(texts: Mapping[str, str], seed: int = 0) -> dict[str, str]:
    """For every case the text of another one.

    Drawn with equal chances from all cases whose text is not empty and differs from the case's own. The draw
    depends on (seed, case id) and on which texts there are, not on the order of the cases.

    Args:
        texts: case id -> its own text.
        seed: of the draws.

    Returns:
        case id -> text; a case for which no other text exists is left out.
    """
    pool = sorted(text for text in texts.values() if text)
    shuffled = {}
    for case, own in texts.items():
        start, end = bisect_left(pool, own), bisect_right(pool, own)  # where the case's own text stands
        others = len(pool) - (end - start)
        if others:
            drawn = random.Random(f"{seed}/{case}").randrange(others)
            shuffled[case] = pool[drawn if drawn < start else drawn + end - start]
    return shuffled
