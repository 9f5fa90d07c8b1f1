"""Whether a device that somebody names is one, and here."""

import torch


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
