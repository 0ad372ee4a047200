"""The models of one section of a config, such as its rerankers, by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from service.config import Config
from service.encoder.pool import Encoders
from service.errors import Place, UnknownModel, UnsupportedTask, did_you_mean, shortened

M = TypeVar("M")


class ByName(ABC, Generic[M]):
    """Loads every model of its section; there may be none. Those of one encoder share it.

    Raises:
        CheckpointError, ConfigError: naming the model, what is wrong with it, and the remedy.
    """

    section: ClassVar[str]
    """The section of the config."""
    noun: ClassVar[str]
    """What one of them is called."""
    missing: ClassVar[str]
    """What a request is told where there is none."""

    def __init__(self, config: Config) -> None:
        self.encoders = Encoders()
        """The encoders, each once."""
        self._config = config
        self._models: dict[str, M] = {}
        sections: Mapping[str, Any] = getattr(config, self.section)
        try:
            for name, settings in sections.items():
                self._models[name] = self._load(name, settings)
        except BaseException:
            self.close()
            raise
        self.default = next(iter(self._models), None)

    def __iter__(self) -> Iterator[tuple[str, M]]:
        return iter(self._models.items())

    def get(self, name: str | None = None, field: str = "model") -> M:
        """Return a model, the first one for None; `field` is where it was named, for errors.

        Raises:
            UnsupportedTask: none is served.
            UnknownModel: none has this name.
        """
        asked = self.default if name is None else name
        if asked is None or not self._models:
            raise UnsupportedTask(self.missing)
        if asked not in self._models:
            served = f"{self.noun}s are {', '.join(map(repr, self._models))}"
            use = self._config.use_of(asked)
            raise UnknownModel(
                f"{use}; {served}."
                if use
                else f"no {self.noun} is named {shortened(asked)}; {served}.{did_you_mean(asked, self._models)}",
                where=Place(field),
            )
        return self._models[asked]

    def close(self) -> None:
        """Stop the queues of all encoders."""
        self.encoders.close()

    @abstractmethod
    def _load(self, name: str, settings: Any) -> M: ...
