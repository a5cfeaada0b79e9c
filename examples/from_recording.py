"""Read a recorded response as if it came from the server.

anyio-writer record answer.sse "Why is the sky blue?"
python examples/from_recording.py answer.sse
"""

import sys
from collections import Counter

import anyio

from anyio_writer import WriterError, chat_stream_from


async def main() -> None:
    kinds: Counter[str] = Counter()
    async with await anyio.open_file(sys.argv[1], "rb") as recording:
        stream = chat_stream_from(recording)
        try:
            async with stream:
                async for event in stream:
                    kinds[event.type] += 1
        except WriterError as exc:
            print(f"{type(exc).__name__}: {exc}")
    for kind, count in kinds.items():
        print(f"{count:6d}  {kind}")
    for choice in stream.current_completion_snapshot.choices:
        print(f"choice {choice.index} ({choice.finish_reason}): {choice.message.content}")


if __name__ == "__main__":
    anyio.run(main)
