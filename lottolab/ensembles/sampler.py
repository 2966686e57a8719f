"""The dynamic stochastic ensemble: a team of networks, drawn anew, answers each query.

Peng et al. (2022), section 2.3. Who answers is drawn by one of the `laws`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lottolab.checks import check_seed, one_of, require, whole
from lottolab.ensembles.laws import Law, Team, theta
from lottolab.ensembles.queries import correct, merge


class Ensemble(nn.Module):
    """Answer as a fixed team: the mean logits, or the log of the mean probabilities.

    The paper's Equation 1 adds the f; the mean has the same argmax. Whether its f are
    logits or probabilities it does not say.
    """

    def __init__(self, networks: Sequence[nn.Module], over: str = "logits") -> None:
        super().__init__()
        require(len(networks) > 0, "a team must have at least one network", 0)
        one_of("over", over, ("logits", "probabilities"))
        self.networks, self.over = nn.ModuleList(networks), over

    def forward(self, x: Tensor) -> Tensor:
        return merge([network(x) for network in self.networks], self.over)


class Sampler(nn.Module):
    """Answer each batch, or each image, as a team that is drawn for it.

    Every call draws anew, from a generator that only this object uses: its answers are
    those of `seed` (see `reseed`) and of the calls before.

    Args:
        networks: structure to its networks, as `Library.networks` returns them.
        law: `theta`, `one`, `matched` or another; `functools.partial` sets its options.
        over: `logits` or `probabilities`, see `Ensemble`.
        per: `batch`, a team a call, the paper's query as we read it; or `image`.
        seed: of the draws.

    Raises:
        ValueError: no networks, a structure without any, a law that draws nobody, or
            what the law or `Ensemble` refuses.
    """

    def __init__(
        self,
        networks: dict[str, Sequence[nn.Module]],
        *,
        law: Law = theta,
        over: str = "logits",
        per: str = "batch",
        seed: int,
    ) -> None:
        super().__init__()
        self.counts = [len(group) for group in networks.values()]
        require(
            len(self.counts) > 0 and min(self.counts) > 0,
            "networks must hold at least one of each structure",
            dict(zip(networks, self.counts, strict=True)),
        )
        one_of("per", per, ("batch", "image"))
        self.networks = nn.ModuleList(n for group in networks.values() for n in group)
        self.law, self.over, self.per = law, over, per
        self.ensemble([(0, 0)])
        self.reseed(seed)
        self.draw()
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin the draws of another seed."""
        check_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Team:
        """Draw the next team."""
        team = self.law(self.counts, self.generator)
        require(len(team) > 0, "law must draw at least one network", team)
        return team

    def ensemble(self, team: Team) -> Ensemble:
        """Return the team as a model of its own, with the same networks."""
        return Ensemble([self.networks[self._place(m)] for m in team], self.over)

    def teams(self, count: int, seed: int) -> list[Ensemble]:
        """Draw teams for an attack on a sample of them; later draws do not change."""
        whole("count", count, 1)
        check_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        drawn = [self.law(self.counts, generator) for _ in range(count)]
        return [self.ensemble(team) for team in drawn]

    def forward(self, x: Tensor) -> Tensor:
        if self.per == "batch":
            return self.ensemble(self.draw())(x)
        votes = torch.zeros(len(x), len(self.networks))
        for row in votes:
            for member in self.draw():
                row[self._place(member)] += 1
        return self._each(x, votes.to(x.device))

    def many(self, x: Tensor, count: int) -> list[Tensor]:
        """Answer as `count` calls would, but ask each network that is drawn once."""
        if self.per == "image":
            return [self(x) for _ in range(count)]
        teams = [self.draw() for _ in range(count)]
        asked = {member for team in teams for member in team}
        said = {m: self.networks[self._place(m)](x) for m in sorted(asked)}
        return [merge([said[m] for m in team], self.over) for team in teams]

    def _each(self, x: Tensor, votes: Tensor) -> Tensor:
        """Answer each image by its row of votes; a network sees its images at once."""
        sums: Tensor | None = None
        for place, network in enumerate(self.networks):
            rows = votes[:, place].nonzero()[:, 0]
            if not len(rows):
                continue
            part, times = network(x[rows]), votes[rows, place][:, None]
            if self.over == "logits":
                empty, add, part = 0.0, torch.add, times * part
            else:
                empty, add = -torch.inf, torch.logaddexp
                part = part.log_softmax(1) + times.log()
            if sums is None:
                sums = part.new_full((len(x), part.shape[1]), empty)
            sums = sums.index_copy(0, rows, add(sums[rows], part))
        total = votes.sum(1, keepdim=True)
        return sums / total if self.over == "logits" else sums - total.log()

    def _place(self, member: tuple[int, int]) -> int:
        structure, network = member
        there = 0 <= structure < len(self.counts)
        there = there and 0 <= network < self.counts[structure]
        what = f"law must draw (structure, network) of {self.counts} networks"
        require(there, what, member)
        return sum(self.counts[:structure]) + network


def repeated(
    sampler: Sampler, x: Tensor, y: Tensor, *, draws: int, seed: int, batch: int = 500
) -> Tensor:
    """Ask about each image `draws` times; bool [draws, n], True where it was right.

    The mean of all is the accuracy, that of `.all(0)` the worst case, where one wrong
    answer counts. Use a seed that no attack has used.
    """
    whole("draws", draws, 1)
    sampler.reseed(seed)
    return torch.stack([correct(sampler, x, y, batch) for _ in range(draws)])
