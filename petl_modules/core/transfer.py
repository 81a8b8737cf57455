"""What a step may do between CPU and GPU without either waiting for the other."""

import torch


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor on a device; the copy is queued behind what the device has to do.

    A copy from ordinary memory would wait until the device is idle; one from pinned
    memory does not.
    """
    device = torch.device(device)
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
