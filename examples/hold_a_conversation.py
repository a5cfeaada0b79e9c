"""Let the model look things up until it can answer. Each round can build on the one before.

python examples/hold_a_conversation.py "Where are Ada's orders?"

It needs WRITER_API_KEY, or a server as in print_answer.py. That server calls each function once,
with arguments that it makes up.
"""

import sys

import anyio

from anyio_writer import WriterError, function_tool, open_conversation

ORDERS = {"Ada": [7, 8], "Grace": [9]}
STATES = {7: "delivered", 8: "on its way", 9: "sent back"}


@function_tool
def orders_of(customer: str) -> list[int]:
    """The numbers of a customer's orders."""
    return ORDERS[customer]  # an error is sent to the model


@function_tool
def state_of(order: int) -> str:
    """Where an order is."""
    return STATES[order]


async def main() -> None:
    question = " ".join(sys.argv[1:]) or "Where are Ada's orders?"
    try:
        async with open_conversation(
            model="palmyra-x5",
            messages=[{"role": "user", "content": question}],
            tools=[orders_of, state_of],
            max_rounds=5,
            total_time=120,
        ) as conversation:
            async for event in conversation:
                if event.type == "round.started":
                    print(f"[round {event.round}]")
                elif event.type == "tool_calls.function.arguments.done":
                    print(f"[{event.name} {event.arguments}]")
                elif event.type == "tool.result":
                    print(f"[{event.name} said {event.content}]")
                elif event.type == "content.delta":
                    print(event.delta, end="", flush=True)
    except WriterError as exc:
        sys.exit(f"\n{exc}")
    print()


if __name__ == "__main__":
    anyio.run(main)
