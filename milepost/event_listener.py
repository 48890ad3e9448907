"""Event listeners, under the names that ``ray.workflow`` used."""

from __future__ import annotations

from milepost.engine.listener import EventListener, TimerListener

__all__ = ["EventListener", "TimerListener"]
