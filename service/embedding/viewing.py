"""Under which poolings of a model texts are seen, in one pass of its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pooling import Pooler
from pooling.layers import LayerSpec
from service.embedding.embedder import Embedder
from service.embedding.models import Models
from service.embedding.prompts import Purpose
from service.embedding.recipe import Spec
from service.encoder.reading import Cut
from service.errors import InvalidInput, Place

MOST_STRATEGIES: Final = 16
"""Most poolings in one request."""

Asked = tuple[str | None, Purpose | None]
"""The name of a prompt, and what a text is for; None where either is not said."""


@dataclass(frozen=True, slots=True)
class Viewing:
    """The poolings that texts are seen under, and how the texts are read.

    Args:
        poolings: the poolings; None is the model's own.
        layers: whose states each of them pools; None are the model's own.
        model: name of the model; None is the default one.
        truncate: the side at which a text that is too long is cut; False refuses it, None does as configured.
        asked: name of the prompt to use instead of the default one, and what the texts are for.
    """

    poolings: Sequence[Spec | None] = (None,)
    layers: LayerSpec | None = None
    model: str | None = None
    truncate: Cut = None
    asked: Asked = (None, None)

    def models(self, served: Models, most: int = MOST_STRATEGIES) -> list[Embedder]:
        """Return the model under each of the poolings, with all of its routes.

        Raises:
            InvalidInput: there is no pooling, or more than `most`.
            ServiceError: as `Models.get`.
        """
        require_count(self.poolings, most)
        return [_under(served, self.model, spec, self.layers) for spec in self.poolings]

    def embedders(self, served: Models, most: int = MOST_STRATEGIES) -> list[Embedder]:
        """Return the model's embedder of such texts under each of the poolings; errors as for `models`."""
        prompt_name, role = self.asked
        return [each.of(role, prompt_name) for each in self.models(served, most)]


def require_count(poolings: Sequence[Spec | None], most: int = MOST_STRATEGIES) -> None:
    """Raise `InvalidInput` for no pooling, or more than one request takes."""
    if not 1 <= len(poolings) <= most:
        raise InvalidInput(
            f"{len(poolings)} poolings are asked for; one request takes from 1 to {most}.",
            where=Place("pooling"),
        )


def _under(models: Models, name: str | None, spec: Spec | None, layers: LayerSpec | None) -> Embedder:
    own = models.get(name)
    pooler = own.recipe.pooler
    learned = any(isinstance(part, Pooler) and part.learned for part in pooler.modules())
    # A learned pooling may be asked for by name too if it is the model's own: it is fitted there and nowhere else.
    return models.get(name, None if learned and spec == pooler.spec else spec, layers)
