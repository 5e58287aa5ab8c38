"""The recipe as typed data: strict, nothing extra, with defaults that are good without being looked up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Method = str
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Strict):
    """Where a stage's rows come from. The format is detected; ``columns`` overrides."""

    source: str
    heldout: str | None = None
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of ``source`` that is kept out of training when ``heldout`` names no file."""
    columns: dict[str, str] | None = None
    limit: Count | None = None


class Adapter(Strict):
    """The LoRA adapter that is carried through all training stages; the first one decides."""

    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear", "attention"] | list[str] = "all-linear"


class Evaluation(Strict):
    every: Count | None = None
    """Steps between two full evaluations while training; none but before and after when left out."""
    loss_every: Count | None = None
    """Steps between two points of the held-out loss; an eighth of the stage when left out."""
    samples: Annotated[int, Field(ge=0)] = 3
    """Fixed held-out prompts whose generations are shown at every evaluation."""
    prompts: Count = 256
    """Completions sampled for the KL and the preferred share."""
    max_new_tokens: Count = 128
    suite_n: Count | None = None
    """Rows of the capability suite for each task; all when left out."""


class Checkpoint(Strict):
    every: Count = 50
    keep: Annotated[int, Field(ge=2)] = 3
    """At least two: when the newest is damaged, there must be one before it."""


class Gate(Strict):
    min: float | None = None
    max: float | None = None


class Replay(Strict):
    """General data mixed into SFT so that the model does not forget."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    source: str | None = None
    """Prompts that the model answers itself before training, or conversations that are used as they are."""


class AnyStage(Strict):
    """What every stage has in common, one that trains nothing too."""

    method: str
    data: Data
    evaluation: Evaluation = Evaluation()
    backend: Literal["pytorch", "mlx"] | None = None
    """Over the recipe's: a run may go on with another backend at a stage boundary."""
    gates: dict[str, Gate | None] = {}
    """Over the card's defaults; null switches a gate off."""


class Stage(AnyStage):
    """What every training stage has in common."""

    steps: Count = 200
    batch_size: Count = 8
    accumulation: Count = 1
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    max_length: Annotated[int, Field(ge=8)] = 1024
    training: Literal["lora", "full"] = "lora"
    adapter: Adapter | None = None
    """None: the one that an earlier stage fixed, else the defaults."""
    gradient_checkpointing: bool = False
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw-8bit"] = "adamw"
    checkpoint: Checkpoint = Checkpoint()

    @field_validator("learning_rate", "warmup", "weight_decay", "max_grad_norm", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ConversationStage(Stage):
    """What the methods that train on whole conversations have in common."""

    replay: Replay = Replay()
    padding_free: bool = False
    """The rows of a micro-batch laid end to end, each attending to itself alone, instead of padded to one length: the same
    steps and losses up to rounding, with nothing computed on padding. On PyTorch."""


class GroupStage(Stage):
    """What the methods that compare groups of sampled completions have in common."""

    group_size: Annotated[int, Field(ge=2, le=256)] = 8
    """Completions of each prompt."""
    batch_size: Count = 32
    """Completions in a micro-batch; whole groups make a generation."""
    max_new_tokens: Count = 256
    """Length at which a completion is cut; prompts that leave less room than that within max_length are left out."""
    temperature: Annotated[float, Field(gt=0, le=4)] = 1.0
    kl_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the divergence from the stage's start in the objective; it is measured all the same."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Range of the probability ratio (PPO's epsilon)."""
    num_iterations: Annotated[int, Field(ge=1, le=16)] = 1
    """Times that a generation is trained on."""
    steps_per_generation: Count | None = None
    """Micro-batches that one generation is cut into; as many as are accumulated when left out."""
    loss: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    generation: Literal["auto", "transformers", "vllm"] = "auto"
    """Who samples the completions, on PyTorch. ``auto``: vLLM where it is installed and can (on CUDA, with no edits in the
    lineage, on a base that is not quantized, with room on the GPU), else transformers; the stage's log says which and why.
    With vLLM a resume does not end in the bits of an undisturbed run."""

    @model_validator(mode="after")
    def _whole_groups(self) -> GroupStage:
        generated = self.batch_size * (self.steps_per_generation or self.accumulation)
        if generated % self.group_size:
            raise ValueError(
                f"a generation of whole groups: batch_size times steps_per_generation (or accumulation) is {generated}, "
                f"which must be a multiple of the group_size {self.group_size}"
            )
        return self


def steps_of(stage: AnyStage) -> int:
    """Training steps of a stage; 1 for one that trains nothing."""
    return getattr(stage, "steps", 1)


class EditEvaluation(Strict):
    """What a stage that trains nothing measures before and after."""

    samples: Annotated[int, Field(ge=0)] = 3
    """Fixed held-out prompts whose generations are shown before and after."""
    prompts: Count = 256
    """Held-out prompts for the KL (abliteration) and for the shift of each persona (steering)."""
    max_new_tokens: Count = 256
    suite_n: Count | None = None
    """Rows of the capability suite for each task; all when left out."""


class EditStage(Strict):
    """What the stages have in common that search for something to add to a model and train nothing."""

    method: str
    evaluation: EditEvaluation = EditEvaluation()
    backend: Literal["pytorch", "mlx"] | None = None
    """Over the recipe's: a run may go on with another backend at a stage boundary."""
    gates: dict[str, Gate | None] = {}
    """Over the card's defaults; null switches a gate off."""


class Recipe(Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    model: Annotated[str, Field(min_length=1)] = "lab"
    revision: str | None = None
    backend: Literal["auto", "pytorch", "mlx"] = "auto"
    quantization: Literal["none", "8bit", "4bit", "auto"] = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """The kernel, on PyTorch. ``auto``: FlashAttention 2 where it is installed and the weights are in 16 bit on CUDA, else
    PyTorch's own (sdpa); the stage's log says which and why."""
    fixed_order: bool = True
    """On CUDA a training step sums in a fixed order, so that a resumed run ends in the bits of an undisturbed one. ``false``
    is faster on long rows with padding. A CPU and MLX have no other order."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """More than one: a training stage runs under ``accelerate launch``, an SFT on MLX in a ring of processes here. Each
    takes ``batch_size`` rows times ``accumulation`` of every step, so the effective batch is as many times larger."""
    threads: Count | None = None
    """CPU threads of a stage; fixed when a run starts, since sums depend on it in the last bit."""
    suite: str | None = None
    """Capability suite for retention; the lab's for the lab models, the general one otherwise."""
    trust_remote_code: bool = False
    stages: Annotated[list[Any], Field(min_length=1, max_length=32)]
    """Each is the Stage type of its method (recipes/methods); the loader checks that."""
    on_gate_fail: Literal["stop", "warn", "rollback"] = "stop"


def quantization_of(recipe: Recipe) -> Literal["none", "8bit", "4bit"]:
    """How a run loads its base. ``auto`` was settled when the run began (engine/forecast/auto.py); an older run's word
    ``auto`` meant none."""
    return "none" if recipe.quantization == "auto" else recipe.quantization
