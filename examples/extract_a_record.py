"""Extract a record from a text. It is shown while the model writes it, and typed at the end.

python examples/extract_a_record.py

It needs WRITER_API_KEY, or a server as in print_answer.py. For a better answer, give it one:

anyio-writer serve --reply 'json:{"title": "Tea", "ingredients": [], "minutes": 4}'
"""

import sys
from typing import Annotated, Any

import anyio
from msgspec import Meta, Struct

from anyio_writer import WriterError, open_chat_stream

TEXT = """\
Rub 120 grams of butter into 250 of flour. Stir in 80 grams of sugar, press it into a tin and
bake it at 160 degrees for 40 minutes: shortbread, as my grandmother made it.
"""


class Ingredient(Struct):
    """What goes into the dish, and how much of it."""

    name: str
    grams: Annotated[int, Meta(ge=0)]


class Recipe(Struct):
    """A recipe in a text."""

    title: str
    ingredients: list[Ingredient]
    minutes: Annotated[int, Meta(description="How long it is in the oven.")] | None


def progress(so_far: Any) -> str:
    """A line about what has arrived: dictionaries and lists, in which any key may be missing."""
    match so_far:
        case {"title": title, "ingredients": [*ingredients]}:
            return f"{title}: {len(ingredients)} so far"
        case {"title": title}:
            return f"{title} ..."
        case _:
            return ""


async def main() -> None:
    shown = ""
    try:
        async with open_chat_stream(
            model="palmyra-x5",
            messages=[{"role": "user", "content": f"Extract the recipe:\n\n{TEXT}"}],
            response_format=Recipe,
        ) as stream:
            async for event in stream:
                if event.type == "content.delta" and (line := progress(event.parsed)) != shown:
                    print(line)
                    shown = line
            message = (await stream.get_final_completion()).choices[0].message
    except WriterError as exc:  # also an answer that is no recipe, or was cut off
        sys.exit(f"\n{exc}")
    if message.parsed is None:
        sys.exit(message.refusal)
    recipe = message.parsed
    for ingredient in recipe.ingredients:
        print(f"{ingredient.grams:6d} g  {ingredient.name}")
    print(f"{sum(each.grams for each in recipe.ingredients):6d} g  {recipe.title}")


if __name__ == "__main__":
    anyio.run(main)
