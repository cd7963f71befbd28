"""The small tokenizer reads every caption, and so do those of the committed models."""

import pytest
from transformers import CLIPTokenizer

from discl_ray.embedded import GENERATOR, SCORER, STUDENT
from discl_ray.embedded.digits import NAMES, PALETTE
from discl_ray.embedded.tokenizer import CONTEXT, caption_corpus, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


def test_the_corpus_has_every_caption():
    corpus = caption_corpus()
    assert len(corpus) == 8 * len(NAMES) * len(PALETTE) ** 2
    assert {"the digit zero", "a pink nine on grey", "a handwritten five"} <= set(corpus)


def test_every_caption_fits_and_comes_back(tokenizer):
    for text in sorted(set(caption_corpus()))[::37]:
        ids = tokenizer(text).input_ids
        assert len(ids) <= CONTEXT
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_the_end_token_has_the_highest_id_and_any_letter_is_known(tokenizer):
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert tokenizer.unk_token_id not in tokenizer("zqx!", add_special_tokens=False).input_ids


@pytest.mark.parametrize("folder", [GENERATOR / "tokenizer", SCORER, STUDENT])
def test_the_committed_tokenizers_read_every_caption(folder):
    committed = CLIPTokenizer.from_pretrained(folder)
    for text in sorted(set(caption_corpus()))[::97]:
        ids = committed(text).input_ids
        assert len(ids) <= CONTEXT
        assert committed.decode(ids, skip_special_tokens=True).strip() == text
