"""Prompts that people write are read as they mean them: names, sides, lists, negation, exception, and refusal."""

from __future__ import annotations

import gc
import time

import pytest

from bundle.cases.structures import Structures, shipped_structures
from bundle.inference.prompts import prompt_warnings
from bundle.networks.prompt_reading import PromptReading
from bundle.wording import Request, SentenceGenerator, request_reader

LEFT, RIGHT = "left kidney", "right kidney"
INFECTION = "COVID-19 infection"
NAMED: dict[str, set[str]] = {
    # names, synonyms, plural, hyphen, case, articles
    "the liver": {"liver"},
    "LIVER": {"liver"},
    "Livers": {"liver"},
    "Gall bladder!": {"gallbladder"},
    "gall-bladder": {"gallbladder"},
    "abdominal aorta": {"aorta"},
    "lungs": {"lung"},
    "the two kidneys": {LEFT, RIGHT},
    "kidney": {LEFT, RIGHT},
    "volume of the liver": {"liver"},
    "liver volume": {"liver"},
    "how big is the spleen?": {"spleen"},
    "hepatic parenchyma": {"liver"},
    "liver parenchyma and splenic tissue": {"liver", "spleen"},
    "the liver please, thanks": {"liver"},
    "all of the liver": {"liver"},
    "all the nuclei": {"nucleus"},
    "the gland behind the stomach": {"pancreas"},
    # typing errors
    "livr": {"liver"},
    "spleeen": {"spleen"},
    "pancrease": {"pancreas"},
    "stomache": {"stomach"},
    "kidnies": {LEFT, RIGHT},
    "pan creas": {"pancreas"},
    "gallbl adder": {"gallbladder"},
    "nto the livr, the spleeen": {"spleen"},
    # sides
    "L kidney": {LEFT},
    "rt kidney": {RIGHT},
    "left-sided kidney": {LEFT},
    "kidney (right)": {RIGHT},
    "kidney, left": {LEFT},
    "R and L kidney": {LEFT, RIGHT},
    "left and right kidneys": {LEFT, RIGHT},
    "the right kidney and the left one": {LEFT, RIGHT},
    "(L) kidney, liver": {LEFT, "liver"},
    "kidney / right": {RIGHT},
    "kidneys: left, right": {LEFT, RIGHT},
    "both kidneys but the left": {RIGHT},
    "which kidney? the right": {RIGHT},
    "kidneyLeft": {LEFT},
    "the contralateral kidney": set(),
    "kidney of the affected side": set(),
    "the other kidney": set(),
    # lists
    "liver, spleen and both kidneys": {"liver", "spleen", LEFT, RIGHT},
    "aorta & pancreas": {"aorta", "pancreas"},
    "aorta/spleen": {"aorta", "spleen"},
    # only
    "only the liver": {"liver"},
    "liver only, nothing else": {"liver"},
    "right kidney only": {RIGHT},
    "nothing but the spleen": {"spleen"},
    "both kidneys, only the left": {LEFT},
    # negation and exception beside what is wanted
    "kidneys, not the left": {RIGHT},
    "both kidneys but not the left one": {RIGHT},
    "not the left but the right kidney": {RIGHT},
    "liver without the gallbladder": {"liver"},
    "liver, not spleen": {"liver"},
    "liver but no spleen": {"liver"},
    "spleen, liver, but exclude the kidneys": {"spleen", "liver"},
    "I want to see the stomach and pancreas but without the spleen": {"stomach", "pancreas"},
    "leave out the spleen and segment the liver": {"liver"},
    "skip the aorta; segment the liver": {"liver"},
    "ignore the liver, show the spleen": {"spleen"},
    "neither liver nor spleen": set(),
    "don't do lungs, do the aorta": {"aorta"},
    "no need for the aorta; the pancreas is enough": {"pancreas"},
    "the spleen is not what I want, it is the liver": {"liver"},
    "the lungs don't matter, the kidneys do": {LEFT, RIGHT},
    "aorta? no. stomach? yes.": {"stomach"},
    "don't segment anything but the spleen": {"spleen"},
    "no organ other than the liver": {"liver"},
    "anything but the liver is unwanted": {"liver"},
    # beside words that are not known
    "liver asdf": {"liver"},
    "liver and blorb": {"liver"},
    "pizza and kidneys": {LEFT, RIGHT},
    "liver and heart": {"liver"},
    "liver with metastases": {"liver"},
    "the liver and its vessels": {"liver"},
    # a thing of an organ is not the organ
    "kidney stones": set(),
    "splenic artery": set(),
    "artery of the spleen": set(),
    "liver tumour": set(),
    "cysts in the left kidney": set(),
    "renal cyst": set(),
    "hepatic vein": set(),
    "liver metastases": set(),
    "stent in the aorta": set(),
    "aortic aneurysm": set(),
    "pancreatic duct": set(),
    "gallbladder wall": set(),
    "kidney transplant": set(),
    "hepatomegaly": set(),
    "nephrolithiasis": set(),
    "left lobe of the liver": set(),
    "upper pole of the right kidney": set(),
    "fat around the liver": set(),
    "the organ behind the stomach": set(),
    "segment VIII of the liver": set(),
    "liver segments": set(),
    "artery to the left kidney": set(),
    "metastases in liver and lung": set(),
    "transplanted kidney": set(),
    "infected pacemaker": set(),
    "lung-ta prayer flag": set(),
    # what no structure stands for
    "heart": set(),
    "urinary bladder": set(),
    "left lung": set(),
    # reports
    "bilateral pulmonary infection, two infected areas, all left lung and all right lung.": {INFECTION},
    "covid in the lower right lung": {INFECTION},
    "pneumonic consolidation right lower lobe, no consolidation on the left": {INFECTION},
    "no consolidation on the left": set(),
    "no change in the right lower zone consolidation": {INFECTION},
    "pneumonia cannot be excluded": {INFECTION},
    "no opacity on the left, but on the right": {INFECTION},
    "infiltrates are not identified": set(),
    "the pneumonia has cleared": set(),
    "consolidation: none": set(),
    "The lungs are clear. No infiltrate.": set(),
    "nuclei": {"nucleus"},
    "The nuclei density in the right is high.": {"nucleus"},
    "nuclei of the liver": {"nucleus"},
}
EVERYTHING_BUT: dict[str, set[str]] = {
    "everything": set(),
    "all organs": set(),
    "all but the aorta": {"aorta"},
    "everything except liver and spleen": {"liver", "spleen"},
    "everything but the liver, the spleen and the aorta": {"liver", "spleen", "aorta"},
    "everything except the left kidney": {LEFT},
    "all organs apart from the kidneys": {LEFT, RIGHT},
    "segment everything you can see, but leave out the stomach": {"stomach"},
    "don't segment the liver": {"liver"},
    "every visible abdominal organ": set(),
    "all - liver - spleen": {"liver", "spleen"},
    "all organs less the aorta": {"aorta"},
    "save the liver, everything": {"liver"},
    "every other organ than the spleen": {"spleen"},
    "leave the liver, spleen and aorta out, otherwise everything": {"liver", "spleen", "aorta"},
    "everything but the kitchen sink": set(),
    "do not segment the liver": {"liver"},
}
UNKNOWN = [
    "bicycle",
    "what is the weather",
    "river",
    "Leber",
    "long live the king",
    "pancakes",
    "inflation forecast",
]
AFFIRMED = {
    "there are 2 areas of infection: apex of the left lung, base of the right lung": (
        "there are 2 areas of infection: apex of the left lung, base of the right lung"
    ),
    "findings: no finding in the brain": "",
    "impression: pancreas without abnormality": "impression: pancreas",
    "Consolidation in the right lower lobe. Left lung is clear.": "Consolidation in the right lower lobe",
    "RLL opacity, LUL clear": "right lower lobe opacity",
    "Bibasilar opacities": "bilateral basal opacities",
    "The right lung shows no opacity; consolidation on the left": "consolidation on the left",
    "Left lung: upper zone clear, lower zone opacity": "Left lung: lower zone opacity",
    "opacity in the right mid zone, effusion on the left": "opacity in the right mid zone",
    "No opacity on the left, but in the right lower zone": "pulmonary infection, lower right lung",
    "Infection of the left but not the right lung": "Infection of the left",
    "no infection, no effusion": "",
    "bilateral pulmonary infection, upper left lung.": "bilateral pulmonary infection, upper left lung.",
}


def read(prompt: str) -> Request:
    return request_reader(shipped_structures())(prompt)


def names(request: Request, structures: Structures) -> set[str]:
    return {structures[value - 1].name for value in request.values(structures)}


@pytest.mark.parametrize("prompt", NAMED)
def test_a_prompt_asks_for_what_it_names(prompt: str) -> None:
    request = read(prompt)

    assert request.decided
    assert names(request, shipped_structures()) == NAMED[prompt]


@pytest.mark.parametrize("prompt", EVERYTHING_BUT)
def test_everything_less_what_is_taken_out(prompt: str) -> None:
    structures = shipped_structures()
    request = read(prompt)

    assert names(request, structures) == {one.name for one in structures} - EVERYTHING_BUT[prompt]


@pytest.mark.parametrize("prompt", UNKNOWN)
def test_words_that_name_nothing_are_left_to_the_network(prompt: str) -> None:
    assert not read(prompt).decided


@pytest.mark.parametrize("prompt", AFFIRMED)
def test_what_a_report_denies_does_not_guide(prompt: str) -> None:
    assert read(prompt).affirmed == AFFIRMED[prompt]


def test_drawn_sentences_about_infections_guide_as_a_whole() -> None:
    generator = SentenceGenerator(7)
    meanings = [generator.infection() for _ in range(1500)]
    texts = [generator.say(one) for one in meanings if one.left or one.right]
    assert [text for text in texts if read(text).affirmed != text] == []


def test_what_was_not_understood_is_quoted_as_written() -> None:
    assert read("Liver, Blorb and kidney stones").not_understood == ("Blorb", "kidney stones")
    assert read("the spleeen").read_as == {"spleeen": "spleen"}
    assert "pancreas" in request_reader(shipped_structures()).suggestions("pankreas")


@pytest.mark.parametrize(
    "words", ["liver", "please", "zxqvy", "left", "no consolidation on the left,", "all less"]
)
def test_a_prompt_of_many_words_is_read_in_a_time_that_grows_with_them(words: str) -> None:
    def seconds(times: int) -> float:
        prompts = [" " * blank + f"{words} " * times for blank in range(3)]  # each is new to the reader
        took = []
        for prompt in prompts:
            started = time.process_time()
            read(prompt)
            took.append(time.process_time() - started)
        return min(took)

    gc.disable()  # what it frees may be anyone's
    try:
        seconds(100)
        assert seconds(16000) < 8 * max(seconds(4000), 0.02)  # 16 times where each word looks at all others
    finally:
        gc.enable()


def test_of_many_words_that_are_not_known_the_first_are_shown() -> None:
    structures = shipped_structures()
    prompt = "liver, " + ", ".join(f"zxq{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}v" for n in range(600))
    reading = PromptReading(prompt, channels=(5,), not_understood=read(prompt).not_understood)
    started = time.process_time()
    [warning] = [one for one in prompt_warnings(reading, structures, "CT") if "Not understood" in one]
    assert time.process_time() - started < 2
    assert warning.endswith("and 580 more.") and "'zxqaav'" in warning


def test_long_words_cost_no_more_than_short_ones() -> None:
    started = time.process_time()
    read("x" * 1_000_000 + " " + "aB" * 200_000)
    assert time.process_time() - started < 2


def test_structures_of_ones_own_are_named_too() -> None:
    own = Structures([{"name": "left femur", "modality": "CT"}, {"name": "stone", "modality": "CT"}])
    reader = request_reader(own)

    assert reader("the left femur").values(own) == (1,)
    assert reader("stone").values(own) == (2,)


def test_half_of_a_structure_is_told_from_nothing() -> None:
    structures = shipped_structures()

    assert read("left lung").halves(structures) == {"lung": {"left lung"}}
    assert read("both lungs").halves(structures) == {} == read("left kidney").halves(structures)
