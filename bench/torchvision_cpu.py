"""
Import torchvision beside a CPU build of torch.

A torchvision wheel built for CUDA cannot load its compiled operators there, and registering shape rules for operators
that are not there raises. Importing this module first leaves those registrations out; `torchvision` then imports, and
so do the packages that import it. Its compiled operators (nms and the like) stay out of reach. For benchmarks and for
making golden files only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch.library

_register = torch.library.register_fake


def _register_unless_torchvision(name: Any, *arguments: Any, **keywords: Any) -> Any:
    """Register a shape rule, except for the operators of torchvision."""
    if str(name).startswith("torchvision::"):

        def leave(function: Callable[..., Any]) -> Callable[..., Any]:
            return function

        return leave
    return _register(name, *arguments, **keywords)


with mock.patch.object(torch.library, "register_fake", _register_unless_torchvision):
    import torchvision

__all__ = ["torchvision"]
