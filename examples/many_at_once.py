"""Ask several questions at the same time, over one pool of connections.

python examples/many_at_once.py "Why is the sky blue?" "Why is the sea?"

Answers are printed as they become complete. A question that fails is reported, and the others go
on. It needs WRITER_API_KEY, or a server as in print_answer.py.
"""

import sys

import anyio

from anyio_writer import AsyncWriter, Timeouts, WriterError


async def ask(writer: AsyncWriter, question: str) -> None:
    try:
        async with writer.chat.stream(
            model="palmyra-x5", messages=[{"role": "user", "content": question}]
        ) as stream:
            answer = await stream.get_final_text()
    except WriterError as exc:
        answer = f"failed: {exc}"
    print(f"{question}\n{answer}\n")


async def main() -> None:
    questions = sys.argv[1:] or ["Why is the sky blue?", "Why is the sea?", "Why is snow white?"]
    async with (
        # Three streams at once; the others wait for their turn.
        AsyncWriter(max_connections=3, timeouts=Timeouts(total=300)) as writer,
        anyio.create_task_group() as tasks,
    ):
        for question in questions:
            tasks.start_soon(ask, writer, question)


if __name__ == "__main__":
    anyio.run(main)
