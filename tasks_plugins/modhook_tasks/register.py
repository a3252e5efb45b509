"""Specs of modhook's own tasks, and of the networks that belong to one of them."""

from __future__ import annotations

from modhook.plugin.hookspecs import Spec, hookimpl

_HERE = "modhook_tasks"


@hookimpl
def modhook_tasks() -> list[Spec]:
    """Tasks with their data."""
    return [
        Spec(
            "addmul",
            "Addition and multiplication of two-digit (or longer) numbers modulo 100, the operation as an input; with the default "
            "sizes all problems that are measured occur in training",
            f"{_HERE}.addmul:AddMul",
        ),
        Spec(
            "behaviours",
            "What a language model, encoder or classifier answers: prompts and answers in a JSONL or CSV file, one function per group",
            f"{_HERE}.behaviours.task:Behaviours",
        ),
        Spec(
            "cifar10",
            "CIFAR-10, one mask per removed class",
            f"{_HERE}.cifar10.removal:Cifar10",
        ),
        Spec(
            "cifar10_stability",
            "CIFAR-10, two masks for each of several sets of classes",
            f"{_HERE}.cifar10.stability:Cifar10Stability",
        ),
        Spec(
            "double_addition",
            "Two (or more) independent additions of two-digit numbers modulo 100 in one network",
            f"{_HERE}.double_addition:DoubleAddition",
        ),
        Spec(
            "known",
            "Networks whose modules are known weight by weight: compiled, welded, superposed",
            f"{_HERE}.known.task:KnownTask",
        ),
        Spec(
            "mathematics",
            "DeepMind mathematics: questions of one or several of its modules, answered character by character",
            f"{_HERE}.mathematics.task:Mathematics",
        ),
        Spec(
            "permuted_mnist",
            "MNIST with shuffled pixels, one function per permutation",
            f"{_HERE}.permuted_mnist:PermutedMNIST",
        ),
        Spec(
            "scan",
            "SCAN: commands to actions, with the simple, length, jump and turn-left splits",
            f"{_HERE}.scan.task:Scan",
        ),
    ]


@hookimpl
def modhook_models() -> list[Spec]:
    """Networks that come with a task."""
    return [
        Spec("known", "The finished network of the task known, with its weights", f"{_HERE}.known.network:KnownNetwork"),
        Spec(
            "language_model",
            "A network of transformers for the task behaviours: pretrained, or new from a configuration",
            f"{_HERE}.behaviours.network:LanguageModel",
        ),
    ]
