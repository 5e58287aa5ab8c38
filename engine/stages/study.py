"""The search behind abliteration: Optuna's TPE over two objectives, its study in a journal file, resumable to the bit.

A trial is proposed by a sampler that is seeded by the trial's own number and sees the trials finished so far; it enters
the study when it is finished, in one record. So a killed search goes on as if nothing had happened: the trial that was
under way is proposed once more, the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from engine.stages.journal import Journal

optuna.logging.set_verbosity(optuna.logging.ERROR)
NAME = "abliteration"
DIRECTIONS: list[Literal["minimize", "maximize"] | optuna.study.StudyDirection] = ["minimize", "minimize"]
STARTUP = 12
"""Trials drawn at random before the sampler learns from them."""


@dataclass(frozen=True)
class Trial:
    """``rate`` is the share not complied with; None for a trial that was dropped for its KL."""

    number: int
    parameters: dict[str, Any]
    kl: float
    rate: float | None


class Study:
    """Optuna's storage over our journal: any Optuna tool can open the file."""

    def __init__(self, path: Path, space: dict[str, BaseDistribution], seed_of: Callable[[int], int]) -> None:
        journal = Journal(path)
        self._space, self._seed_of = space, seed_of
        try:
            storage = optuna.storages.JournalStorage(_Backend(journal))
            if journal.entries:  # creating it again would leave a second record
                self._study = optuna.load_study(study_name=NAME, storage=storage)
            else:
                self._study = optuna.create_study(storage=storage, study_name=NAME, directions=DIRECTIONS)
            self.trials = [_trial(one) for one in self._study.get_trials()]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise journal.broken(f"no study ({type(error).__name__}: {error})") from None
        for trial in self.trials:
            if set(trial.parameters) != set(space):
                raise journal.broken(f"trial {trial.number} of another search: {sorted(trial.parameters)}")

    def propose(self) -> tuple[int, dict[str, Any]]:
        """Number and parameters of the next trial: a function of the finished trials and the seed alone."""
        number = len(self.trials)
        sampler = optuna.samplers.TPESampler(seed=self._seed_of(number), n_startup_trials=STARTUP)
        ephemeral = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
        ephemeral.add_trials(self._study.get_trials())
        return number, ephemeral.ask(self._space).params

    def add(self, parameters: dict[str, Any], kl: float, rate: float | None) -> Trial:
        """Enter a finished trial; on the disk when this returns."""
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE if rate is not None else TrialState.PRUNED,
                values=[kl, rate] if rate is not None else None,
                params=parameters,
                distributions=self._space,
                user_attrs={"kl": repr(kl)},  # dropped trials have no values, and JSON no infinity
            )
        )
        self.trials.append(Trial(len(self.trials), parameters, kl, rate))
        return self.trials[-1]


def front(trials: list[Trial]) -> list[Trial]:
    """The Pareto front, by rising KL: each has fewer refusals than all with less KL."""
    found: list[Trial] = []
    whole = [trial for trial in trials if trial.rate is not None]
    for trial in sorted(whole, key=lambda trial: (trial.kl, trial.rate, trial.number)):
        if not found or trial.rate < found[-1].rate:  # type: ignore[operator]
            found.append(trial)
    return found


def default_pick(trials: list[Trial], good: float) -> Trial | None:
    """Of the front, the lowest KL among those that refuse at most ``good``, else the fewest refusals."""
    best = front(trials)
    return next((trial for trial in best if trial.rate <= good), best[-1] if best else None)  # type: ignore[operator]


def _trial(one: FrozenTrial) -> Trial:
    rate = one.values[1] if one.state == TrialState.COMPLETE else None
    return Trial(one.number, dict(one.params), float(one.user_attrs["kl"]), rate)


class _Backend(BaseJournalBackend):
    """Optuna's log records in our journal: no lock files that a kill leaves behind, a torn last record cut."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self._journal.entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._journal.append(*logs)
