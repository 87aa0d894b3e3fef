"""Does the mask follow the words? Each structure asked for by its name, by words never seen in training, by the name
of another structure and by words without a meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from bundle.cases import CaseReference
from bundle.cases.structures import Structures
from bundle.scoring.text_effect import CasePrompt
from bundle.wording import all_terms, everyday


def adherence_prompts(
    references: Sequence[CaseReference],
    unseen: int = 3,
    meaningless: int = 2,
    seed: int = 0,
    names_structures: bool = True,
    structures: Structures | None = None,
) -> dict[str, dict[str, CasePrompt]]:
    """Ways to ask for every labelled structure of every case, one structure a prompt.

    Args:
        references: of one list, with labels.
        unseen: how many phrasings that training never shows, at most; a structure that has fewer is asked for by
            its last one again.
        meaningless: how many prompts of everyday words that training never shows.
        seed: of the choice of those words.
        names_structures: whether a prompt chooses what the network segments.
        structures: of the network, whose words are kept from training; None for the shipped one's.

    Returns:
        way -> case id -> structure -> prompt. 'name' comes first; 'unseen 1', ... where every structure has one;
        'other', the name of the next structure, where there are several; 'meaningless 1', ...

    Raises:
        ValueError: a case without labels, or a network for which a prompt chooses nothing.
    """
    if not names_structures:
        raise ValueError("this network does not choose by a prompt what it segments; use evaluate.yaml alone")
    ways: dict[str, dict[str, CasePrompt]] = {}
    terms = all_terms(structures)
    for reference in references:
        names = list(reference.labels.values())
        if not names:
            raise ValueError(f"{reference.id} has no labels whose names could be asked for")
        prompts = {"name": {name: name for name in names}}
        held_out = {name: terms[name].held_out if name in terms else () for name in names}
        if all(held_out.values()):
            for number in range(unseen):
                prompts[f"unseen {number + 1}"] = {
                    name: words[min(number, len(words) - 1)] for name, words in held_out.items()
                }
        if len(names) > 1:
            prompts["other"] = dict(zip(names, [*names[1:], names[0]], strict=True))
        for number in range(meaningless):
            drawn = Random(f"{seed}/{reference.id}/{number}").choices(everyday()["held_out"], k=len(names))
            prompts[f"meaningless {number + 1}"] = dict(zip(names, drawn, strict=True))
        for way, of_case in prompts.items():
            ways.setdefault(way, {})[reference.id] = of_case
    return {way: of_cases for way, of_cases in ways.items() if len(of_cases) == len(references)}
