"""How bytes get here: one HTTP exchange over httpx."""

from .http import StreamingTransport as StreamingTransport
