"""Whose state answers: one for all, or one for each key."""

import copy

from lottolab.modelguard.queries import Defence
from lottolab.modelguard.service.state import State


class Tenants:
    """Hold a defence for each tenant.

    apart: each key gets a copy of `defence` with a state of its own, else all share it.
    held: the defences so far, by the names of their tenants; "" is all, or who has no
    key.
    """

    def __init__(self, defence: Defence | None, apart: bool = False) -> None:
        self.apart, self._fresh = apart, defence
        self.held = {} if apart else {"": defence}

    def name(self, key: str) -> str:
        """Return the tenant to whom a key belongs."""
        return key if self.apart else ""

    def of(self, tenant: str) -> Defence | None:
        """Return a tenant's defence, made when it is asked for first."""
        if tenant not in self.held:
            self.held[tenant] = copy.deepcopy(self._fresh)
        return self.held[tenant]

    def restore(self, state: State) -> None:
        """Read back what each tenant had; ValueError where the file is damaged."""
        for tenant in state.tenants():
            state.restore(self.of(tenant), tenant)

    @property
    def count(self) -> int | None:
        """The number of centroids; None of a defence that has none."""
        if not hasattr(self._fresh, "count"):
            return None
        return sum(defence.count for defence in list(self.held.values()))
