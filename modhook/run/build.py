"""Task, network and plugins of one point of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modhook.errors import DataError, ModhookError, PluginError, UserError, WeightsError, listing
from modhook.network.files import read_file
from modhook.network.reference import KNOWN, saved, translated
from modhook.noise.seeding import derive
from modhook.plugin.culprit import told
from modhook.plugin.folder import names_relative_to
from modhook.plugin.interfaces import Model, Task
from modhook.plugin.manager import Plugins
from modhook.run.failure import out_of_memory
from modhook.study import Study


def build_task(study: Study, plugins: Plugins) -> Task:
    """Return the task with its data loaded. Raises `UserError`, `DataError`."""
    with names_relative_to(plugins.folder):
        task: Task = plugins.load("tasks", study.task.name)(study.task.options)
        _load(task, study.task.name)
    labels = [s.name for s in task.stages]
    begins = not task.control or labels[:1] == ["control"]
    if "unmasked" in labels:
        raise UserError(
            f"a stage of task {study.task.name!r} is called 'unmasked', the name of the network before any mask; call it otherwise."
        )
    if not labels or not begins or len(set(labels)) != len(labels):
        raise UserError(
            f"the stages of task {study.task.name!r} must be distinct and begin with 'control' (unless its `control` is "
            f"False); they are {labels}."
        )
    return task


def _load(task: Task, name: str) -> None:
    try:
        task.load()
    except ModhookError:
        raise
    except OSError as error:
        raise DataError(f"the data of task {name!r} cannot be read: {error}.") from error
    except Exception as error:
        raise _failed(f"load of task {name!r}", error) from error


def build_model(study: Study, task: Task, plugins: Plugins, seed: int) -> nn.Module:
    """Return a new network, initialised from the run's seed; torch's random state is as before. Raises `UserError`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        return _make(study, task, plugins)


def model_shapes(study: Study, task: Task, plugins: Plugins) -> nn.Module:
    """Return the network without its values (on the meta device where its code allows): names and shapes for the cube."""
    try:
        with torch.device("meta"):
            return _make(study, task, plugins)
    except PluginError:  # it may be about the meta device
        return build_model(study, task, plugins, 0)
    except UserError:
        raise
    except Exception:
        return build_model(study, task, plugins, 0)


def _make(study: Study, task: Task, plugins: Plugins) -> nn.Module:
    with names_relative_to(plugins.folder):
        return _made(study, task, plugins)


def _made(study: Study, task: Task, plugins: Plugins) -> nn.Module:
    name, options = study.model.name, study.model.options
    factory: Any = None
    if plugins.is_code("models", name):
        factory = plugins.code(name, "callable").thing
    if factory is None or (isinstance(factory, type) and issubclass(factory, Model)):
        made = plugins.load("models", name)(options)
        try:
            model = made.build(task.shape())
        except Exception as error:
            raise _failed(f"build of model {name!r}", error) from error
    else:
        try:
            model = factory(**options)
        except TypeError as error:
            raise UserError(f"model {name!r} cannot be called with {dict(options)}: {error}.") from error
        except Exception as error:
            raise _failed(f"model {name!r}", error) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"model {name!r} must make a torch.nn.Module, but made a {type(model).__name__}.")
    return model


def _failed(what: str, error: Exception) -> Exception:
    """Return what an author's own error is told as, with its place; modhook's own and a lack of memory stay what they are."""
    if isinstance(error, ModhookError) or out_of_memory(error):
        return error
    return PluginError(f"{what} fails: {told(error)}.")


def load_weights(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Load a safetensors file or a torch state dict (tensors only: no pickled code is run) into `model`, and return it.

    A `model.pth` of the paper's own code is translated; see `reference_weights`.

    Raises:
        WeightsError: no such file, unreadable, or tensors that do not fit (says which).
    """
    own = model.state_dict()
    state = read_weights_file(model, path)
    if missing := [n for n in own if n not in state]:
        raise WeightsError(
            f"the weights in {path} lack {listing(missing)}, which the network has; is it the same network?"
        )
    if extra := [n for n in state if n not in own]:
        raise WeightsError(
            f"the weights in {path} hold {listing(extra)}, which the network does not have; is it the same network?"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"{name} has shape {tuple(tensor.shape)} in {path}, but {tuple(own[name].shape)} in the network."
            )
    model.load_state_dict(state)
    return state


def read_weights_file(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the tensors of such a file in the names of `model`, whether they fit or not. Raises `WeightsError`."""
    return _state(read_file(path, KNOWN), model, path)


def _state(content: Any, model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file's content, in the names of `model`."""
    plain = isinstance(content, dict) and all(isinstance(v, Tensor) for v in content.values())
    if not (plain and set(content) & set(model.state_dict())) and (found := saved(content, str(path))):
        return translated(found, model, str(path))
    if not plain:
        raise WeightsError(
            f"{path} holds no plain state dict (names and tensors); save it with torch.save(model.state_dict(), ...)."
        )
    return dict(content)
