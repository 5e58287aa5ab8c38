"""Tiny random models of the families, with the kind of tokenizer that each has, and a run that tuned one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from engine.export.gguf_vocabulary import LLAMA3, TEKKEN
from engine.models.lineage import Adapter, Base, Lineage, hash_files, write_lineage
from engine.runs.directory import RunDirectory, runs_folder
from engine.runs.events import RunEvent, StageEvent
from engine.runs.log import EventLog

TEXTS = ["How do you do?", "Be brief and warm, 12 + 345 = 357.", "One, two, three: the lamp is in the harbor."] * 4
SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "head_dim": 16,
}  # fmt: skip
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
INST = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
TURNS = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set loop_messages = messages[1:] %}{% else %}{% set first = '' %}{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
HEADERS = "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"

FAMILIES: dict[str, tuple[str, dict, str, list[str], str, str]] = {
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, LLAMA3.replace("{1,3}", ""), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML),
    "qwen3": ("qwen3", {"tie_word_embeddings": False}, LLAMA3.replace("{1,3}", ""), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML),
    "llama3": ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
               LLAMA3, ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>", HEADERS),
    "mistral": ("mistral", {"tie_word_embeddings": False, "sliding_window": None}, "", ["<s>", "</s>"], "</s>", INST),
    "nemo": ("mistral", {"tie_word_embeddings": False, "sliding_window": None}, TEKKEN, ["<s>", "</s>"], "</s>", INST),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 16, "sliding_window": 32}, "", ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>", TURNS),
    "gemma3": ("gemma3_text", {"query_pre_attn_scalar": 16, "sliding_window": 32, "num_hidden_layers": 6}, "", ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>", TURNS),
}  # fmt: skip
"""Name -> (model_type, settings, splitting pattern or "" for SentencePiece, special tokens, end of turn, template)."""


def make_base(name: str, folder: Path) -> Path:
    kind, settings, pattern, special, end, template = FAMILIES[name]
    folder.mkdir(parents=True)
    tokenizer = _byte_level(pattern, special) if pattern else _sentencepiece(special, spaced=kind == "mistral")
    tokenizer.save(str(folder / "tokenizer.json"))
    bos = special[0] if special[0] in ("<s>", "<bos>", "<|begin_of_text|>") else None
    told = {
        "tokenizer_class": "TokenizersBackend",
        "eos_token": end,
        "pad_token": special[0],
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, **({"bos_token": bos} if bos else {})}))
    ends = tokenizer.token_to_id(end)
    config = AutoConfig.for_model(
        kind,
        **{**SMALL, "vocab_size": tokenizer.get_vocab_size() + 5, "eos_token_id": ends, "pad_token_id": 0, **settings},
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:  # away from the values that a wrong convention would leave alone
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter_name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(3)
    model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    return folder


def _byte_level(pattern: str, special: list[str]) -> Tokenizer:
    from tokenizers import Regex

    tokenizer = Tokenizer(models.BPE())
    steps = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _sentencepiece(special: list[str], spaced: bool) -> Tokenizer:
    """BPE with bytes to fall back on and ▁ for spaces, as tokenizers converted from SentencePiece are."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if spaced else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", *special, *bytes_])
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in TEXTS], trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [added for added in data["added_tokens"] if not added["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    bos = special[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def tuned_run(name: str, base: Path, home: Path) -> RunDirectory:
    """A finished run of one stage with an adapter that does something: its files as a stage writes them."""
    run = RunDirectory(runs_folder() / f"{name}-1")
    output = run.path / "stages" / "01-sft" / "output"
    output.mkdir(parents=True)
    run.logs.mkdir()
    torch.manual_seed(2)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(output / "adapter")
    found = Base(str(base), str(base), None, hash_files(base))
    adapter = Adapter("stages/01-sft/output/adapter", hash_files(output / "adapter")["adapter_model.safetensors"])
    write_lineage(output / "lineage.json", Lineage(found, adapter))
    run.model.write_text(json.dumps(asdict(found)))
    run.recipe.write_text(
        f"name: {name}\nmodel: {base}\nstages:\n  - method: sft\n    data: {{source: lab/domain.jsonl}}\n    steps: 1\n"
    )
    run.suite.parent.mkdir()
    run.suite.write_text("".join(json.dumps({"task": "t", "prompt": text}) + "\n" for text in TEXTS[:3]))
    log = EventLog(run.events)
    log.append(
        RunEvent(state="created", detail={"name": name, "model": str(base), "stages": [{"method": "sft", "steps": 1}]})
    )
    log.append(StageEvent(stage=0, state="started", method="sft", steps_total=1))
    log.append(StageEvent(stage=0, state="done", method="sft", steps_total=1, passed=True))
    log.append(RunEvent(state="done", code=0))
    log.close()
    return run
