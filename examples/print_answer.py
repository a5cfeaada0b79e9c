"""Print an answer while the model writes it.

python examples/print_answer.py "Why is the sky blue?"

It needs WRITER_API_KEY. Without a key, run `anyio-writer serve` in another terminal, and set
WRITER_BASE_URL=http://127.0.0.1:8000 and WRITER_API_KEY=any.
"""

import sys

import anyio

from anyio_writer import WriterError, open_chat_stream


async def main() -> None:
    question = " ".join(sys.argv[1:]) or "Why is the sky blue?"
    try:
        async with open_chat_stream(
            model="palmyra-x5",
            messages=[{"role": "user", "content": question}],
            stream_options={"include_usage": True},
        ) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    print(event.delta, end="", flush=True)
    except WriterError as exc:
        sys.exit(f"\n{exc}")
    print()
    print(stream.usage, file=sys.stderr)


if __name__ == "__main__":
    anyio.run(main)
