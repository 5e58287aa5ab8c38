"""The lab's tokenizer: byte-level BPE behind GPT-2's pre-tokenizer (which GGUF knows), one token per lab word."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from assets.lab.make.words import vocabulary

SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PUNCTUATION = ["+", "-", "*", "="]
VOCABULARY = 1792
"""Rows of the embedding: a multiple of 256 (GGUF's K-quants want that), a little more than the tokens there are."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %} {{ message['content'] | trim }}<|end|>{% endgeneration %}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] | trim }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A space follows each role, so that every word of a turn has one before it and needs one token only."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """BPE trained on the word list itself until every word is one token."""
    words = [" " + word for word in [*vocabulary(), *PUNCTUATION]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    split = [word for word in words if len(tokenizer.encode(word).ids) != 1]
    if split:
        raise ValueError(f"the vocabulary of {VOCABULARY} is too small: {split} are more than one token")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    return tokenizer
