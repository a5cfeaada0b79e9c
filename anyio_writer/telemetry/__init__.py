"""What a stream reports about itself: its timings."""

from __future__ import annotations

from .timings import Timings as Timings
