"""The forms a run can be taken home in, as data: what each is for, how it may be stored, what loads it."""

from __future__ import annotations

from dataclasses import dataclass

GGUF_TYPES = ("f16", "bf16", "q8_0", "q4_0")
K_QUANTS = ("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k")
MLX_TYPES = ("bf16", "8bit", "4bit")


@dataclass(frozen=True)
class Form:
    name: str
    purpose: str
    types: tuple[str, ...] = ()
    """How weights may be stored, the default first."""
    next: str = ""
    """The command that uses it; ``{path}``, ``{base}`` and ``{name}`` are filled in."""
    vectors: bool = False
    """Whether steering vectors are in it."""
    weights: bool = True
    """Whether it holds the whole model, not something to put on the base."""
    mlx: bool = False


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "adapter",
            "megabytes to put on the base, for transformers, vLLM and other programs that read PEFT adapters",
            next="python -c \"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('{path}')\"",
            weights=False,
        ),
        Form(
            "merged",
            "the whole model in 16 bit, for transformers, vLLM, and what converts from there",
            next="python -c \"from transformers import pipeline; print(pipeline('text-generation', '{path}')('Hello'))\"",
        ),
        Form(
            "gguf",
            "one file for llama.cpp, LM Studio, Jan and koboldcpp",
            types=(*GGUF_TYPES, *K_QUANTS),
            next="llama-cli -m {path}/model.gguf",
        ),
        Form(
            "ollama",
            "a GGUF file with the Modelfile that tells Ollama the template, the stops and the sampling",
            types=("q8_0", "f16", "bf16", "q4_0", *K_QUANTS),
            next="ollama create {name} -f {path}/Modelfile && ollama run {name}",
        ),
        Form(
            "mlx",
            "the whole model for mlx-lm on a Mac, 16 bit or quantized",
            types=MLX_TYPES,
            next="mlx_lm.chat --model {path}",
            mlx=True,
        ),
        Form(
            "mlx-adapter",
            "megabytes to put on the base, in mlx-lm's form",
            next="mlx_lm.chat --model {base} --adapter-path {path}",
            weights=False,
            mlx=True,
        ),
        Form(
            "control-vector",
            "steering vectors alone, for llama.cpp beside a GGUF of the same base",
            next="llama-cli -m MODEL.gguf --control-vector-scaled {path}/vectors.gguf:1.0",
            vectors=True,
            weights=False,
        ),
        Form(
            "steered",
            "the merged model with its steering vectors and a short loader with a dial for each",
            next='cd {path} && python -i -c "from load import load; model, tokenizer, dials = load()"',
            vectors=True,
        ),
        Form(
            "hub",
            "an upload of one of the others to the Hugging Face hub, with its model card (only when you ask)",
            weights=False,
        ),
    )
}
