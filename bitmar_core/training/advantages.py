"""Advantages of sampled chains: pure functions.

Letters: N tasks, G chains of a task's group.
"""

from __future__ import annotations

from torch import Tensor

STD_FLOOR = 1e-4
"""Added to the deviation of a group, so that a group whose chains all earned the same has an advantage of zero."""


def group_advantage(rewards: Tensor, *, scale: bool = True) -> Tensor:
    """(R - mean of the group) / (std of the group + 1e-4) (DeepSeekMath, arXiv 2402.03300, section 4.1.2). (N, G) -> (N, G).

    Args:
        rewards: G at least 2; the deviation is the sample's (divided by G - 1).
        scale: False leaves the division out, as Dr. GRPO does (arXiv 2503.20783, section 3.2): dividing gives tasks
            that are nearly always or hardly ever solved more weight than the rest.

    Raises:
        ValueError: not (N, G) with G of at least 2.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards of shape {tuple(rewards.shape)}; (tasks, chains) with at least two chains a task are needed")
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + STD_FLOOR) if scale else centred


def value_advantage(rewards: Tensor, values: Tensor) -> Tensor:
    """R - V(s), with V(s) as a constant: no gradient goes through a baseline. rewards (N, G), values (N,) -> (N, G).

    Raises:
        ValueError: the numbers of tasks differ.
    """
    if rewards.ndim != 2 or values.shape != rewards.shape[:1]:
        raise ValueError(f"rewards of shape {tuple(rewards.shape)} and values of shape {tuple(values.shape)}; (tasks, chains) and (tasks,) are needed")
    return rewards - values.detach().unsqueeze(1)


def advantages(kind: str, rewards: Tensor, values: Tensor, *, scale: bool = True) -> Tensor:
    """The advantage called `kind`: `group`, `value`, or `group+value`, their sum. rewards (N, G), values (N,) -> (N, G).

    Raises:
        ValueError: no such kind.
    """
    if kind == "group":
        return group_advantage(rewards, scale=scale)
    if kind == "value":
        return value_advantage(rewards, values)
    if kind == "group+value":
        return group_advantage(rewards, scale=scale) + value_advantage(rewards, values)
    raise ValueError(f"no advantage {kind!r}; known: group, value, group+value")


def zero_spread(rewards: Tensor) -> float:
    """Share of groups whose chains all earned the same: they teach nothing. (N, G) -> 0 to 1."""
    return float((rewards.amax(1) - rewards.amin(1) < 1e-8).float().mean()) if len(rewards) else 0.0
