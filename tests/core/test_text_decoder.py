"""The text decoder: causality, the cache, the sliding window and its sinks."""

from __future__ import annotations

import pytest
import torch
from fakes import tiny_config

from bitmar_core.model.text_decoder import TextDecoder


def make(**decoder: int) -> TextDecoder:
    torch.manual_seed(0)
    return TextDecoder(tiny_config(**decoder)).eval()


def inputs(tokens: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids (B, T), steps (B, T, D), memory (B, S, D), memory mask (B, S)."""
    g = torch.Generator().manual_seed(1)
    mask = torch.ones(batch, 6, dtype=torch.bool)
    mask[0, 4:] = False
    ids = torch.randint(0, 600, (batch, tokens), generator=g)
    return ids, torch.randn(batch, tokens, 32, generator=g), torch.randn(batch, 6, 32, generator=g), mask


@pytest.mark.parametrize("window", [320, 8])
def test_a_token_changes_no_logit_before_it(window: int):
    decoder = make(window=window)
    ids, steps, memory, mask = inputs(14)
    logits = decoder(ids, steps, decoder.start(memory), mask)[0]
    for t in (0, 5, 13):
        changed, moved = ids.clone(), steps.clone()
        changed[:, t] = (ids[:, t] + 1) % 600
        moved[:, t] += 1
        again = decoder(changed, moved, decoder.start(memory), mask)[0]
        assert torch.equal(again[:, :t], logits[:, :t])
        assert not torch.allclose(again[:, t], logits[:, t], atol=1e-3)


@pytest.mark.parametrize(("window", "sinks"), [(320, 4), (8, 0), (8, 3), (9, 20)])
@pytest.mark.parametrize("chunk", [1, 5])
def test_cached_decoding_equals_full(window: int, sinks: int, chunk: int):
    """40 tokens, five windows long, in pieces and at once."""
    decoder = make(window=window, sinks=sinks)
    ids, steps, memory, mask = inputs(40)
    full, states = decoder(ids, steps, decoder.start(memory), mask)
    cache = decoder.start(memory)
    parts = [decoder(ids[:, i : i + chunk], steps[:, i : i + chunk], cache, mask) for i in range(0, 40, chunk)]
    torch.testing.assert_close(torch.cat([p[0] for p in parts], 1), full, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cat([p[1] for p in parts], 1), states, rtol=0, atol=1e-4)
    assert cache.length == 40
    assert cache.keys[0].shape[2] == len(cache.positions) <= min(40, window + sinks), "the cache grows without bound"


def test_window_and_sinks_are_what_is_seen():
    decoder = make(window=8, sinks=2)
    seen = decoder.allowed(torch.tensor([20]), torch.arange(24))[0]
    assert seen.nonzero().flatten().tolist() == [0, 1, *range(13, 21)]


def test_a_token_out_of_the_window_is_out_unless_it_is_a_sink():
    """One layer, so that nothing is passed on from token to token."""
    ids, steps, memory, mask = inputs(12)
    changed = ids.clone()
    changed[:, 1] = (ids[:, 1] + 1) % 600
    for sinks, same in ((1, True), (2, False)):
        decoder = make(window=8, sinks=sinks, layers=1)
        one, two = (decoder(row, steps, decoder.start(memory), mask)[0][:, 11] for row in (ids, changed))
        assert torch.equal(one, two) is same


def test_reads_its_memory_but_not_where_it_is_masked():
    decoder = make()
    ids, steps, memory, mask = inputs(5)
    logits = decoder(ids, steps, decoder.start(memory), mask)[0]
    hidden, shown = memory.clone(), memory.clone()
    hidden[0, 4:] = 7.0
    shown[0, 0] = 7.0
    assert torch.equal(decoder(ids, steps, decoder.start(hidden), mask)[0], logits)
    assert not torch.allclose(decoder(ids, steps, decoder.start(shown), mask)[0][0], logits[0], atol=1e-3)


def test_dropout_acts_in_training_only():
    config = tiny_config()
    from dataclasses import replace

    torch.manual_seed(0)
    decoder = TextDecoder(replace(config, decoder=replace(config.decoder, dropout=0.5)))
    ids, steps, memory, mask = inputs(5)
    assert not torch.equal(decoder(ids, steps, decoder.start(memory), mask)[0], decoder(ids, steps, decoder.start(memory), mask)[0])
    decoder.eval()
    assert torch.equal(decoder(ids, steps, decoder.start(memory), mask)[0], decoder(ids, steps, decoder.start(memory), mask)[0])


def test_embeddings_are_tied():
    decoder = make()
    assert [name for name, p in decoder.named_parameters() if 600 in p.shape] == ["embedding.weight"]
