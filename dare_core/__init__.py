"""A reproducible study of *Long-Sequence Recommendation Models Need Decoupled Embeddings* (ICLR 2025).

The public names are imported when they are first used, so that ``import dare_core`` takes no time:

>>> from dare_core import DARE, MODELS
>>> sorted(name for name in MODELS if name.startswith("DARE"))
['DARE', 'DARE (product)', 'DARE (w/o TR)']
>>> model = DARE(items=1_000, categories=20, size=16, attention_size=8)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dare_core.data.logs import load as load_log
    from dare_core.data.samples import make_samples
    from dare_core.models.click_model import DARE, TWIN
    from dare_core.models.zoo import MODELS
    from dare_core.training.loop import train

__version__ = "0.1.0"
__all__ = ["DARE", "MODELS", "TWIN", "load_log", "make_samples", "train"]

# Before torch starts its threads: threads that wait for one another sleep in place of spinning. Spinning gains
# a little on an idle machine, and costs a factor of forty as soon as another process wants one of two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PUBLIC = {
    "DARE": ("models.click_model", "DARE"),
    "MODELS": ("models.zoo", "MODELS"),
    "TWIN": ("models.click_model", "TWIN"),
    "load_log": ("data.logs", "load"),
    "make_samples": ("data.samples", "make_samples"),
    "train": ("training.loop", "train"),
}
"""Module and name of what is imported at first use."""


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _PUBLIC[name]
    value = getattr(import_module(f"{__name__}.{module}"), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
