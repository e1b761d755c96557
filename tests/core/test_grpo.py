"""The GRPO stage: its losses against formulas written out, its log-probabilities against the engine's sampler, its loop on a toy set."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch

from bitmar_core.config import BitMarConfig, GRPOConfig, tiny
from bitmar_core.data.robot_tasks import RobotTask
from bitmar_core.errors import BitMarError
from bitmar_core.inference.engine import Engine, Written
from bitmar_core.inference.sampling import pick
from bitmar_core.model.bitlinear import BitLinear
from bitmar_core.model.bitmar import create_bitmar_model
from bitmar_core.robots import parse_fleet
from bitmar_core.tokenizer import ReaderTokenizer, WriterTokenizer, train_bpe
from bitmar_core.training import grpo
from bitmar_core.training.grpo import (
    GRPOStep,
    chain_weights,
    choice_log_probs,
    collect,
    decide,
    entropy,
    kl_k3,
    policy_loss,
    robot_log_probs,
    sample,
    score,
    served,
    surrogate,
    tasks_of_step,
    train_grpo,
    value_loss,
)
from bitmar_core.training.rewards import Reward

FLEET = parse_fleet(
    {
        "name": "toy",
        "robots": [{"name": "Drone", "capabilities": ["flies"]}, {"name": "Boat", "capabilities": ["swims"]}, {"name": "Cart", "capabilities": ["rolls"]}],
    },
    where="toy",
)
OTHER = parse_fleet({"name": "other", "robots": [{"name": "Crane", "capabilities": ["lifts"]}, {"name": "Mole", "capabilities": ["digs"]}]}, where="other")
TASKS = [
    RobotTask(id="a", task="Photograph the roof from above.", gold=("Drone",), fleet=FLEET),
    RobotTask(id="b", task="Look at the hull under water.", gold=("Boat",), fleet=FLEET),
    RobotTask(id="c", task="Roll the heavy crates over the flat floor.", gold=("Cart",), fleet=FLEET),
    RobotTask(id="d", task="Film the top of the mast.", gold=("Drone",), fleet=FLEET),
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    train_bpe([task.task for task in TASKS] * 3, 420, path)
    return ReaderTokenizer(path, 64), WriterTokenizer(path)


def toy(**settings) -> BitMarConfig:
    config = tiny()
    return dataclasses.replace(
        config, inference=dataclasses.replace(config.inference, section_tokens=4), text=dataclasses.replace(config.text, layers=1),
        decoder=dataclasses.replace(config.decoder, layers=1),
        grpo_reasoning=GRPOConfig(**({"group_size": 4, "batch_size": 2, "steps": 4, "learning_rate": 3e-3} | settings)),
    )  # fmt: skip


def fresh(config: BitMarConfig):
    torch.manual_seed(1)
    return create_bitmar_model(config).eval()


# --- losses ---


def test_the_gradient_is_the_one_worked_out_by_hand():
    # d/dθ of -min(ρA, clip(ρ)A) is -Aρ where the clip does not decide, else 0; of the k3 term 1 - e^lr.
    new = torch.tensor([[math.log(1.1), math.log(1.5), math.log(0.5), 0.0], [math.log(0.7), math.log(1.5), math.log(0.9), math.log(3.0)]], requires_grad=True)
    old, mask = torch.zeros(2, 4), torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    reference = torch.full((2, 4), math.log(0.8))
    loss = policy_loss(new, old, torch.tensor([2.0, -1.0]), mask, kind="grpo", clip_low=0.2, clip_high=0.3, longest=10, reference=reference, kl_weight=0.5)
    loss.backward()
    surrogate_slopes = torch.tensor([[-2 * 1.1, 0.0, -2 * 0.5, 0.0], [0.0, 1 * 1.5, 1 * 0.9, 1 * 3.0]])
    kl_slopes = 1 - torch.tensor([[0.8 / 1.1, 0.8 / 1.5, 0.8 / 0.5, 1.0], [0.8 / 0.7, 0.8 / 1.5, 0.8 / 0.9, 0.8 / 3.0]])
    expected = (surrogate_slopes + 0.5 * kl_slopes) * mask / torch.tensor([[2 * 3.0], [2 * 4.0]])
    assert torch.allclose(new.grad, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
def test_loss_kinds_against_their_formulas(kind):
    generator = torch.Generator().manual_seed(3)
    lengths, longest, low, high, beta = [2, 5, 1], 9, 0.1, 0.25, 0.3
    new, old, reference = (-torch.rand(3, 5, generator=generator) * 2 for _ in range(3))
    gained = [0.7, -1.2, 0.4]
    total, tokens = 0.0, 0
    for i, n in enumerate(lengths):
        inner = 0.0
        for t in range(n):
            ratio = math.exp(float(new[i, t] - old[i, t]))
            clipped = min(max(ratio, 1 - low), 1 + high)
            lr = float(reference[i, t] - new[i, t])
            inner += -min(ratio * gained[i], clipped * gained[i]) + beta * (math.exp(lr) - lr - 1)
        tokens += n
        total += {"grpo": inner / n / 3, "dr_grpo": inner / longest / 3, "dapo": inner}[kind]
    total /= tokens if kind == "dapo" else 1
    mask = (torch.arange(5) < torch.tensor(lengths).unsqueeze(1)).float()
    got = policy_loss(new, old, torch.tensor(gained), mask, kind=kind, clip_low=low, clip_high=high, longest=longest, reference=reference, kl_weight=beta)
    assert float(got) == pytest.approx(total, rel=1e-5)


def test_clip_bounds_are_asymmetric_and_counted():
    ratio = torch.tensor([0.5, 0.85, 1.0, 1.25, 1.5])
    losses, clipped = surrogate(ratio.log(), torch.zeros(5), torch.ones(5), clip_low=0.2, clip_high=0.3)
    assert torch.allclose(losses, -torch.tensor([0.5, 0.85, 1.0, 1.25, 1.3])) and clipped.tolist() == [0, 0, 0, 0, 1]
    losses, clipped = surrogate(ratio.log(), torch.zeros(5), -torch.ones(5), clip_low=0.2, clip_high=0.3)
    assert torch.allclose(losses, torch.tensor([0.8, 0.85, 1.0, 1.25, 1.5])) and clipped.tolist() == [1, 0, 0, 0, 0]


def test_kl_estimate_is_unbiased_and_never_negative():
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    each = kl_k3(p.log(), q.log())
    assert bool((each >= 0).all())
    assert float((p * each).sum()) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert float(kl_k3(p.log(), p.log()).abs().max()) == 0.0


def test_value_loss_and_entropy_by_hand():
    # Task 0: steps 1 and 2 against rewards 0 and 2: (1 + 1 + 4 + 0) / 4. Task 1: exact.
    assert value_loss(torch.tensor([[1.0, 2.0], [0.5, 0.5]]), torch.tensor([[0.0, 2.0], [0.5, 0.5]])).tolist() == [1.5, 0.0]
    assert float(entropy(torch.tensor([0.5, 0.25, 0.25]).log())) == pytest.approx(1.5 * math.log(2))
    with pytest.raises(ValueError, match="no loss 'ppo'"):
        chain_weights(torch.tensor([1]), "ppo", 4)


def test_choices_are_those_of_the_sampler():
    generator = torch.Generator().manual_seed(5)
    for seed in range(40):
        logits = torch.randn(30, generator=generator) * 3
        banned, held = torch.rand(30, generator=generator) < 0.3, torch.rand(30, generator=generator) < 0.3
        table = choice_log_probs(logits.unsqueeze(0), banned.unsqueeze(0), held.unsqueeze(0), penalty=1.3, temperature=0.6)[0]
        assert float(table.exp().sum()) == pytest.approx(1.0, abs=1e-5) and float(table[banned].exp().sum()) == 0.0
        assert math.isfinite(float(entropy(table)))
        theirs = pick(
            logits, banned=banned.nonzero().flatten().tolist(), repeated=held.nonzero().flatten().tolist(), penalty=1.3, temperature=0.6,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        assert theirs == int(torch.multinomial(table.exp(), 1, generator=torch.Generator().manual_seed(seed)))


# --- sampling and scoring ---


@pytest.fixture(scope="module")
def sampled(tokenizers):
    config = toy()
    model = fresh(config)
    return model, sample(model, TASKS[:2], *tokenizers, torch.Generator().manual_seed(2))


def test_chains_follow_the_grammar_and_differ(sampled, tokenizers):
    _, rollouts = sampled
    assert len(rollouts) == 8 and [r.task.id for r in rollouts] == ["a"] * 4 + ["b"] * 4
    assert len({tuple(r.ids) for r in rollouts}) == 8 and len({r.robot for r in rollouts}) > 1
    for r in rollouts:
        assert r.stopped == "finished" and len(r.ids) == len(r.steps) and len(r.free) == len(r.banned) == len(r.log_probs)
        assert all(r.ids[position] not in ban for position, ban in zip(r.free, r.banned, strict=True))
        slot = tokenizers[1].robots[r.robot]
        assert r.ids[r.ids.index(tokenizers[1].sections[-1]) + 1] == slot
        assert r.reward.parts["chosen"] == float(FLEET.names[r.robot] in r.task.gold)


def test_log_probabilities_are_those_of_what_was_done(sampled, tokenizers):
    model, rollouts = sampled
    now = score(model, rollouts, *tokenizers)
    assert torch.allclose(now.robot, torch.tensor([r.robot_log_prob for r in rollouts]), atol=1e-4)
    # Token by token and all at once differ by rounding alone; 8-bit activations may round the other way here and there.
    assert (now.words - torch.tensor([v for r in rollouts for v in r.log_probs])).abs().max() < 2e-3
    assert now.words.requires_grad and now.robot.requires_grad
    # Another choice of robot or of a word is another probability.
    other = copy.deepcopy(rollouts)
    other[0].robot = (other[0].robot + 1) % 3
    other[0].ids[other[0].free[0]] = next(i for i in range(len(tokenizers[1].special), 420) if i != other[0].ids[other[0].free[0]])
    again = score(model, other, *tokenizers)
    assert float((again.robot[0] - now.robot[0]).abs().detach()) > 1e-4 and float((again.words[0] - now.words[0]).abs().detach()) > 1e-4
    assert torch.equal(again.robot[1:], now.robot[1:])


def test_words_are_scored_as_the_engine_writes_them(sampled, tokenizers):
    """What the engine writes with a seed has, by `score`, the probabilities that the engine drew it with."""
    model, rollouts = sampled
    reader, writer = tokenizers
    written, drawn = Written(), []

    def watched(logits, **options):
        token = pick(logits, **options)
        banned, held = torch.zeros(1, len(logits), dtype=torch.bool), torch.zeros(1, len(logits), dtype=torch.bool)
        banned[0, options["banned"]], held[0, options["repeated"]] = True, True
        drawn.append(float(choice_log_probs(logits.unsqueeze(0), banned, held, penalty=options["penalty"], temperature=options["temperature"])[0, token]))
        banned_lists.append(tuple(options["banned"]))
        return token

    banned_lists: list[tuple[int, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bitmar_core.inference.engine.pick", watched)
        pieces = list(Engine(model, writer).write(decide(model, TASKS[:1], reader), 1, written, seed=4))
    group = copy.deepcopy(rollouts[:4])
    group[0].robot, group[0].ids, group[0].steps, group[0].banned = 1, written.ids, written.steps, banned_lists
    group[0].free = [i for i, piece in enumerate(pieces) if not piece.forced]
    with torch.no_grad():
        words = score(model, group, reader, writer).words[: len(drawn)]
    assert len(group[0].free) == len(drawn) > 10
    assert (words - torch.tensor(drawn)).abs().max() < 2e-3


def test_the_served_copy_gives_the_same_numbers(sampled, tokenizers):
    model, rollouts = sampled
    ours, theirs = score(model, rollouts, *tokenizers), score(served(model), rollouts, *tokenizers)
    assert torch.allclose(ours.words, theirs.words, atol=1e-5) and torch.allclose(ours.robot, theirs.robot, atol=1e-5)
    assert not theirs.words.requires_grad and ours.words.requires_grad


def test_robots_are_drawn_by_the_policy_at_its_temperature(tokenizers):
    config = toy(group_size=600, temperature=2.0)
    model = fresh(dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, max_tokens=32)))
    model.calibration.fill_(0.05)  # so that the probabilities differ
    rollouts = sample(model, TASKS[:1], *tokenizers, torch.Generator().manual_seed(0))
    shares = torch.bincount(torch.tensor([r.robot for r in rollouts]), minlength=3) / 600
    output = decide(model, TASKS[:1], tokenizers[0])
    wanted = (output.policy_logits[0] / 0.05 / 2.0).softmax(-1)
    assert torch.allclose(robot_log_probs(model, output, 2.0)[0].exp(), wanted)
    assert (wanted - 1 / 3).abs().max() > 0.05
    assert (shares - wanted).abs().max() < 0.07
    # Chains that are cut say so and are rewarded as they stand.
    assert {r.stopped for r in rollouts} == {"length"} and max(len(r.ids) for r in rollouts) == 32


def test_the_loop_sums_the_loss_that_the_formula_gives(tokenizers):
    config = toy(loss="dapo", clip_low=0.1, clip_high=0.3, advantage="group+value", reward_scaling=0.5)
    model, settings = fresh(config), config.grpo_reasoning
    reference = fresh(config)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    tasks = [*TASKS[:3], RobotTask(id="e", task="Dig under the wall.", gold=("Mole",), fleet=OTHER)]
    batches = collect(model, reference, tasks, *tokenizers, seed="x", at_once=2)
    assert [len(b.rollouts) for b in batches] == [8, 4, 4]
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(1.2)
    counts = torch.tensor([len(r.free) for b in batches for r in b.rollouts])
    weights = chain_weights(counts, settings.loss, config.decoder.max_tokens).split([8, 4, 4])
    total = sum(grpo.batch_loss(model, b, w, 16, *tokenizers)[0] for b, w in zip(batches, weights, strict=True))

    expected, padded = 0.0, {"new": [], "old": [], "ref": []}
    gained, robot = [], {"new": [], "old": [], "ref": []}
    for b in batches:
        now = score(model, b.rollouts, *tokenizers)
        sizes = [len(r.free) for r in b.rollouts]
        padded["new"] += now.words.split(sizes)
        padded["old"] += b.words_old.split(sizes)
        padded["ref"] += b.reference.words.split(sizes)
        robot["new"].append(now.robot)
        robot["old"].append(b.robot_old)
        robot["ref"].append(b.reference.robot)
        gained.append(b.advantage)
        expected -= settings.entropy_weight * (now.robot_entropy.sum() / 16 + now.word_entropy.sum() / counts.sum())
        expected += settings.value_loss_weight * value_loss(now.values, b.rewards).sum() / 4
    table = {name: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for name, rows in padded.items()}
    mask = (torch.arange(table["new"].shape[1]) < counts.unsqueeze(1)).float()
    options = {"kind": "dapo", "clip_low": 0.1, "clip_high": 0.3, "longest": config.decoder.max_tokens, "kl_weight": settings.kl_weight}
    expected += policy_loss(table["new"], table["old"], torch.cat(gained), mask, reference=table["ref"], **options)
    line = {name: torch.cat(rows).unsqueeze(1) for name, rows in robot.items()}
    expected += policy_loss(line["new"], line["old"], torch.cat(gained), torch.ones(16, 1), reference=line["ref"], **options)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert float(batches[0].rewards.max()) <= 1.0  # scaled by a half


# --- the loop ---


def run(config, tokenizers, out, tasks=TASKS, **options) -> list[GRPOStep]:
    return list(train_grpo(fresh(config), tasks, *tokenizers, config, out=out, **options))


def test_the_mean_reward_rises(tokenizers, tmp_path):
    config = toy(steps=18, batch_size=4, group_size=8, learning_rate=6e-3, kl_weight=0.0)
    events = run(config, tokenizers, tmp_path, at_once=4, save_every=1000)
    mean = [sum(e.reward for e in part) / len(part) for part in (events[:6], events[-6:])]
    success = [sum(e.parts["task_success"] for e in part) / len(part) for part in (events[:6], events[-6:])]
    assert mean[1] > mean[0] + 0.25, mean
    assert success[1] > success[0] + 0.2, success
    last = events[-1]
    assert (last.step, last.total) == (18, 18) and last.finished == 1.0 and 0 <= last.zero_std <= 1
    assert last.parts["task_success"] + last.parts["reasoning_quality"] == pytest.approx(last.reward, abs=1e-5)
    assert events[0].kl == pytest.approx(0.0, abs=1e-5) and last.kl > 1e-3
    assert all(e.clip_share == 0.0 for e in events)
    assert last.robot_entropy < events[0].robot_entropy


def test_words_learn_too(tokenizers, tmp_path, monkeypatch):
    """With a reward for short texts alone, texts grow shorter: what the words earned reaches the decoder."""

    def brevity(chain, task, gold):
        return Reward(task_success=0.0, reasoning_quality=1 - sum(map(len, [*chain.sections.values(), *chain.lines])) / 200)

    monkeypatch.setattr(grpo, "reward", brevity)
    events = run(toy(steps=10, batch_size=1, group_size=12, learning_rate=2e-2, kl_weight=0.0, entropy_weight=0.0), tokenizers, tmp_path)
    early, late = (sum(e.reward for e in part) / 2 for part in (events[:2], events[-2:]))
    assert late > early + 0.08, (early, late)


def test_a_resumed_run_equals_a_straight_one(tokenizers, tmp_path):
    config = toy(steps=4)
    straight = run(config, tokenizers, tmp_path / "straight", save_every=2)
    loop = train_grpo(fresh(config), TASKS, *tokenizers, config, out=tmp_path / "parts", save_every=2)
    first = [next(loop) for _ in range(3)]  # stopped after a step that was not saved
    loop.close()
    other = fresh(config)
    with torch.no_grad():
        other.policy.gain.fill_(7.0)  # the state holds the model and the reference, whatever is handed in
    second = list(train_grpo(other, TASKS, *tokenizers, config, out=tmp_path / "parts", save_every=2))
    bare = [dataclasses.replace(e, seconds=0.0) for e in straight]
    assert [dataclasses.replace(e, seconds=0.0) for e in first[:2] + second] == bare
    assert [e.step for e in second] == [3, 4]
    assert list(train_grpo(fresh(config), TASKS, *tokenizers, config, out=tmp_path / "parts")) == []


def test_several_updates_on_a_sample_let_the_clip_work(tokenizers, tmp_path):
    events = run(toy(steps=3, learning_rate=3e-2, clip_low=0.02, clip_high=0.02), tokenizers, tmp_path, updates=3)
    assert len({e.reward for e in events}) == 1
    assert events[0].clip_share == 0.0 and events[1].clip_share > 0.05
    assert events[0].drift < 1e-3 < events[1].drift


def test_what_trains_and_what_stays(tokenizers, tmp_path):
    config = toy(steps=1)
    for encoder in (False, True):
        model = fresh(config)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        list(train_grpo(model, TASKS, *tokenizers, config, out=tmp_path / str(encoder), encoder=encoder))
        moved = {
            name.split(".")[0] + ("." + name.split(".")[1] if name.startswith("reasoning") else "")
            for name, p in model.named_parameters()
            if not torch.equal(p, before[name])
        }
        assert moved == {"policy", "decoder", "reasoning.value"} | ({"encoder"} if encoder else set())
        assert not any(name.startswith(("policy.suited", "policy.likeness")) and not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("settings", [{"loss": "dr_grpo"}, {"loss": "dapo", "advantage": "value"}, {"advantage": "group+value"}])
def test_every_kind_trains(settings, tokenizers, tmp_path):
    events = run(toy(steps=2, **settings), tokenizers, tmp_path)
    assert all(math.isfinite(e.loss) and e.grad_norm > 0 for e in events)


def test_every_setting_is_read(tokenizers, tmp_path):
    read = set()

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Watched(GRPOConfig):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    config = dataclasses.replace(toy(), grpo_reasoning=Watched(group_size=2, batch_size=1, steps=1))
    model = fresh(config)
    read.clear()
    list(train_grpo(model, TASKS, *tokenizers, config, out=tmp_path))
    fields = {item.name for item in dataclasses.fields(GRPOConfig)}
    assert fields - read == {"reasoning_steps"}  # the reasoning module's, read where it is built
    read.clear()
    fresh(config)
    assert "reasoning_steps" in read


def test_tasks_come_in_passes():
    drawn = [task.id for draw in range(4) for task in tasks_of_step(TASKS, 3, draw, 0)]
    assert [sorted(drawn[i : i + 4]) for i in (0, 4, 8)] == [["a", "b", "c", "d"]] * 3
    assert drawn == [task.id for draw in range(4) for task in tasks_of_step(TASKS, 3, draw, 0)]


def test_what_is_refused(tokenizers, tmp_path):
    config = toy()
    with pytest.raises(BitMarError, match="no tasks"):
        run(config, tokenizers, tmp_path, tasks=[])
    with pytest.raises(BitMarError, match="another configuration"):
        list(train_grpo(fresh(toy(steps=9)), TASKS, *tokenizers, config, out=tmp_path))
    packed = fresh(config)
    next(m for m in packed.modules() if isinstance(m, BitLinear)).freeze()
    with pytest.raises(BitMarError, match="packed"):
        list(train_grpo(packed, TASKS, *tokenizers, config, out=tmp_path))
    broken = fresh(config)
    with torch.no_grad():
        broken.reasoning.value.last.bias.fill_(float("nan"))
        broken.reasoning.value.last.weight.fill_(0.0)
    with pytest.raises(BitMarError, match="not finite"):
        list(train_grpo(broken, TASKS, *tokenizers, config, out=tmp_path))
