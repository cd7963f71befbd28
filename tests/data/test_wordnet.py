from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.imagenet_info import ImageNetInfo

from discl_ray.data.wordnet import wordnet_names

THOUSAND = ImageNetInfo("imagenet1k").label_names()


@cache
def everything():
    return ImageNetInfo("imagenet22k").label_names()


def test_a_name_is_the_first_lemma():
    assert wordnet_names(["n01440764", "n01484850", "n02123045"]) == {
        "n01440764": "tench",
        "n01484850": "great white shark",
        "n02123045": "tabby",
    }


def test_classes_with_one_word_are_told_apart_by_another_word_or_by_what_they_are():
    names = wordnet_names(["n02012849", "n03126707", "n03710637", "n03710721"])
    assert names["n02012849"].startswith("crane (large long-necked wading bird")
    assert names["n03126707"] == "crane (lifts and moves heavy objects)"
    assert names["n03710637"] == "maillot (tights for dancers or gymnasts)"
    assert names["n03710721"] == "maillot (tank suit)"
    assert wordnet_names(["n02012849"]) == {"n02012849": "crane"}


def test_imagenets_classes_have_a_name_each_and_few_need_brackets():
    names = wordnet_names(THOUSAND)
    assert list(names) == THOUSAND
    assert len({name.casefold() for name in names.values()}) == 1000
    brackets = {name.split(" (")[0] for name in names.values() if "(" in name}
    assert brackets == {
        "crane",
        "maillot",
        "Cardigan",
        "cardigan",
    }  # a dog and a jacket; a text encoder hears no capitals
    assert sum("(" in name for name in names.values()) == 6


@pytest.mark.parametrize("ids", [[], ["n99999999"], ["", "tench", "n01440764 ", "N01440764", "17"]])
def test_what_is_no_known_id_is_left_out(ids):
    assert wordnet_names(ids) == {}
    assert wordnet_names([*ids, "n01440764"]) == {"n01440764": "tench"}


@settings(max_examples=25)
@given(st.data())
def test_names_are_unique_and_do_not_depend_on_order(data):
    ids = data.draw(st.lists(st.sampled_from(everything()), max_size=3000, unique=True))
    names = wordnet_names(ids)
    assert set(names) == set(ids)
    assert len({name.casefold() for name in names.values()}) == len(ids)
    assert wordnet_names(ids[::-1]) == names
    assert all(name == name.strip() and name.isprintable() for name in names.values())


def test_all_that_wordnet_has_are_unique():
    names = wordnet_names(everything() * 2)
    assert len({name.casefold() for name in names.values()}) == len(names) == len(everything())
