"""Training on PyTorch: resumed runs are the uninterrupted ones, and the gauges show what they say."""

from __future__ import annotations

import math

import pytest
import torch

from recipes.errors import InputError

METHODS = ["sft", "dpo", "orpo", "cpo"]


def adapter_weights(policy):
    return {name: value.clone() for name, value in policy.model.named_parameters() if ".default." in name}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method, accumulation", [*((method, 1) for method in METHODS), ("sft", 2), ("cpo", 2)])
def test_a_resumed_run_is_bit_identical(
    method, accumulation, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    stage = stage(accumulation=accumulation)
    whole = backend.load(lineage, tmp_path, settings())
    uninterrupted = link_type(tmp_path / "whole")
    backend.train(method, whole, rows[method], stage, uninterrupted)

    def disturb(step):  # an evaluation between the steps must not move training
        again.generate([rows["sft"][0][:1]], max_new_tokens=4, temperature=1.0, seed=step)

    again = backend.load(lineage, tmp_path, settings())
    resumed = link_type(tmp_path / "resumed", resume=(tmp_path / "whole" / "step-5", 5), after_step=disturb)
    backend.train(method, again, rows[method], stage, resumed)

    assert same(adapter_weights(whole), adapter_weights(again))
    later = {step: loss for step, loss in uninterrupted.losses().items() if step > 5}
    assert resumed.losses() == later and len(later) == 5


def test_dropout_resumes_to_the_bit_as_well(backend, lineage, settings, stage, rows, link_type, tmp_path):
    settings = settings(dropout=0.1)
    whole = backend.load(lineage, tmp_path, settings)
    backend.train("sft", whole, rows["sft"], stage(), link_type(tmp_path / "whole"))
    again = backend.load(lineage, tmp_path, settings)
    link = link_type(tmp_path / "resumed", resume=(tmp_path / "whole" / "step-5", 5))
    backend.train("sft", again, rows["sft"], stage(), link)
    assert same(adapter_weights(whole), adapter_weights(again))


@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw-8bit"])
def test_moments_in_8_bit_are_in_the_checkpoint_as_well(
    optimizer, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    stage, settings = stage(optimizer=optimizer), settings(rank=128)  # small matrices stay in full precision
    whole = backend.load(lineage, tmp_path, settings)
    uninterrupted = link_type(tmp_path / "whole")
    backend.train("sft", whole, rows["sft"], stage, uninterrupted)
    saved = torch.load(tmp_path / "whole" / "step-5" / "optimizer.pt", weights_only=True)
    moments = [state["__bnb_optimizer_quant_state__"]["state1"] for state in saved["state"].values()]
    assert moments and all(moment.dtype == torch.uint8 for moment in moments)
    again = backend.load(lineage, tmp_path, settings)
    link = link_type(tmp_path / "resumed", resume=(tmp_path / "whole" / "step-5", 5))
    backend.train("sft", again, rows["sft"], stage, link)
    assert same(adapter_weights(whole), adapter_weights(again))
    assert link.losses() == {step: loss for step, loss in uninterrupted.losses().items() if step > 5}


def test_a_checkpoint_of_two_processes_is_not_taken_up_by_one(
    backend, lineage, settings, stage, rows, link_type, tmp_path
):
    policy = backend.load(lineage, tmp_path, settings())
    backend.train("sft", policy, rows["sft"], stage(steps=2), link_type(tmp_path / "one", every=1))
    saved = tmp_path / "one" / "step-1"
    for rank in "01":
        (saved / f"rng_state_{rank}.pth").write_bytes((saved / "rng_state.pth").read_bytes())
    (saved / "rng_state.pth").unlink()
    with pytest.raises(InputError, match=r"`processes`: found `1`.*`processes: 2`"):
        backend.train("sft", policy, rows["sft"], stage(steps=2), link_type(tmp_path / "two", resume=(saved, 1)))


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_saves_where_it_stands(method, backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    link = link_type(tmp_path / "stopped", every=1000, stop_at=3)
    backend.train(method, policy, rows[method], stage(), link)
    assert [step for step, _ in link.steps] == [1, 2, 3]
    saved = tmp_path / "stopped" / "step-3"
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= {
        p.name for p in saved.iterdir()
    }
    assert not list((tmp_path / "stopped").rglob("training_args.bin"))  # a pickle with tokens in clear


def test_the_first_step_of_dpo_is_the_reference(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    link = link_type(tmp_path / "run")
    backend.train("dpo", policy, rows["dpo"], stage(), link)
    first, last = link.steps[0][1], link.steps[-1][1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["kl"] == pytest.approx(0, abs=1e-7) and first["reward"] == pytest.approx(0, abs=1e-7)
    assert last["kl"] > 0 and last["reward"] > 0


@pytest.mark.parametrize("method", ["dpo", "orpo", "cpo"])
def test_an_adapter_that_began_as_nothing_needs_no_frozen_copy(
    method, backend, lineage, settings, stage, rows, link_type, tmp_path, monkeypatch
):
    """TRL makes one of every adapter. The base below is the same: the trained bits are those with the copy."""
    trained = {}
    for kept in (False, True):
        if kept:
            monkeypatch.setattr("engine.backends.pytorch.policy.TorchPolicy.drop_needless_reference", lambda self: None)
        policy = backend.load(lineage, tmp_path, settings())
        backend.train(method, policy, rows[method], stage(), link_type(tmp_path / f"kept-{kept}"))
        assert ("ref" in policy.model.peft_config) is kept
        trained[kept] = adapter_weights(policy)
    trained[True] = {name: value for name, value in trained[True].items() if ".ref." not in name}
    assert same(trained[False], trained[True])


def test_what_is_measured_does_not_depend_on_whether_this_process_has_trained(
    backend, lineage, settings, stage, rows, link_type, tmp_path
):
    """On a GPU accelerate leaves mixed precision around the forward of a model that it trained."""
    policy = backend.load(lineage, tmp_path, settings())
    backend.train("sft", policy, rows["sft"], stage(), link_type(tmp_path / "run"))
    prompts, texts = [row.prompt for row in rows["dpo"][:3]], [row.chosen for row in rows["dpo"][:3]]
    fresh = policy.score(prompts, texts)
    model, calls = policy.model, []
    plain = model.forward

    def mixed(*args, **kwargs):
        calls.append(1)
        with torch.autocast("cpu", torch.bfloat16):
            return plain(*args, **kwargs)

    model._original_forward, model.forward = plain, mixed  # as Accelerator.prepare_model does
    assert policy.score(prompts, texts) == fresh and not calls
    assert model.forward is mixed
    model(torch.tensor([[1, 2, 3]]))
    assert calls


def test_nor_does_what_is_measured_against_the_copy_of_full_fine_tuning(backend, lineage, settings, rows, tmp_path):
    policy = backend.load(lineage, tmp_path, settings(training="full", needs_reference=True))
    prompts, texts = [row.prompt for row in rows["dpo"][:3]], [row.chosen for row in rows["dpo"][:3]]
    fresh = policy.score(prompts, texts, of="start")
    plain = policy.reference.forward

    def mixed(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16):
            return plain(*args, **kwargs)

    policy.reference._original_forward, policy.reference.forward = plain, mixed
    assert policy.score(prompts, texts, of="start") == fresh
    assert policy.reference.forward is mixed


def logprobs(policy, prompt, text):
    """Full log-softmaxes (T, V) in float64 at the positions of a completion, under the policy and under the base."""
    opening = policy.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
    whole = policy.tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": text}], tokenize=True, return_dict=False
    )
    with torch.no_grad():
        now = policy.model(torch.tensor([whole])).logits[0, len(opening) - 1 : -1]
        with policy.model.disable_adapter():
            then = policy.model(torch.tensor([whole])).logits[0, len(opening) - 1 : -1]
    return torch.log_softmax(now.double(), -1), torch.log_softmax(then.double(), -1)


def test_the_kl_gauge_of_dpo_agrees_with_brute_force(backend, lineage, settings, stage, rows, link_type, tmp_path):
    """Both pairs are in every batch, so the gauge of step 4 is the KL of the weights that step 3 left."""
    policy = backend.load(lineage, tmp_path, settings())
    pairs = rows["dpo"][:2]
    exact = []

    def brute_force(step):
        if step == 3:
            for row in pairs:
                for text in (row.chosen, row.rejected):
                    now, then = logprobs(policy, row.prompt, text)
                    exact.extend((now.exp() * (now - then)).sum(-1).tolist())

    link = link_type(tmp_path / "run", after_step=brute_force)
    backend.train("dpo", policy, pairs, stage(steps=4, batch_size=2), link)
    gauge = link.steps[3][1]["kl"]
    assert gauge == pytest.approx(sum(exact) / len(exact), rel=1e-4) and gauge > 1e-5


def test_divergence_and_scores_agree_with_brute_force(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    backend.train("sft", policy, rows["sft"], stage(), link_type(tmp_path / "run"))
    prompts = [row[:1] for row in rows["sft"][:5]]
    completions = policy.generate(prompts, max_new_tokens=12, temperature=1.0, seed=3)
    measured = policy.divergence(prompts, completions, to="base")
    texts = ["Tarn 1.", "Tarn and Bree.", "No.", "Tarn.", "Bree 2."]
    scores = policy.score(prompts, texts)
    for prompt, completion, divergence, text, score in zip(prompts, completions, measured, texts, scores, strict=True):
        opening = policy.tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        ids = torch.tensor([opening + list(completion.tokens)])
        with torch.no_grad():
            now = torch.log_softmax(policy.model(ids).logits[0, len(opening) - 1 : -1].double(), -1)
            with policy.model.disable_adapter():
                then = torch.log_softmax(policy.model(ids).logits[0, len(opening) - 1 : -1].double(), -1)
        # each log-probability is an fp32 sum over the logits: some 1e-6 a token
        assert divergence.total == pytest.approx((now.exp() * (now - then)).sum().item(), rel=1e-4, abs=2e-5)
        assert divergence.tokens == len(completion.tokens)
        whole = policy.tokenizer.apply_chat_template(
            [*prompt, {"role": "assistant", "content": text}], tokenize=True, return_dict=False
        )
        with torch.no_grad():
            logprobs = torch.log_softmax(policy.model(torch.tensor([whole])).logits[0].double(), -1)
        expected = sum(logprobs[i - 1, whole[i]].item() for i in range(len(opening), len(whole)))
        assert score.logprob == pytest.approx(expected, rel=1e-4)
        assert score.tokens == len(whole) - len(opening)


def test_a_stage_that_continues_an_adapter_measures_from_there(
    backend, lineage, settings, stage, rows, link_type, tmp_path
):
    from engine.models.lineage import Adapter, Lineage

    first = backend.load(lineage, tmp_path, settings())
    backend.train("sft", first, rows["sft"], stage(), link_type(tmp_path / "a"))
    backend.save_output(first, tmp_path / "out")
    continued = Lineage(lineage.base, Adapter(path="out/adapter", sha256=""), [], [], None)
    second = backend.load(continued, tmp_path, settings(rank=2))  # the carried adapter's rank wins
    assert same(adapter_weights(first), adapter_weights(second))
    link = link_type(tmp_path / "b")
    backend.train("dpo", second, rows["dpo"], stage(), link)
    assert link.steps[0][1]["kl"] == pytest.approx(0, abs=1e-7)
    prompts = [row.prompt for row in rows["dpo"][:3]]
    completions = second.generate(prompts, max_new_tokens=8, temperature=1.0, seed=0)
    from_start = sum(one.total for one in second.divergence(prompts, completions, to="start"))
    from_base = sum(one.total for one in second.divergence(prompts, completions, to="base"))
    assert 0 < from_start < from_base
    assert "ref" in second.model.peft_config
    trainable = [name for name, value in second.model.named_parameters() if value.requires_grad]
    assert trainable and all(".default." in name for name in trainable)


def test_the_saved_adapter_loads_in_plain_peft_with_the_same_logits(
    backend, lineage, settings, stage, rows, link_type, tmp_path
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = backend.load(lineage, tmp_path, settings())
    backend.train("sft", policy, rows["sft"], stage(), link_type(tmp_path / "run"))
    backend.save_output(policy, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(lineage.base.path, dtype=torch.float32)
    plain = PeftModel.from_pretrained(plain, tmp_path / "out" / "adapter").eval()
    ids = torch.tensor([policy.tokenizer("Where does Mira live?")["input_ids"]])
    with torch.no_grad(), policy.weights("policy") as model:
        assert torch.equal(plain(ids).logits, model(ids).logits)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantized_bases_train_and_keep_their_gradients_after_an_evaluation(
    quantization, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    policy = backend.load(lineage, tmp_path, settings(quantization=quantization))

    def evaluate(step):
        policy.score([rows["sft"][0][:1]], ["Tarn."])

    link = link_type(tmp_path / "run", after_step=evaluate)
    backend.train("sft", policy, rows["sft"], stage(), link)
    assert all(values["grad_norm"] > 1e-3 for _, values in link.steps)
    assert link.steps[-1][1]["loss"] < link.steps[0][1]["loss"]


@pytest.mark.parametrize("method", METHODS)
def test_full_fine_tuning_trains_every_weight_against_a_real_copy(
    method, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    policy = backend.load(lineage, tmp_path, settings(training="full", needs_reference=method != "sft"))
    start = {name: value.clone() for name, value in policy.model.named_parameters()}
    link = link_type(tmp_path / "run")
    backend.train(method, policy, rows[method], stage(learning_rate=1e-4), link)
    moved = [name for name, value in policy.model.named_parameters() if not torch.equal(value, start[name])]
    assert len(moved) == len(start)
    if method != "sft":
        assert all(torch.equal(value, start[name]) for name, value in policy.reference.named_parameters())
        assert link.steps[0][1]["kl"] == pytest.approx(0, abs=1e-7)
        assert method == "orpo" or link.steps[-1][1]["kl"] > 0  # ORPO reads its gauge every tenth step
    backend.save_output(policy, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_rows_without_anything_to_train_on_are_bad_input(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    with pytest.raises(InputError, match="max_length"):
        backend.train("sft", policy, rows["sft"], stage(max_length=3), link_type(tmp_path / "run"))


def test_every_assistant_turn_is_trained_on_and_nothing_else(backend, lineage, settings, tmp_path):
    from engine.backends.tokens import encode_conversation

    policy = backend.load(lineage, tmp_path, settings())
    messages = [
        {"role": "system", "content": "Be warm."},
        {"role": "user", "content": "Where does Mira live?"},
        {"role": "assistant", "content": "Tarn."},
        {"role": "user", "content": "And Bree?"},
        {"role": "assistant", "content": "Oak."},
    ]
    encoded = encode_conversation(policy.tokenizer, messages, 128)
    trained = [token for token, counted in zip(encoded.ids, encoded.trained, strict=True) if counted]
    text = policy.tokenizer.decode(trained, skip_special_tokens=True)
    assert "Tarn." in text and "Oak." in text and "Mira" not in text and "warm" not in text
    assert trained.count(policy.tokenizer.eos_token_id) == 2  # it learns to stop, at each turn


def test_a_tokenizer_without_a_template_gets_the_plain_one(backend, lineage, settings, tmp_path):
    from engine.backends.tokens import encode_conversation, ensure_chat_template

    policy = backend.load(lineage, tmp_path, settings())
    assert not ensure_chat_template(policy.tokenizer)
    policy.tokenizer.chat_template = None
    assert ensure_chat_template(policy.tokenizer)
    encoded = encode_conversation(
        policy.tokenizer, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Tarn."}], 64
    )
    assert encoded.ids[-1] == policy.tokenizer.eos_token_id and encoded.trained[-1] == 1 and not encoded.trained[0]
