"""The LSTM encoder-decoder against plain loops over single items, in float64."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor

import modhook
from modhook_plugins.networks.seq2seq_lstm import EncoderDecoder, Seq2SeqLSTM, Seq2SeqLSTMOptions

SOURCE, TARGET = 9, 6


def build(layers: int = 2, dropout: float = 0.0) -> EncoderDecoder:
    """Return a small network in float64."""
    torch.manual_seed(3)
    net = EncoderDecoder(SOURCE, TARGET, embedding=4, hidden=7, layers=layers, dropout=dropout).double()
    # Larger weights than the initial ones, so that what is written depends on what was read.
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(1 if "bias" in name else 5)
    return net


def batch(padding: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return source (5, S), lengths and target (5, T); beyond its length a source holds `padding`."""
    rng = torch.Generator().manual_seed(1)
    lengths = torch.tensor([6, 1, 3, 6, 2])
    source = torch.randint(1, SOURCE, (5, 6), generator=rng)
    source = torch.where(torch.arange(6) < lengths[:, None], source, padding)
    return source, lengths, torch.randint(0, TARGET, (5, 8), generator=rng)


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_padding_never_reaches_an_item(forced: bool, layers: int) -> None:
    """An item's logits are the same alone, without padding, as in a batch with longer ones."""
    net = build(layers)
    source, lengths, target = batch()
    together = net(source, lengths, target, teacher_forcing=forced)
    assert together.shape == (5, 8, TARGET)
    torch.testing.assert_close(net(*batch(padding=5), teacher_forcing=forced), together, rtol=0, atol=0)
    for i, n in enumerate(lengths.tolist()):
        alone = net(source[i : i + 1, :n], lengths[i : i + 1], target[i : i + 1], teacher_forcing=forced)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def test_encoder_state_is_the_stock_layers_own() -> None:
    """The state handed over is that of one plain pass of the stock LSTM over each item, its last token included."""
    net = build()
    source, lengths, _ = batch()
    h, c = net.encode(source, lengths)
    for i, n in enumerate(lengths.tolist()):
        _, (h_alone, c_alone) = net.encoder(net.source_embedding(source[i : i + 1, :n]))
        torch.testing.assert_close(h[:, i], h_alone[:, 0], rtol=0, atol=1e-12)
        torch.testing.assert_close(c[:, i], c_alone[:, 0], rtol=0, atol=1e-12)


def test_teacher_forcing_equals_step_by_step() -> None:
    """One pass over the true tokens gives what feeding them one at a time gives."""
    net = build()
    source, lengths, target = batch()
    forced = net(source, lengths, target, teacher_forcing=True)
    state, token = net.encode(source, lengths), torch.full((5, 1), TARGET)
    for t in range(target.shape[1]):
        logits, state = net.decode(token, state)
        torch.testing.assert_close(logits[:, 0], forced[:, t], rtol=0, atol=1e-12)
        token = target[:, t : t + 1]


def test_forced_with_its_own_tokens_equals_self_fed() -> None:
    """The two ways of decoding are one network: forced with the tokens it wrote itself, it writes them again."""
    net = build()
    source, lengths, target = batch()
    own = net(source, lengths, target, teacher_forcing=False)
    torch.testing.assert_close(net(source, lengths, own.argmax(-1), teacher_forcing=True), own, rtol=0, atol=1e-12)


def test_self_fed_equals_a_loop_over_items() -> None:
    """Greedy decoding equals a plain per-item loop over the stock layers."""
    net = build()
    source, lengths, target = batch()
    logits = net(source, lengths, target, teacher_forcing=False)
    written = []
    for i, n in enumerate(lengths.tolist()):
        _, state = net.encoder(net.source_embedding(source[i, :n])[None])
        token, tokens = TARGET, []
        for t in range(target.shape[1]):
            read, state = net.decoder(net.target_embedding(torch.tensor([[token]])), state)
            scores = net.output(read)[0, 0]
            torch.testing.assert_close(logits[i, t], scores, rtol=0, atol=1e-12)
            token = int(scores.argmax())
            tokens.append(token)
        written.append(tuple(tokens))
    assert len(set(written)) > 1, "the items must differ, or the comparison shows nothing"


def test_self_fed_reads_nothing_of_the_target() -> None:
    """Without teacher forcing the reference gives its length and no token."""
    net = build()
    source, lengths, target = batch()
    own = net(source, lengths, target, teacher_forcing=False)
    torch.testing.assert_close(net(source, lengths, target * 0, teacher_forcing=False), own, rtol=0, atol=0)


@pytest.mark.parametrize("forced", [True, False])
def test_dropout_acts_in_training_alone(forced: bool) -> None:
    """Dropout is off in eval mode, also in greedy decoding."""
    net = build(dropout=0.5)
    arguments = batch()
    assert not torch.equal(net(*arguments, teacher_forcing=forced), net(*arguments, teacher_forcing=forced))
    net.eval()
    torch.testing.assert_close(
        net(*arguments, teacher_forcing=forced), net(*arguments, teacher_forcing=forced), rtol=0, atol=0
    )


def test_parameter_names_serve_the_study() -> None:
    """The study's patterns leave exactly the LSTMs' and the readout's matrices to be masked."""
    names = [name for name, _ in build().named_parameters()]
    masked = [n for n in names if not any(fnmatchcase(n, p) for p in ("*embedding*", "*bias*"))]
    layers = [f"{lstm}.weight_{kind}_l{k}" for lstm in ("encoder", "decoder") for k in (0, 1) for kind in ("ih", "hh")]
    assert sorted([*layers, "output.weight"]) == sorted(masked)


def test_plugin_builds_the_paper_network_by_default() -> None:
    """Embedding 16, two layers of 200, dropout 0.5."""
    net = Seq2SeqLSTM(Seq2SeqLSTMOptions()).build({"source_vocabulary": 14, "target_vocabulary": 7})
    assert isinstance(net, EncoderDecoder)
    encoder = net.encoder
    assert (encoder.input_size, encoder.hidden_size, encoder.num_layers, encoder.dropout) == (16, 200, 2, 0.5)
    assert (net.dropout.p, net.decoder.dropout, tuple(net.target_embedding.weight.shape)) == (0.5, 0.5, (8, 16))


def test_plugin_refuses_another_kind_of_task() -> None:
    """A task that is not sequence to sequence is refused with what is missing."""
    with pytest.raises(modhook.UserError, match="source_vocabulary and target_vocabulary; this one's has inputs, out"):
        Seq2SeqLSTM(Seq2SeqLSTMOptions()).build({"inputs": 42, "outputs": 20})


@pytest.mark.parametrize("forced", [True, False])
def test_runs_stacked_without_a_loop(forced: bool) -> None:
    """Three parameter sets run at once under vmap, and give outputs and gradients of three plain networks."""
    net = build()
    params = {
        name: torch.stack([p.detach() * scale for scale in (0.5, 1.0, 1.5)]) for name, p in net.named_parameters()
    }
    arguments = [torch.stack([t, t.flip(0), t]) for t in batch()]  # (3, 5, ...)
    stacked = modhook.stack(net, samples=3, executor="vmap")
    together = {name: value.clone().requires_grad_() for name, value in params.items()}
    outputs = stacked(together, *arguments, teacher_forcing=forced)  # (3, 5, T, V)
    outputs.square().sum().backward()
    for k in range(3):
        alone = build().requires_grad_(True)  # the second bias vectors too
        alone.load_state_dict({name: value[k] for name, value in params.items()})
        expected = alone(*(t[k] for t in arguments), teacher_forcing=forced)
        torch.testing.assert_close(outputs[k], expected, rtol=0, atol=1e-10)
        expected.square().sum().backward()
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(together[name].grad[k], parameter.grad, rtol=1e-8, atol=1e-8, msg=name)


def test_initialisation() -> None:
    """Both LSTMs as the paper's: forget bias 1 and no other, one bias that learns, Xavier deviations, an orthogonal cell gate.

    Embeddings are standard normal and the readout is uniform within 1 / sqrt(fan in), torch's own.
    """
    torch.manual_seed(0)
    net = Seq2SeqLSTM(Seq2SeqLSTMOptions()).build({"source_vocabulary": 13, "target_vocabulary": 6})
    assert isinstance(net, EncoderDecoder)
    for lstm in (net.encoder, net.decoder):
        for layer, fan_in in ((0, 16), (1, 200)):
            bias, second = getattr(lstm, f"bias_ih_l{layer}"), getattr(lstm, f"bias_hh_l{layer}")
            assert bias.view(4, 200).unique(dim=1).flatten().tolist() == [0, 1, 0, 0]
            assert not second.any()
            assert (bias.requires_grad, second.requires_grad) == (True, False)
            for gate, matrix in enumerate(getattr(lstm, f"weight_ih_l{layer}").detach().chunk(4)):
                expected = (5 / 3 if gate == 2 else 1) * (2 / (fan_in + 200)) ** 0.5 / 2**0.5
                assert abs(float(matrix.std()) / expected - 1) < 0.05
            own = getattr(lstm, f"weight_hh_l{layer}").detach().chunk(4)
            for gate in (0, 1, 3):
                assert abs(float(own[gate].std()) / (1 / 200**0.5 / 2**0.5) - 1) < 0.05
            torch.testing.assert_close(own[2] @ own[2].T, torch.eye(200) * (5 / 3) ** 2 / 2, rtol=0, atol=1e-5)
    weights = torch.cat([net.source_embedding.weight.flatten(), net.target_embedding.weight.flatten()])
    assert abs(float(weights.detach().std()) - 1) < 0.15
    for readout in (net.output.weight, net.output.bias):
        assert float(readout.detach().abs().max()) <= 1 / 200**0.5
    assert float(net.output.weight.detach().abs().max()) > 0.95 / 200**0.5
