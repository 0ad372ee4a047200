"""`millpond copy`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.console import Failure, Interrupted, rated_bar, say, warn
from service.config import StoreConfig, load_config
from service.errors import Conflict, NameConflict, NotFound, StoreUnavailable

if TYPE_CHECKING:
    from service.collections import Engine
    from service.collections.copying import Advance, CollectionCopy, Copied, Several


def copy(
    source: Annotated[
        Path, typer.Option("--from", help="The YAML file of the deployment whose collections are copied.")
    ],
    target: Annotated[Path, typer.Option("--to", help="The YAML file of the deployment that is to have them.")],
    collections: Annotated[
        list[str] | None,
        typer.Argument(help="Their names; all that are not temporary unless given.", show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace documents that the target has otherwise under the same ids.")
    ] = False,
    tokenizer: Annotated[
        Literal["unicode61", "porter", "trigram"] | None,
        typer.Option(
            help="How collections are to be searched by words that come from an engine without that; as the target "
            "has them already, or as its new ones, unless given."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what would be copied and what the target cannot have; write nothing.")
    ] = False,
) -> None:
    """Copy collections from one store to another, of the same engine or another one, without embedding anything.

    Documents, vectors, definitions and aliases stay as they are, and every document is compared in the end. It may be
    stopped at any time and run again, and goes on then. No service may have a store open that is embedded.
    """
    of, to = load_config(source).store, load_config(target).store
    if _place(of) == _place(to):
        raise Failure(
            f"{source} and {target} name the same store, {_place(of)}. Name another one in either of them; "
            "MILLPOND_STORE__... in the environment counts for both.",
            2,
        )
    from service.cli.stores import require_store
    from service.deployment import open_engine

    if of.engine == "embedded":
        require_store(of.path)

    with ExitStack() as opened:
        engine = opened.enter_context(closing(open_engine(of)))
        copying = _Copying(engine, opened.enter_context(closing(open_engine(to))), source, target)
        try:
            asyncio.run(copying.run(collections, replace=replace, tokenizer=tokenizer, check=check))
        except KeyboardInterrupt:
            raise Interrupted(f"Interrupted: {copying.done()}") from None
        except StoreUnavailable as error:
            raise Failure(f"{error}\n{copying.done()}") from None


class _Copying:
    """Collections on their way from one engine to another; the files are where those are configured."""

    def __init__(self, source: Engine, target: Engine, source_file: Path, target_file: Path) -> None:
        self._source, self._target = source, target
        self._from, self._to = source_file, target_file
        self._copied = 0

    def done(self) -> str:
        """Say what is kept where it ends early."""
        if not self._copied:
            return "Nothing is copied yet."
        return f"{self._copied} documents are copied. Run the same command again to go on."

    async def run(self, names: Sequence[str] | None, *, replace: bool, tokenizer: str | None, check: bool) -> None:
        """Copy them, all unless named; raises `Failure` for what cannot be, before anything is written."""
        from service.collections.copying import CollectionCopy
        from service.store.tokenizers import TOKENIZERS

        if tokenizer is not None and self._source.default_tokenizer is not None:
            raise Failure(f"--tokenizer {tokenizer}: collections of {self._from} have their own. Leave it out.", 2)
        asked = None if tokenizer is None else TOKENIZERS[tokenizer]
        if asked is not None and self._target.default_tokenizer is None:
            raise Failure(f"--tokenizer {tokenizer}: the engine of {self._to} has no keyword index. Leave it out.", 2)
        copies = [
            CollectionCopy(self._source.get(name), self._source, self._target, asked) for name in self._named(names)
        ]
        aliases = self._aliases([each.name for each in copies])
        self._examine(copies, replace=replace)
        if check:
            return
        for each in copies:
            await each.begin()
        for each in copies:
            await self._run(each)
        for alias, name in aliases.items():
            await self._target.write(self._target.alias, alias, name)
        if aliases:
            say(f"aliases: {', '.join(f'{alias} -> {name}' for alias, name in aliases.items())}")

    def _named(self, names: Sequence[str] | None) -> list[str]:
        """Return the collections' own names, each once: all that are not temporary, unless named."""
        present = [each.name for each in self._source.list() if each.idle_timeout is None]
        if names is None and not present:
            raise Failure(f"{self._from}: its store has no collection that lasts.", 2)
        try:
            return present if names is None else [*dict.fromkeys(self._source.get(name).name for name in names)]
        except NotFound as error:
            has = f"it has {', '.join(present)}" if present else "it has none"
            raise Failure(f"{self._from}: {str(error).removesuffix('; create it first.')}; {has}.", 2) from None

    def _aliases(self, names: Sequence[str]) -> dict[str, str]:
        """Return what each alias stands for that the target lacks; raises `Failure` where it is taken there."""
        theirs = {alias: each.name for alias, each in self._target.aliases().items()}
        taken = {each.name for each in self._target.list()}
        missing = {}
        for alias, each in self._source.aliases().items():
            if each.name not in names or theirs.get(alias) == each.name:
                continue
            if alias in theirs or alias in taken:
                what = f"is an alias of {theirs[alias]!r}" if alias in theirs else "is a collection"
                raise Failure(
                    f"{alias!r} is an alias of {each.name!r}, and {what} in the store of {self._to}. Delete or "
                    "rename it in either of the two. Nothing is written."
                )
            missing[alias] = each.name
        return missing

    def _examine(self, copies: Sequence[CollectionCopy], *, replace: bool) -> None:
        """Say what the target cannot have; raises `Failure` for what cannot be copied."""
        wrong = []
        for each in copies:
            for lost in each.lost():
                warn(f"{each.name}: not copied is {lost}")
            try:
                with _progress(f"{each.name}: looking", each.count) as advance:
                    found = each.examine(advance)
            except Conflict as error:
                wrong.append(
                    f"{each.name}: the store of {self._to} has a collection of this name under another definition "
                    f"({error.differences}). Rename or drop it."
                )
                continue
            except NameConflict as error:
                wrong.append(f"{each.name}: in the store of {self._to}, {error} Rename the collection, or the alias.")
                continue
            if found.refused.count:
                wrong.append(
                    f"{each.name}: the store of {self._to} cannot hold {found.refused.count} documents:\n"
                    f"{_told(found.refused)}"
                )
            if found.other.count and not replace:
                wrong.append(
                    f"{each.name}: the store of {self._to} has {found.other.count} documents otherwise under their "
                    f"ids, such as {found.other.told[0]!r}. Give --replace to replace them."
                )
            own = each.owned() - found.equal - found.other.count
            more = f"; {own} others are there and stay" if own else ""
            otherwise = f", {found.other.count} to be replaced" if found.other.count else ""
            say(f"{each.name}: {found.missing} documents to be copied{otherwise}, {found.equal} unchanged{more}")
        if wrong:
            raise Failure("\n".join(wrong) + "\nNothing is written.")

    async def _run(self, each: CollectionCopy) -> None:
        from service.collections.copying import Copied

        copied, began = Copied(), time.monotonic()
        try:
            with _progress(f"{each.name}: copying", each.count) as advance:
                await each.run(copied, advance)
        finally:
            self._copied += copied.copied
        seconds = time.monotonic() - began
        with _progress(f"{each.name}: comparing", each.count) as advance:
            found = each.compare(advance)
        if found.equal < found.documents:
            raise Failure(
                f"{each.name}: of {found.documents} documents, {found.missing} are missing in the store of "
                f"{self._to} and {found.other.count} are there otherwise, since they were "
                "changed meanwhile. Stop what changes either store, and run it again, with --replace."
            )
        say(_summary(copied, each, found.documents, self._target, seconds))


def _summary(copied: Copied, each: CollectionCopy, documents: int, target: Engine, seconds: float) -> str:
    rate = f", {copied.copied / seconds:.1f} documents/s" if copied.copied and seconds else ""
    there = target.get(each.name)
    return (
        f"{each.name}: {copied.copied} copied, {copied.unchanged} unchanged, {seconds:.1f} s{rate}; {documents} "
        f"compared, all equal; there are {there.count()} documents and {there.chunks()} vectors now"
    )


def _told(several: Several) -> str:
    more = several.count - len(several.told)
    return "\n".join([*several.told, *([f"and {more} more"] if more else [])])


@contextmanager
def _progress(what: str, total: int) -> Iterator[Advance]:
    """Show how far something is, and at which rate."""
    began, done = time.monotonic(), 0
    with rated_bar() as bar:
        task = bar.add_task("", total=total, rate=what)

        def advance(documents: int) -> None:
            nonlocal done
            done += documents
            rate = done / max(time.monotonic() - began, 1e-3)
            bar.update(task, completed=done, rate=f"{what}, {rate:.0f} documents/s")

        yield advance


def _place(config: StoreConfig) -> str:
    """Return where a store is."""
    if config.engine == "embedded":
        return str(config.path.resolve())
    return f"{config.uri.rstrip('/')}, database {config.database}"
