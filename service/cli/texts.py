"""Commands whose arguments are texts, some of which begin with a dash."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer
from typer.core import TyperCommand

_MARK: Final = "\0"
"""Put before such a text while options are parsed; no argument of a process can hold it."""
_LIKE_TEXT: Final = re.compile(r"-(\d|(?!-[\w-]+=).*\s)", re.DOTALL)
_FIRST_WORD: Final = re.compile(r"[^\s=]*")


class TextCommand(TyperCommand):
    """A command that takes `-5 degrees` as a text: a number, or several words whose first is none of its options."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the command line as any command does, texts that begin with a dash aside."""
        try:
            left: list[str] = super().parse_args(ctx, list(self._marked(args)))
        except Exception as error:
            if hasattr(error, "possibilities") and hasattr(error, "message"):  # no such option; typer hides its class
                error.message += ". Put -- before a text that begins with a dash."
            raise
        ctx.params = {name: _unmarked(value) for name, value in ctx.params.items()}
        return left

    def _marked(self, args: Sequence[str]) -> Iterator[str]:
        names = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        valued = {name for option in self.params if not getattr(option, "is_flag", False) for name in option.opts}
        rest = args.index("--") if "--" in args else len(args)
        for place, argument in enumerate(args):
            word = _FIRST_WORD.match(argument)
            option = (word and word[0] in names) or (place > 0 and args[place - 1] in valued) or place >= rest
            yield argument if option or not _LIKE_TEXT.match(argument) else _MARK + argument


def _unmarked(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(_MARK)
    return [_unmarked(item) for item in value] if isinstance(value, list) else value
