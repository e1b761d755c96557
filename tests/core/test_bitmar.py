"""The whole model: gradients everywhere, causality, batches, the cache, the fleet, the documented sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fakes import Inputs, random_candidates, random_inputs, set_scope, tiny_config, tiny_model, with_gates

from bitmar_core.config import base
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.bitmar import BitMar, create_bitmar_model
from bitmar_core.model.reasoning import QUALITIES
from bitmar_core.training.batches import MemoryBatch, TaskBatch
from bitmar_core.training.losses import language_loss, total
from bitmar_core.training.robots import WEIGHTS, batch_losses


def task_batch(inputs: Inputs) -> TaskBatch:
    gold = F.one_hot(inputs.chosen, len(inputs.card_ids)).float()
    return TaskBatch(
        ids=inputs.ids, mask=inputs.mask, card_ids=inputs.card_ids, card_mask=inputs.card_mask, gold=gold, robot_mask=torch.ones_like(gold),
        features=inputs.features, has_image=inputs.has_image,
    )  # fmt: skip


def memory_batch(inputs: Inputs) -> MemoryBatch:
    """Two rewordings and two neighbours, each beside the stories of all four."""
    candidates = torch.arange(4).expand(4, -1)
    inside = torch.tensor([True, True, False, False])
    return MemoryBatch(
        story_ids=inputs.ids.flip(0), story_mask=inputs.mask.flip(0), ids=inputs.ids, mask=inputs.mask, card_ids=inputs.card_ids, card_mask=inputs.card_mask,
        taught=torch.tensor([0, 1, 2, 0]), candidates=candidates, scope=torch.eye(4) * inside[:, None], owner=torch.tensor([0, 1, -1, -1]),
        gold=F.one_hot(torch.tensor([0, 1, 2, 1]), 3).float(),
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["bitnet", "bert"])
def test_every_parameter_gets_a_gradient_in_one_step(layout: str):
    """Selection (photos and none), memory, the decoder's language loss and quality, in one backward pass."""
    config = tiny_config(layout=layout)
    model = with_gates(tiny_model(config))
    inputs = random_inputs(config)
    parts = [total(batch_losses(model, batch), WEIGHTS) for batch in (task_batch(inputs), memory_batch(inputs))]
    output = model(**inputs.call(candidates=random_candidates(config)))
    parts += [language_loss(output.logits, inputs.chain.roll(-1, 1)), F.binary_cross_entropy_with_logits(output.quality_logits, torch.rand(4, 4))]
    torch.stack(parts).sum().backward()
    # A bias of attention keys adds the same to every score of a softmax, so its gradient is nothing but rounding, as in BERT.
    idle = {name for name, _ in model.named_parameters() if layout == "bert" and name.endswith("attention.key.bias")}
    without = [
        name for name, p in model.named_parameters() if p.requires_grad and name not in idle and (p.grad is None or not float(p.grad.abs().max()) > 1e-9)
    ]
    assert without == [], f"no gradient: {', '.join(without)}"
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_training_lowers_the_loss():
    config = tiny_config()
    model, inputs = tiny_model(config), random_inputs(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        output = model(**inputs.call())
        loss = total(batch_losses(model, task_batch(inputs)), WEIGHTS) + language_loss(output.logits, inputs.chain.roll(-1, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0], losses


def test_changing_a_token_changes_no_logit_before_it(model: BitMar):
    inputs = random_inputs(model.config)
    logits = model(**inputs.call()).logits
    for t in (0, 4, 11):
        chain = inputs.chain.clone()
        chain[:, t] = (chain[:, t] + 1) % model.config.decoder.vocab_size
        changed = model(**inputs.call(decoder_input_ids=chain)).logits
        assert torch.equal(changed[:, :t], logits[:, :t])
        assert not torch.allclose(changed[:, t:], logits[:, t:], atol=1e-3)


@pytest.mark.parametrize("layout", ["bitnet", "bert"])
@torch.no_grad()
def test_alone_and_in_a_padded_batch_agree(layout: str):
    """Rows of 9, 7, 5 and 3 tokens, every other with a photo, with memory."""
    config = tiny_config(layout=layout)
    model = set_scope(with_gates(tiny_model(config)), 0.4).eval()
    inputs, candidates = random_inputs(config), random_candidates(config)
    together = model(**inputs.call(candidates=candidates))
    for row in range(4):
        one, length = slice(row, row + 1), int(inputs.mask[row].sum())
        alone = model(
            inputs.ids[one, :length], inputs.mask[one, :length], inputs.features[one] if inputs.has_image[row] else None, card_ids=inputs.card_ids,
            card_mask=inputs.card_mask, candidates=replace(candidates, **{name: value[one] for name, value in vars(candidates).items()}),
            decoder_input_ids=inputs.chain[one], decoder_sections=inputs.sections[one], slots=inputs.slots, chosen=inputs.chosen[one],
        )  # fmt: skip
        for name in ("probabilities", "logits", "step_logits", "suited_logits", "quality_logits", "memory_key"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[one], rtol=0, atol=1e-4, msg=lambda m, n=name, r=row: f"{n}, row {r}: {m}")


@torch.no_grad()
def test_longer_padding_of_cards_changes_nothing(model: BitMar):
    inputs = random_inputs(model.config)
    wide = F.pad(inputs.card_ids, (0, 5), value=17), F.pad(inputs.card_mask, (0, 5))
    one, two = model(**inputs.call()), model(**inputs.call(card_ids=wide[0], card_mask=wide[1]))
    torch.testing.assert_close(two.probabilities, one.probabilities, rtol=0, atol=1e-4)
    torch.testing.assert_close(two.logits, one.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("decoder", [{}, {"window": 8, "sinks": 3}])
@torch.no_grad()
def test_incremental_decoding_equals_teacher_forcing(decoder: dict):
    model = with_gates(tiny_model(tiny_config(**decoder))).eval()
    inputs = random_inputs(model.config, chain=30)
    output = model(**inputs.call())
    cache, mask = model.start_decoding(output, inputs.chosen, inputs.slots)
    steps = output.trace.states.gather(1, inputs.sections.unsqueeze(-1).expand(-1, -1, 32))
    logits = torch.cat([model.decoder(inputs.chain[:, t : t + 1], steps[:, t : t + 1], cache, mask)[0] for t in range(30)], 1)
    torch.testing.assert_close(logits, output.logits, rtol=0, atol=1e-4)


def test_alpha_zero_is_the_identity():
    model, inputs = tiny_model(), random_inputs(tiny_config())
    reading = model.read(inputs.ids, inputs.mask, inputs.features, inputs.has_image)
    assert torch.equal(reading.fused, reading.text)
    assert torch.equal(reading.patches, model.fusion.project(inputs.features, inputs.has_image, 4)[0])


@torch.no_grad()
def test_the_photo_reaches_the_answer_and_the_text(model: BitMar):
    inputs = random_inputs(model.config)
    one, two = model(**inputs.call()), model(**inputs.call(vision_features=inputs.features.flip(2)))
    changed = [not torch.allclose(one.policy_logits[row], two.policy_logits[row], atol=1e-4) for row in range(4)]
    assert changed == inputs.has_image.tolist()
    assert not torch.allclose(one.logits[0], two.logits[0], atol=1e-4) and torch.equal(one.logits[1], two.logits[1])


@torch.no_grad()
def test_the_order_of_the_fleet_is_only_an_order(model: BitMar):
    inputs, order = random_inputs(model.config), torch.tensor([2, 0, 1])
    one, two = model(**inputs.call()), model(**inputs.call(card_ids=inputs.card_ids[order], card_mask=inputs.card_mask[order]))
    torch.testing.assert_close(two.probabilities, one.probabilities[:, order], rtol=0, atol=1e-4)
    torch.testing.assert_close(two.suited_logits, one.suited_logits[:, order], rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_robot_out_of_the_running_gets_no_probability(model: BitMar):
    inputs = random_inputs(model.config)
    output = model(**inputs.call(robot_mask=torch.tensor([[1, 0, 1]]).expand(4, -1)))
    assert (output.probabilities[:, 1] == 0).all() and output.policy_logits.isfinite().all()
    torch.testing.assert_close(output.probabilities.sum(-1), torch.ones(4))
    torch.testing.assert_close(model.step_probabilities(output)[:, :, 1], torch.zeros(4, 5))


@torch.no_grad()
def test_calibration_softens_and_keeps_the_choice(model: BitMar):
    inputs = random_inputs(model.config)
    sharp = model(**inputs.call())
    model.calibration.fill_(3.0)
    soft = model(**inputs.call())
    assert torch.equal(sharp.policy_logits, soft.policy_logits) and torch.equal(sharp.probabilities.argmax(-1), soft.probabilities.argmax(-1))
    assert (soft.probabilities.max(-1).values < sharp.probabilities.max(-1).values).all()


@torch.no_grad()
def test_the_last_step_is_the_answer(model: BitMar):
    output = model(**random_inputs(model.config).call())
    steps = model.step_probabilities(output)
    assert steps.shape == (4, 5, 3)
    torch.testing.assert_close(steps[:, -1], output.probabilities)
    torch.testing.assert_close(steps.sum(-1), torch.ones(4, 5))


@torch.no_grad()
def test_the_chosen_robot_and_its_slot_reach_the_decoder(model: BitMar):
    inputs = random_inputs(model.config)
    logits = model(**inputs.call()).logits
    assert not torch.allclose(model(**inputs.call(chosen=(inputs.chosen + 1) % 3)).logits, logits, atol=1e-3)
    assert not torch.allclose(model(**inputs.call(slots=inputs.slots.flip(0))).logits, logits, atol=1e-3)


def test_default_fleet_and_what_is_said_without_one(model: BitMar):
    inputs = random_inputs(model.config)
    with pytest.raises(ValueError, match="no fleet"):
        model(inputs.ids, inputs.mask)
    model.set_default_fleet(inputs.card_ids, inputs.card_mask)
    given = model(inputs.ids, inputs.mask, card_ids=inputs.card_ids, card_mask=inputs.card_mask)
    assert torch.equal(model(inputs.ids, inputs.mask).probabilities, given.probabilities)
    assert "default_cards" not in model.state_dict()


def test_selections_and_analysis_are_plain_python(model: BitMar):
    import json

    inputs = random_inputs(model.config)
    output = model(**inputs.call())
    names = ["Crane", "Boat", "No Robot"]
    chosen = model.extract_robot_selections(output, names)
    assert [c["robot"] for c in chosen] == [names[i] for i in output.probabilities.argmax(-1).tolist()]
    for row, choice in enumerate(chosen):
        fit = [names.index(name) for name in choice["suited"]]
        assert set(fit) == set((output.suited_logits[row] > 0).nonzero().flatten().tolist())
        assert choice["confidence"] == pytest.approx(float(output.probabilities[row].detach().max()))
    assert model.extract_robot_selections(output)[0]["robot"] == int(output.probabilities[0].argmax())
    analysis = json.loads(json.dumps(model.get_reasoning_analysis(output, names)))
    assert tuple(analysis["reasoning_quality"][0]) == QUALITIES and len(analysis["step_values"][0]) == 5


def test_quality_is_judged_by_section(model: BitMar):
    output = model(**random_inputs(model.config).call())
    states, sections, mask = torch.randn(4, 6, 32), torch.tensor([[0, 1, 2, 3, 4, 4]]).expand(4, -1), torch.ones(4, 6)
    scores = model.judge(output, states, sections, mask)
    padded = F.pad(states, (0, 0, 0, 3), value=9.0), F.pad(sections, (0, 3)), F.pad(mask, (0, 3))
    torch.testing.assert_close(model.judge(output, *padded), scores)
    assert not torch.allclose(model.judge(output, states.flip(1), sections, mask), scores, atol=1e-5)


def test_frozen_model_equals_the_training_graph(model: BitMar):
    inputs = random_inputs(model.config)
    with torch.no_grad():
        before = model(**inputs.call())
        for part in model.modules():
            if isinstance(part, BitLinear):
                part.freeze()
        after = model(**inputs.call())
    assert torch.equal(after.logits, before.logits) and torch.equal(after.probabilities, before.probabilities)


def test_same_seed_same_weights():
    one, two, other = tiny_model(seed=5).state_dict(), tiny_model(seed=5).state_dict(), tiny_model(seed=6).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_base_has_the_documented_sizes():
    with torch.device("meta"):
        model = create_bitmar_model("base")
    shape = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shape["encoder.embedding.weight"] == (8192, 768) and model.config.vision.encoder == "dinov2"
    assert len(model.encoder.blocks) == len(model.decoder.blocks) == 4
    assert shape["encoder.blocks.0.feed_forward.up.weight"] == (3072, 768) and shape["decoder.blocks.0.feed_forward.up.weight"] == (2048, 768)
    assert model.encoder.blocks[0].attention.heads == 12 and model.decoder.blocks[0].heads == 12
    assert shape["fusion.patch_positions"] == (256, 768) and len(model.fusion.blocks) == 2
    assert {block.text.cross_attention.heads for block in model.fusion.blocks} == {4}
    assert shape["reasoning.step_embedding"] == (5, 768)
    assert shape["reasoning.cell.weight_ih"] == shape["reasoning.cell.weight_hh"] == (4 * 512, 512)
    for head in ("policy.trunk", "policy.suited", "reasoning.value"):
        assert shape[f"{head}.first.weight"] == (256, 768) and shape[f"{head}.second.weight"] == (128, 256)
    assert shape["reasoning.value.last.weight"] == shape["policy.suited.last.weight"] == (1, 128)
    assert shape["policy.card_key.weight"] == (128, 768)
    assert base().memory.slots == 32 and shape["memory.key.weight"] == (128, 768) and shape["memory.value.weight"] == (128, 768 + 128)
    assert base().grpo_reasoning.reasoning_steps == 5


@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_every_preset_can_be_built(preset: str):
    with torch.device("meta"):
        assert create_bitmar_model(preset).config.preset == preset
