"""Who may call the service, for what, and how much: API keys, their scopes and their limits."""

from service.access.budget import Budget
from service.access.keyring import Key, Keyring, Listed
from service.access.secret import digest, new_key

__all__ = ["Budget", "Key", "Keyring", "Listed", "digest", "new_key"]
