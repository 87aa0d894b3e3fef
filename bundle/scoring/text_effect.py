"""What a text does: the cases with their own text, without any, and with the text of another case."""

from __future__ import annotations

import logging
import random
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from bundle.cases import CaseReference

TextMode = Literal["on", "off", "shuffled"]
#: In the order of importance: results are written for the first one that is evaluated.
TEXT_MODES: tuple[TextMode, ...] = get_args(TextMode)

logger = logging.getLogger(__name__)


def text_prompts(
    references: Sequence[CaseReference],
    reads_text: bool,
    modes: Sequence[str] = TEXT_MODES,
    seed: int = 0,
) -> dict[TextMode, dict[str, str]]:
    """The prompt of every case in every mode that can be evaluated.

    'on' is the case's own text, which is empty where it has none; 'off' is no text; 'shuffled' is the text of
    another case, see `shuffled_texts`. Every mode holds every case, so that their figures can be compared.

    Args:
        references: of one list.
        reads_text: whether the network does; for one that reads none only 'off' is evaluated.
        modes: those that are wanted. 'on' needs a case with a text, 'shuffled' another text for every case;
            where neither leaves one of the wanted modes, 'off' stands in.
        seed: of the shuffling.

    Returns:
        mode -> case id -> prompt, in the order of `TEXT_MODES`.

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
    own = {reference.id: reference.prompt for reference in references}
    prompts: dict[TextMode, dict[str, str]] = {"off": dict.fromkeys(own, "")}
    if reads_text and any(own.values()):
        others = shuffled_texts(own, seed)
        prompts = {"on": own, **prompts, **({"shuffled": others} if len(others) == len(own) else {})}
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
