"""Let the model call a function, and give it the result.

python examples/call_a_tool.py

Wants WRITER_API_KEY.
"""

import json
from collections.abc import Mapping
from typing import Any

import anyio

from anyio_writer import AsyncWriter, Message, ParsedChatCompletionMessage, Tool

TEMPERATURE: Tool = {
    "type": "function",
    "function": {
        "name": "temperature",
        "description": "The temperature in a city, in degrees Celsius.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def temperature(arguments: Mapping[str, Any]) -> str:
    return f"{len(arguments['city'])} degrees in {arguments['city']}"


async def main() -> None:
    messages: list[Message | ParsedChatCompletionMessage[None]] = [
        {"role": "user", "content": "Is it warmer in Lima or in Oslo?"}
    ]
    async with AsyncWriter() as writer:
        while True:
            async with writer.chat.stream(
                model="palmyra-x5", messages=messages, tools=[TEMPERATURE]
            ) as stream:
                async for event in stream:
                    if event.type == "content.delta":
                        print(event.delta, end="", flush=True)
                    elif event.type == "tool_calls.function.arguments.done":
                        print(f"[{event.name} {event.arguments}]")
            answer = (await stream.get_final_completion()).choices[0].message
            if not answer.tool_calls:
                break
            messages.append(answer)  # the model wants to see what it asked for
            for call in answer.tool_calls:
                result = temperature(json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    print()


if __name__ == "__main__":
    anyio.run(main)
