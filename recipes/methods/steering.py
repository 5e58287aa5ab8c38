"""Activation steering: vectors added at run time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from recipes.composition import CompositionError, parse_composition
from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import Count, EditStage, Share, Strict
from recipes.schema import Data as Source

CARD = Card(
    name="steering",
    title="Activation Steering",
    purpose="Control behaviour at run time",
    strengths=(
        "Inference-time control (no retraining)",
        "Reversible (remove vector to restore)",
        "Composable (combine multiple vectors)",
        "Fast experimentation (A/B testing)",
        "Low cost (no training)",
    ),
    weaknesses=(
        "Limited control precision",
        "May affect unrelated outputs (side effects)",
        "Requires vector extraction (data collection)",
        "Not as powerful as training",
        "Can be brittle (model-specific)",
    ),
    best_for=(
        "Runtime control",
        "A/B testing",
        "composable behaviors",
        "quick experiments",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="Low",
    reversible=True,
    composable=True,
    time=Time("N/A", 0.167, 0.5, "Vector extraction only"),
    data=Data("contrast pairs", "Low", 50, 200, "Targeted examples"),
    memory=Memory(False, "Steering vectors", 2.0),
    metrics=(
        "Steering strength",
        "side effects",
    ),
    targets=(
        "Strength adequate",
        "side effects <10%",
    ),
    gates={
        "steering_strength": GateSpec("shift of the target behaviour over the shift by a prompt alone", minimum=0.5),
        "side_effects": GateSpec("largest relative drop over the off-target tasks at the same strength", maximum=0.1),
        "wrong_way": GateSpec("share of held-out pairs moved away from the persona", default=False),
        "composed_strength": GateSpec("the same of each persona while all vectors of `compose` act", default=False),
        "side_effects_composed": GateSpec("the same drop while all vectors of `compose` act", default=False),
        "joint_kl": GateSpec("95th percentile of the KL over tokens that the composition steers, nats", default=False),
        "kl": GateSpec("divergence of the composition from the stage's start, nats per token", default=False),
    },
    complexity=3,
    capability=1,
)

Target = Annotated[float, Field(gt=0, le=20)]
VectorSource = Literal["told", "completions"]


class Persona(Strict):
    """One vector: what it is read off, and what it should achieve."""

    data: Source
    """Contrast pairs: `prompt`, `positive`, `negative`."""
    search: str | None = None
    """More contrast pairs, with the same columns, on whose prompts candidates are compared and strengths chosen; a
    quarter of the different prompts in `data` when left out."""
    prompt: Annotated[str, Field(min_length=1)]
    """The system prompt that asks for the same in words: the baseline, and one of the sources."""
    opposite: Annotated[str, Field(min_length=1)]
    """The system prompt that asks for the contrary."""
    judge: str
    """YAML file with the regular expressions `preferred` (shows the persona) and `rejected`."""
    sources: Annotated[list[VectorSource], Field(min_length=1)] | None = None
    windows: Annotated[list[Count | None], Field(min_length=1)] | None = None
    kl: Annotated[list[Target], Field(min_length=1)] | None = None
    condition: bool | None = None
    """These four as the stage's when left out."""

    @field_validator("kl", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: object) -> object:
        return [float(one) if type(one) is int else one for one in value] if isinstance(value, list) else value


class Stage(EditStage):
    """A steering stage. Its steps are candidates: a persona, a layer, a way of extraction and a strength each."""

    personas: Annotated[dict[str, Persona], Field(min_length=1, max_length=8)]
    layers: Annotated[list[Share], Field(min_length=1, max_length=64)] = [0.4, 0.5, 0.6, 0.7, 0.8]
    """Fractions of the depth at which vectors are tried."""
    sources: Annotated[list[VectorSource], Field(min_length=1)] = ["told", "completions"]
    """`completions`: the stream under the positive completions against that under the negative ones; `told`: under
    the same completions with `prompt` against with `opposite`, in which the words themselves cancel out."""
    forms: Annotated[list[Literal["mean", "pca"]], Field(min_length=1)] = ["mean", "pca"]
    windows: Annotated[list[Count | None], Field(min_length=1)] = [None]
    """Tokens of a completion that are steered, from its first on; null: all of them."""
    kl: Annotated[list[Target], Field(min_length=1)] = [0.1, 0.3, 0.6]
    """Strengths, as the 95th percentile of the KL over steered tokens (of the first 20) that they cause, in nats."""
    aim: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the prompt's shift that a candidate should reach on the search prompts; of those that do, the one that
    disturbs other prompts least is taken."""
    search_prompts: Count = 100
    compose: str | None = None
    """What acts when the stage hands on, such as `warm + 0.5*brief`; left out: a single persona acts, and of several
    none does until its dial is turned."""
    kl_budget: Target | None = None
    """Joint KL (as in `kl`) that a composition may cause; all its strengths are scaled down together to keep it."""
    general: str | None = None
    """Prompts beside the point, on which a candidate's disturbance is measured; the general ones when left out."""
    condition: bool = False
    """Steer only where the prompt looks like the persona's own rather than like the `general` ones."""

    @property
    def steps(self) -> int:
        """Candidates in all."""
        return sum(
            len(self.layers) * len(self.forms) * len(of["sources"]) * len(of["windows"]) * len(of["kl"])
            for of in map(self.settings_of, self.personas)
        )

    def settings_of(self, persona: str) -> dict[str, Any]:
        """``sources``, ``windows``, ``kl`` and ``condition`` of a persona: its own, else the stage's."""
        own = self.personas[persona]
        names = ("sources", "windows", "kl", "condition")
        return {name: getattr(self if getattr(own, name) is None else own, name) for name in names}

    @property
    def factors(self) -> dict[str, float]:
        """Factor of each persona's vector in what the stage hands on; 0: it waits for its dial."""
        names = list(self.personas)
        if self.compose is not None:
            return {name: 0.0 for name in names} | parse_composition(self.compose, names)
        return {name: 1.0 if len(names) == 1 else 0.0 for name in names}

    @field_validator("layers", "kl", "aim", "kl_budget", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: object) -> object:
        if isinstance(value, list):
            return [cls._whole_numbers_are_numbers(item) for item in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("compose")
    @classmethod
    def _composed_of_personas(cls, value: str | None, info: object) -> str | None:
        personas = getattr(info, "data", {}).get("personas")
        if value is not None and personas is not None:  # else they are what is wrong
            try:
                parse_composition(value, list(personas))
            except CompositionError as error:
                raise PydanticCustomError("composition", str(error)) from None  # type: ignore[arg-type]
        return value
