"""From conversations to token ids: the chat template, and which tokens are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.backends.interface import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
)
"""For base models that come without a template: turns separated by a blank line, assistant turns closed by EOS."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and for each whether the loss counts it (1) or not (0)."""

    ids: list[int]
    trained: list[int]
    truncated: bool


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give a tokenizer without a chat template the plain one. Returns True if it had to."""
    if tokenizer.chat_template:
        return False
    tokenizer.chat_template = PLAIN_TEMPLATE
    return True


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Conversation) -> list[int]:
    """Ids of a conversation that ends before the assistant's turn, the turn's opening included."""
    return _template(tokenizer, prompt, add_generation_prompt=True)


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Conversation, completion: str
) -> tuple[list[int], list[int]]:
    """``(prompt ids, completion ids)``; the completion ends with the template's end of turn."""
    prompt_ids = encode_prompt(tokenizer, prompt)
    whole = _template(tokenizer, [*prompt, {"role": "assistant", "content": completion}])
    start = common_prefix(prompt_ids, whole)
    return whole[:start], whole[start:]


def encode_conversation(tokenizer: PreTrainedTokenizerBase, messages: Conversation, max_length: int) -> Encoded:
    """Ids of a whole conversation with every assistant turn trained on, its end-of-turn token included.

    Each turn's span is found by rendering the conversation up to it with and without the turn, which works for any
    template; where a template rewrites earlier turns the span is the part that survives in the whole rendering.
    """
    whole = _template(tokenizer, messages)
    trained = [0] * len(whole)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        opening = _template(tokenizer, messages[:index], add_generation_prompt=True)
        closed = _template(tokenizer, messages[: index + 1])
        start = common_prefix(opening, whole)
        for position in range(start, common_prefix(closed, whole)):
            trained[position] = 1
    return Encoded(whole[:max_length], trained[:max_length], truncated=len(whole) > max_length)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading ids that both have."""
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return min(len(first), len(second))


def _template(
    tokenizer: PreTrainedTokenizerBase, messages: Conversation, add_generation_prompt: bool = False
) -> list[int]:
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
    )
