"""This model with its steering vectors. In Python:

    from load import load
    model, tokenizer, dials = load()
    dials["warm"] = 0.5        # of what was calibrated; 0 is off

Generate as with any transformers model (one prompt at a time, or a batch padded on the left).
"""

import json
import os

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder=None, **options):
    folder = folder or os.path.dirname(os.path.abspath(__file__))
    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    vectors, facts = load_file(f"{folder}/vectors.safetensors"), json.load(open(f"{folder}/vectors.json"))
    dials, held, step = {fact["name"]: fact["strength"] for fact in facts}, {}, [0]
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == facts[0]["layers"])

    def count(_layer, inputs):  # more than one position at once is a prompt: a new completion begins
        step[0] = 0 if inputs[0].shape[1] > 1 else step[0] + 1

    def look(fact):  # the vector acts only where the prompt's last token points along its condition
        def after(_layer, _inputs, output):
            if step[0] == 0:
                last = (output[0] if isinstance(output, tuple) else output)[:, -1].float()
                score = last @ vectors[fact["name"] + ".condition"].to(last)
                held[fact["name"]] = (score > fact["condition"]["threshold"]).unsqueeze(1)

        return after

    def add(fact):  # to the last position: it predicts the next token, and what the cache holds of the prompt stays
        def after(_layer, _inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            if dials[fact["name"]] and (fact["window"] is None or step[0] < fact["window"]):
                added = dials[fact["name"]] * fact["calibrated"] * vectors[fact["name"]].to(hidden.device)
                where = held[fact["name"]] if fact.get("condition") else 1
                hidden[:, -1] += (where * added).to(hidden.dtype)

        return after

    layers[0].register_forward_pre_hook(count)
    for fact in (fact for fact in facts if fact.get("condition")):
        layers[fact["condition"]["layer"]].register_forward_hook(look(fact))
    for fact in facts:
        layers[fact["layer"]].register_forward_hook(add(fact))
    return model, AutoTokenizer.from_pretrained(folder), dials
