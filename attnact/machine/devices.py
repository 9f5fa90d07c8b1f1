"""The device that somebody names: whether it is one, and here; or the best one."""

import torch


def best_device(name: str | None) -> torch.device:
    """The device of this name; without one the GPU, if there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def check_device(name: str) -> None:
    """Refuses a device that nothing can be computed on here.

    Raises:
        ValueError: torch knows none of that name, or it is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{name!r} is no device; cpu, or cuda:1") from None
    if device.type == "cuda":  # asked so, it is not started yet
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"no {name} here, where torch sees {count} GPU(s)")
        return
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError):
        raise ValueError(f"torch cannot work on {name} here; cpu, or cuda:1") from None
