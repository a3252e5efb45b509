"""What a network says of answers: logits at their positions, log-probabilities of all their tokens, differences."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from modhook import UserError
from modhook_tasks.behaviours.encode import NONE, Kind


class Reader:
    """Calls a network with passes, and reads its logits where they are asked for.

    A network that takes `input_ids`, as those of transformers do, is called by keywords, with `attention_mask`, and with
    `position_ids` where padding comes first; any other one as `net(ids)`. What it returns may hold the logits as `logits`.

    Args:
        place: the file of the items, for messages.
        kind: as in `Encoder`. classes: how many there are to choose from. side: where the padding is.
    """

    def __init__(self, place: str, kind: Kind, classes: int, side: str) -> None:
        self.place, self.kind, self.classes, self.side = place, kind, classes, side

    def logits(self, net: Any, ids: Tensor, mask: Tensor, where: Tensor) -> Tensor:
        """Return the logits of passes (B, T) at positions (B, A): (B, A, C), in float32 at least."""
        try:
            found = self._called(net, ids, mask)
        except IndexError as error:
            if "index out of range" not in str(error):  # what an embedding says
                raise
            raise UserError(
                f"{self.place}: the network {type(net).__name__} has no embedding for some of the {ids.shape[-1]} tokens of a line, or of "
                "their positions; give it a row for each token of the tokenizer, and as many positions as a line has."
            ) from error
        logits = found
        if not isinstance(found, Tensor):
            logits = found.get("logits") if hasattr(found, "get") else getattr(found, "logits", found)
            if isinstance(logits, tuple | list) and logits:
                logits = logits[0]
        logits = self._checked(net, found, logits)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if self.kind == "label":
            return logits.unsqueeze(1)  # (B, 1, C)
        return logits.gather(1, where.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))  # (B, A, C)

    def _called(self, net: Any, ids: Tensor, mask: Tensor) -> Any:
        """Return what a network gives for passes (B, T), with the arguments that it takes."""
        takes = _takes(net)
        if "input_ids" not in takes:
            return net(ids)
        more: dict[str, Any] = {"attention_mask": mask.long()} if "attention_mask" in takes else {}
        if self.side == "left" and "position_ids" in takes:
            more["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        if "use_cache" in takes:
            more["use_cache"] = False
        return net(input_ids=ids, **more)

    def _checked(self, net: Any, found: Any, logits: Any) -> Tensor:
        """Return the logits. Raises `UserError` for a network that has no head for the answers."""
        name = type(net).__name__
        wanted = "(items, labels)" if self.kind == "label" else "(items, positions, tokens)"
        auto = {"continuation": "ForCausalLM", "mask": "ForMaskedLM", "label": "ForSequenceClassification"}[self.kind]
        hint = f"give it one, as AutoModel{auto} of transformers has"
        if not isinstance(logits, Tensor) or logits.dim() != (2 if self.kind == "label" else 3):
            what = f"logits of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(found).__name__} without logits"
            raise UserError(
                f"{self.place}: the network {name} has no head for these answers: it returns {what}, and not logits {wanted}; {hint}."
            )
        if logits.shape[-1] < self.classes:
            what = "labels" if self.kind == "label" else "tokens"
            raise UserError(
                f"{self.place}: the network {name} has no head for these answers: it tells {logits.shape[-1]} classes apart, and "
                f"there are {self.classes} {what}; {hint}, and the tokenizer that belongs to it."
            )
        return logits


def _takes(net: Any) -> frozenset[str]:
    """Return the names of the arguments of a network's forward."""
    try:
        return frozenset(inspect.signature(net.forward).parameters)
    except (AttributeError, TypeError, ValueError):
        return frozenset()


def log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """Return sum_j log softmax(logits_j)[target_j] over positions that count: (B, A, C), (B, A) -> (B,)."""
    counts = target != NONE
    each = logits.log_softmax(-1).gather(-1, torch.where(counts, target, 0).unsqueeze(-1)).squeeze(-1)  # (B, A)
    return torch.where(counts, each, 0).sum(-1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return min_j (logits_j[target_j] - max_{c != target_j} logits_j[c]): above 0 where greedy choice gives every token, (B,)."""
    counts = target != NONE
    index = torch.where(counts, target, 0).unsqueeze(-1)  # (B, A, 1)
    own = logits.gather(-1, index).squeeze(-1)
    best = logits.scatter(-1, index, -torch.inf).amax(-1)  # (B, A)
    return torch.where(counts, own - best, torch.inf).amin(-1)


def divergence(unmasked: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over positions that count of sum_c p_c (log p_c - log q_c), p of `unmasked`, q of `logits`: (B,)."""
    counts = target != NONE
    p, q = unmasked.log_softmax(-1), logits.log_softmax(-1)
    each = torch.where(p.isneginf(), 0, p.exp() * (p - q)).sum(-1)  # (B, A)
    return torch.where(counts, each, 0).sum(-1) / counts.sum(-1).clamp(min=1)


def fingerprint(net: nn.Module) -> Tensor:
    """Return numbers that tell a network's weights from others: of every parameter products with two fixed vectors, (P, 2)."""
    found = []
    for parameter in net.parameters():
        flat = parameter.detach().flatten()
        flat = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
        if not flat.is_floating_point() or not len(flat):
            continue
        turn = torch.arange(1, min(len(flat), 1009) + 1, device=flat.device, dtype=flat.dtype)
        rows = nn.functional.pad(flat, (0, -len(flat) % len(turn))).view(-1, len(turn))  # (n, 1009)
        across = rows @ (turn * 0.7).sin()  # (n,)
        down = torch.arange(1, len(across) + 1, device=flat.device, dtype=flat.dtype)
        found.append(torch.stack([across @ (down * 0.3).cos(), across @ (down * 1.1).sin()]).double().cpu())
    return torch.stack(found) if found else torch.zeros(0, 2, dtype=torch.float64, device="cpu")
