"""What a protocol works with: one run of a study (one seed at one sweep point), and its place in the cube."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from modhook.cube import Cube, read_logits, read_masks, read_units, read_weights, write_masks, write_weights
from modhook.errors import RunError, UserError
from modhook.fit.trust import TITLES, TURNOVER, moved, of_the_uncut, told_later
from modhook.masks import Masks
from modhook.masks.off import Off
from modhook.noise.seeding import derive
from modhook.plugin.contract import CarriedGradients, RunContext, Scores, StageRecord
from modhook.plugin.interfaces import Batch, Ranking, Sampler, Task, Tracker
from modhook.plugin.manager import Plugins
from modhook.plugin.manager import plugins as installed
from modhook.run.build import build_model
from modhook.run.carried import CarriedFile, level
from modhook.run.checkpoints import Checkpoints
from modhook.run.complete import check_record, known_stage
from modhook.run.data import Draw, train_subset
from modhook.run.failure import reason_of, require_finite, show_traceback, stops_the_study
from modhook.run.layout import SUBSET, valid_steps, versions
from modhook.run.machine import write_timing
from modhook.run.measuring import measure, score
from modhook.run.once import Alike
from modhook.run.weight_files import load_trained, read_off
from modhook.steps.checkpoint import Keeper
from modhook.steps.loop import recorded_steps
from modhook.steps.modes import in_mode
from modhook.steps.ranks import even, spread, together
from modhook.steps.snapshot import digest
from modhook.study import Study, off_file, resolved
from modhook.study.units import kinds
from modhook.unit.units import Units
from modhook.values.randomness import drawing, seeded


class Enough(BaseException):
    """Ends a protocol where it begins a stage that is not asked for now; no `Exception`, so that no plugin takes it for one."""


@attrs.define
class Context(RunContext):
    """One run: study (at its sweep point), task, network, seed, and where results go."""

    study: Study
    task: Task
    model: nn.Module
    seed: int
    labels: dict[str, Any]
    cube: Cube
    layout: str
    tracker: Tracker
    device: torch.device
    plugins: Plugins = attrs.field(factory=installed)
    later: frozenset[str] = frozenset()
    """Stages that are not asked for now: the first of them ends the run."""
    _carried: dict[str, CarriedGradients] = attrs.field(factory=dict, init=False)
    """What the latest stage of this process left, by its name."""
    _off: tuple[Off] | None = attrs.field(default=None, init=False)
    _used: list[CarriedFile] = attrs.field(factory=list, init=False)
    """Files that are needed until the next stage is done."""

    def done(self, stage: str) -> bool:
        """Whether this stage is in the cube already."""
        known_stage(stage, self.cube)
        return self.cube.status(self.labels, stage) == "done"

    def batches(self, stage: str | None, size: int) -> Draw:
        """Return endless training batches of a stage, or of base training (None)."""
        return Draw(self.task, stage, size, self._mask_seed(), self.device)

    def score(
        self, masks: Masks | None = None, model: nn.Module | None = None, splits: Sequence[str] | None = None
    ) -> Scores:
        """Measure the network, under masks if given, on every split or on those given."""
        size, off = self.study.train.eval_batch, self.off()
        return score(self.task, model or self.model, masks, size, self.device, splits, off, self.seed)

    def off(self) -> Off:
        """Return what the run's masked weights become, as `fit_masks` and `evaluate` take it with the run's seed (`masks.off`)."""
        if self._off is None:
            self._off = (read_off(self.cube, self.study, self.model, self.seed, self.layout),)
        return self._off[0]

    def new_model(self, label: str) -> nn.Module:
        """Return another network like this one, newly initialised from (seed, label)."""
        return build_model(self.study, self.task, self.plugins, derive(self.seed, label)).to(self.device)

    def sampler(self) -> Sampler:
        """Return the sampler of the mask stages, with its options."""
        return self.plugins.load("samplers", self.study.masks.sampler)(self.study.sampler)  # type: ignore[no-any-return]

    def validator(
        self,
        record: StageRecord,
        steps: int,
        every: int,
        masks: Callable[[], Masks] | None = None,
        model: nn.Module | None = None,
    ) -> Callable[[int], None]:
        """Return a callback that measures every `every` steps (0: never) into `record.validation`; the network's mode is kept."""
        wanted, measured = set(valid_steps(steps, every)), model or self.model
        subset = train_subset(self.task) if wanted else {}
        stage = None if record.stage == "unmasked" else self._task_stage(record.stage)

        def sets() -> Iterator[tuple[str, Batch | None]]:
            yield from ((split, self.task.validation_set(split, stage)) for split in self.task.splits)
            yield SUBSET, subset

        def validate(step: int) -> None:
            if step not in wanted:
                return
            now = masks() if masks else None
            with in_mode(measured, "eval"):
                size, off = self.study.train.eval_batch, self.off()
                record.validation[step] = measure(self.task, measured, now, sets(), size, self.device, off, self.seed)

        return validate

    def mask_mode(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a network is in the mode of the mask stages, `[masks] mode`."""
        return in_mode(model, self.study.masks.mode)

    def mask_options(self) -> dict[str, Any]:
        """Return what every mask stage of the study gives to `fit_masks`: `[masks]`, sampler, seed and tracker.

        A protocol adds what it decides itself: samples, init, label, and which masks are fixed or weights trained.
        """
        study, masks, sampler = self.study, self.study.masks, self.sampler()
        size: dict[str, Any] = {"beta": masks.beta} if masks.density is None else {"density": masks.density}
        if isinstance(sampler, Ranking) and masks.density is None:
            size = {"density": 1.0}  # it has no threshold: every weight, until `masks.cut` cuts
        # A pattern that the study does not give keeps the library's default, which may match nothing.
        given: dict[str, Any] = {k: v for k, v in (("include", masks.include), ("exclude", masks.exclude)) if v is not None}
        if groups := read_units(self.cube, self.layout):  # those that the cube was laid out for
            given["units"] = [Units(groups), *(["weight"] if "weight" in kinds(masks) else [])]
        return {
            "steps": masks.steps,
            "lr": masks.lr,
            "beta_start": None if "density" in size else masks.beta_start,
            "relative_beta": masks.relative_beta and self._saved(),
            "among": masks.among,
            **size,
            **given,
            "sampler": sampler,
            "clip": study.mask_clip,
            "clip_over": masks.clip_over,
            "warmup": masks.warmup,
            "reg_batch": study.reg_batch,
            "scale_regulariser": masks.scale_regulariser,
            "executor": masks.executor,
            "off": self.off(),
            "stop": masks.stop,
            "seed": self._mask_seed(),
            "reference": self._control(),
            "progress": self.tracker,
        }

    def _control(self) -> Masks | None:
        """Return the control's masks, of which later stages keep a part; None before it is done, or where there is none."""
        if "control" not in self.cube.labels("runs/status")["stage"] or not self.done("control"):
            return None
        return read_masks(self.cube, self.layout, self.labels, "control")

    def load_weights(self, stage: str | None = None) -> None:
        """Put the run's trained weights from the cube into the network; where stages change them, those after `stage`."""
        self.model.load_state_dict(read_weights(self.cube, self.layout, self.labels, stage))

    def load_pretrained(self) -> None:
        """Put the study's own weights file into the network."""
        load_trained(self.cube, self.study, self.model, self.seed, self.layout)

    def logits(self, stage: str) -> dict[str, Tensor]:
        """Return the logits of a finished stage, as stored."""
        return read_logits(self.cube, self.layout, self.labels, stage)

    def masks(self, stage: str) -> Masks:
        """Return the masks of a finished stage, from the stored bits."""
        return read_masks(self.cube, self.layout, self.labels, stage)

    def carried(self, stage: str) -> CarriedGradients | None:
        """Return what a finished stage left for the next one's clipping; None if it left nothing."""
        file = self._carried_file(stage)
        self._used.append(file)
        return self._carried[stage] if stage in self._carried else file.read(self.model)

    @contextlib.contextmanager
    def stage(self, name: str, steps: int, *, common: bool = False) -> Iterator[StageRecord]:
        """Compute one stage: what the record holds at the end is written, then the stage is marked done.

        Randomness outside our own generators (dropout) is seeded from (seed, stage). Step loops inside are continued from
        the stage's checkpoint, if there is one that fits; what comes before and after them is done again.

        Any error marks the stage failed, with the reason, and raises `RunError`; a user's mistake (`UserError`), a full disk,
        a cube that is gone (`GoneError`) and Ctrl-C leave it pending. Logits and weights that are not finite are such an error.
        """
        if name in self.later:
            raise Enough
        known_stage(name, self.cube)
        with together():
            self.cube.still_there()  # what is gone reads as never written
        record = StageRecord(name)
        self.tracker.stage_started(name, steps)
        alike = Alike(self.cube, self.labels, name) if common and not spread() else None
        with together():  # reads masks.off, of which a rank may have another file
            keeper = self._keeper(name, record, alike)
        try:
            with together(), seeded(derive(self.seed, name, "torch")), keeper.active(not spread()), told_later():
                yield record
                check_record(record, self.cube, self.task)
                if record.keep_weights:
                    require_finite(self.model.state_dict(), f"the weights after stage {name!r} in")
            even(self.model.state_dict().values())  # base training may differ by a rounding error between machines
            self._carried = {} if record.carried is None else {name: level(record.carried)}
        except UserError:
            raise
        except Exception as error:
            if stops_the_study(error):
                raise
            show_traceback(error, self.tracker)
            self.cube.set_status(self.labels, name, "failed", reason=reason_of(error))
            raise RunError(reason_of(error)) from error
        self._write(name, record)
        for carried in self._carried.values():  # before the stage counts as done
            self._carried_file(name).write(carried)
        write_timing(self.cube, self.labels, name, keeper.seconds, self.device)
        self.cube.set_status(self.labels, name, "done", route=_route(record.route), threads=torch.get_num_threads())
        if alike is not None:
            if alike.waited_for():
                keeper.leave()
            else:
                alike.path.unlink(missing_ok=True)
        keeper.remove()
        while self._used:
            self._used.pop().remove()
        if ended := _ended(record, steps):
            self.tracker.message(f"  {name}: {ended}")
        if rules := [title for rule, title in TITLES.items() if any(line.startswith(f"{rule}: ") for line in self._trust(record))]:
            self.tracker.message(f"  {name}: before you trust it (see the report): {'; '.join(rules)}")
        if record.logits is not None:
            self.tracker.stage_masks(name, record.masks or {n: logits >= 0 for n, logits in record.logits.items()})
        self.tracker.stage_finished(name, {f"{m}/{s}": v for m, by in record.scores.items() for s, v in by.items()})

    # -- inside: what a control does otherwise

    def _task_stage(self, stage: str) -> str:
        """Return the task's name of a stage of the cube."""
        return stage

    def _trust(self, record: StageRecord) -> list[str]:
        return trusted(record, self.study.masks.cut)

    def _saved(self) -> bool | float:
        """Return what a relative beta counts in, where it is known before."""
        return True

    def _mask_seed(self) -> int:
        """Return the seed of the batches and of the masks' noise."""
        return self.seed

    def _path(self, name: str) -> str:
        """Return the path in the cube of a variable of `scores` or `history`."""
        return name

    # -- inside

    def _identity(self, stage: str) -> dict[str, Any]:
        """Return what the numbers of a stage depend on, machine and versions aside."""
        study = resolved(self.study)
        return {
            # Not what may change when a cube is continued.
            "study": {k: v for k, v in study.items() if k not in ("study", "analyses", "controls", "run", "sweep")},
            "protocol": self.study.study.protocol,
            "run": {k: str(v) for k, v in self.labels.items()},
            "stage": stage,
            "data": self.cube.attrs.get("data"),
        }

    def _carried_file(self, stage: str) -> CarriedFile:
        """Return the file of what a stage leaves; the process that computes the stage always writes it anew."""
        path = Checkpoints.of(self.cube.path).carried(self.labels, stage)
        return CarriedFile(path, self._identity(stage), self.tracker.message)

    def _keeper(self, stage: str, record: StageRecord, alike: Alike | None) -> Keeper:
        """Return the keeper of a stage's checkpoint; the network is as it is when the stage begins."""
        identity = {
            **self._identity(stage),
            "network before the stage": digest(self.model.state_dict()),
            "versions": versions(),
            "device": drawing(self.device),
            "threads": torch.get_num_threads(),
        }
        common = None if alike is None else alike.kept(identity)
        if off_file(self.study, self.seed) is not None:
            identity["off"] = digest(self.off())
        path = Checkpoints.of(self.cube.path).path(self.labels, stage)
        return Keeper(path, identity, self.study.run.checkpoint_every, record, self.tracker.message, common=common)

    def _write(self, stage: str, record: StageRecord) -> None:
        write, known = self.cube.write, self.cube.variables
        for metric, by_split in record.scores.items():
            values = np.array([by_split[s] for s in self.task.splits], dtype=np.float64)
            write(self._path(f"scores/{metric}"), values, self.labels, stage=stage)
        if record.logits is not None:
            write_masks(self.cube, self.layout, self.labels, stage, record.logits, record.masks)
        if record.keep_weights:
            per_stage = "stage" in self.cube.labels(f"masks/{self.layout}/weights")
            write_weights(self.cube, self.layout, self.labels, self.model.state_dict(), stage if per_stage else None)
        own = {} if stage == "unmasked" else {"stage": stage}
        prefix, steps = ("train_", self.study.train.steps) if stage == "unmasked" else ("", self.study.masks.steps)
        done = None if record.history is None or own == {} else record.history.attrs.get("steps")
        if done is not None and "history/steps" in known:
            write(self._path("history/steps"), np.float64(done), self.labels, **own)
        for told in ("gain", "turnover"):
            if record.history is not None and own and self._path(f"history/{told}") in known:
                write(self._path(f"history/{told}"), np.float64(record.history.attrs.get(told, np.nan)), self.labels, **own)
        if done is not None and self._path("history/trust") in known:
            write(self._path("history/trust"), "\n".join(self._trust(record)), self.labels, **own)
        if record.history is not None and record.history.sizes["step"]:
            rows = recorded_steps(steps)
            for name in record.history.data_vars:
                timing = name == "ms_per_step"
                variable = f"timing/{prefix}{name}" if timing else self._path(f"history/{prefix}{name}")
                if variable not in known:  # a cube of an older version
                    continue
                kept = record.history[name].reindex(step=rows)
                if "parameter" in kept.dims:
                    kept = kept.reindex(parameter=list(self.cube.labels(variable)["parameter"]))
                self._write_steps(variable, f"{prefix}step", rows, kept.values, own)
        every = self.study.train.validate_every if stage == "unmasked" else self.study.masks.validate_every
        rows = valid_steps(steps, every)
        if record.validation and rows:
            for metric in self.task.metrics:
                found = [record.validation[r][metric] if r in record.validation else {} for r in rows]
                values = np.array([[scores.get(s, np.nan) for s in self.task.splits] for scores in found])
                self._write_steps(self._path(f"history/{prefix}valid_{metric}"), f"{prefix}valid_step", rows, values, own)
                values = np.array([scores.get(SUBSET, np.nan) for scores in found])
                self._write_steps(self._path(f"history/{prefix}subset_{metric}"), f"{prefix}valid_step", rows, values, own)

    def _write_steps(
        self, name: str, dim: str, rows: list[int], values: np.ndarray[Any, Any], own: dict[str, str]
    ) -> None:
        """Write values at this run's own steps; where a sweep changes the number of steps, the other steps stay NaN."""
        labels = [int(x) for x in self.cube.labels(name)[dim]]
        full = np.full((len(labels), *values.shape[1:]), np.nan, dtype=self.cube.dtype(name))
        full[[labels.index(r) for r in rows]] = values
        self.cube.write(name, full, self.labels, **own)


def trusted(record: StageRecord, cut: object) -> list[str]:
    """Return what a fit said of itself; where masks are cut in another way than by its threshold, of them instead of that.

    A rising pull takes the threshold's masks away in the end, by construction: whether the cut changed is known from its turnover.
    """
    lines = [] if record.history is None else list(record.history.attrs.get("trust", ()))
    if cut == "threshold" or record.history is None:
        return lines
    changed = record.history.attrs.get("turnover", np.nan)
    gone = ["threshold"] if np.isnan(changed) else ["threshold", "extreme", "moving"]
    left = [of_the_uncut(line) for line in lines if not line.startswith(tuple(f"{rule}: " for rule in gone))]
    return [*left, f"moving: {moved(changed)}"] if changed > TURNOVER else left


def _ended(record: StageRecord, steps: int) -> str:
    """Say that a stage ended before its last step; empty where it did not."""
    done = steps if record.history is None else int(record.history.attrs.get("steps", steps))
    return f"ended after {done} of {steps} steps" if done < steps else ""


def _route(route: Mapping[str, Any]) -> str:
    return " - ".join(str(route[k]) for k in ("route", "reason") if route.get(k))
