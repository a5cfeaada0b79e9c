"""Let the model call a function, and run the calls concurrently while the stream goes on.

python examples/run_tools.py

It needs WRITER_API_KEY, or a server as in print_answer.py. That server calls the function once,
with arguments that it makes up.
"""

from typing import Any

import anyio

from anyio_writer import AsyncWriter, function_tool


@function_tool
async def temperature(city: str) -> str:
    """The temperature in a city right now.

    Args:
        city: Its name, in English.
    """
    print(f"[{city}: asked]")
    await anyio.sleep(1)  # as long as a weather service takes
    print(f"[{city}: answered]")
    return f"{4 * len(city)} degrees Celsius"


async def main() -> None:
    messages: list[Any] = [{"role": "user", "content": "Is it warmer in Lima or in Reykjavik?"}]
    async with AsyncWriter() as writer:
        async with writer.chat.stream(
            model="palmyra-x5", messages=messages, tools=[temperature]
        ) as stream:
            runs = stream.run_tools()  # each call begins the moment its arguments are done
            async for piece in stream.text_deltas():
                print(piece, end="", flush=True)
            answers = await runs.messages()
            message = (await stream.get_final_completion()).choices[0].message
        if answers:
            messages += [message, *answers]  # the model wants to see what it asked for
            async with writer.chat.stream(
                model="palmyra-x5", messages=messages, tools=[temperature], tool_choice="none"
            ) as stream:
                async for piece in stream.text_deltas():
                    print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    anyio.run(main)
