"""State of a training run: weights, optimiser, position, in safetensors, written beside and renamed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

STATE = "training.safetensors"


def save_training_state(folder: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write the state of `modules` and of an Adam-like optimiser after `step` steps."""
    from safetensors.torch import save_file

    record: dict[str, Tensor] = {"step": torch.tensor(step)}
    for prefix, module in modules.items():
        record |= {f"{prefix}/{name}": tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
    for index, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"]):
        for name, value in optimiser.state.get(parameter, {}).items():
            record[f"optimiser/{index}/{name}"] = torch.as_tensor(value).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / (STATE + ".part")
    save_file(record, beside)
    beside.replace(folder / STATE)


def load_training_state(folder: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer | None) -> int:
    """Restore what `save_training_state` wrote; returns the number of finished steps, 0 where there is no state."""
    from safetensors.torch import load_file

    path = folder / STATE
    if not path.exists():
        return 0
    record = load_file(path)
    for prefix, module in modules.items():
        module.load_state_dict({name[len(prefix) + 1 :]: tensor for name, tensor in record.items() if name.startswith(prefix + "/")})
    if optimiser is not None:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for name, tensor in record.items():
            if name.startswith("optimiser/"):
                _, index, field = name.split("/")
                optimiser.state[parameters[int(index)]][field] = tensor
    return int(record["step"])
