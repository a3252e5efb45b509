"""Networks with adapters of PEFT: what their own `save_pretrained` writes, and what masks would be lost by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import modhook
from modhook import UserError
from modhook.masks import Masks

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own call into transformers


def networks() -> tuple[Any, Any]:
    """Return a tiny language model, and a copy of it with LoRA whose adapters say something."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2, n_inner=16)
    base = transformers.GPT2LMHeadModel(config).eval()
    lora = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False, task_type="CAUSAL_LM")
    return base, peft.get_peft_model(copy.deepcopy(base), lora).eval()


def halves(net: Any, chosen: str) -> Masks:
    """Return masks that keep every second weight of the parameters whose name has this in it."""
    return Masks({n: (torch.arange(p.numel()) % 2 == 0).view(p.shape) for n, p in net.named_parameters() if chosen in n}, net)


def test_masks_of_adapters_are_saved_with_them(tmp_path: Path) -> None:
    """The folder that PEFT writes has the masked adapters, and only they differ from the base."""
    base, net = networks()
    tokens = torch.randint(0, 32, (3, 8))
    masks = halves(net, "lora_")
    with masks.applied_to(net), torch.no_grad():
        wanted = net(tokens).logits
    path = modhook.export.checkpoint(masks, net, tmp_path / "saved")
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), path).eval()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, wanted)


def test_masks_that_adapters_do_not_hold_are_refused(tmp_path: Path) -> None:
    """PEFT would write the network without its masks: said in one sentence, and nothing is written."""
    _, net = networks()
    with pytest.raises(UserError, match=r"saves its adapters alone.*c_proj.*include=.*merge_and_unload"):
        modhook.export.checkpoint(halves(net, "c_proj"), net, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
