"""The dynamic stochastic ensemble: a team of networks, drawn anew, answers each query.

Peng et al. (2022), section 2.3. Who answers is drawn by one of the `laws`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lottolab.checks import check_seed, one_of, require, tensors, whole
from lottolab.ensembles import laws
from lottolab.ensembles.laws import Law, Team, theta
from lottolab.ensembles.queries import merge


class Ensemble(nn.Module):
    """Answer as a fixed team: the mean logits, or the log of the mean probabilities.

    The paper's Equation 1 adds the f; the mean has the same argmax. Whether its f are
    logits or probabilities it does not say.
    """

    def __init__(self, networks: Sequence[nn.Module], over: str = "logits") -> None:
        super().__init__()
        networks = list(networks or [])
        require(len(networks) > 0, "a team must have at least one network", 0)
        _check_networks(networks)
        one_of("over", over, ("logits", "probabilities"))
        self.networks, self.over = nn.ModuleList(networks), over

    def forward(self, x: Tensor) -> Tensor:
        return merge([network(x) for network in self.networks], self.over)


def _check_networks(networks: Sequence[nn.Module]) -> None:
    odd = [type(n).__name__ for n in networks if not isinstance(n, nn.Module)]
    require(not odd, "networks must be torch.nn.Module", ", ".join(odd))


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
        right = isinstance(networks, dict)
        what = "networks must be a dict of lists, as Library.networks returns them"
        require(right, what, type(networks).__name__)
        self.counts = [len(group) for group in networks.values()]
        require(
            len(self.counts) > 0 and min(self.counts) > 0,
            "networks must hold at least one of each structure",
            dict(zip(networks, self.counts, strict=True)),
        )
        one_of("per", per, ("batch", "image"))
        everyone = [n for group in networks.values() for n in group]
        _check_networks(everyone)
        self.networks = nn.ModuleList(everyone)
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
        return laws.drawn(self.law, self.counts, self.generator)

    def votes(self, rows: int) -> Tensor:
        """Draw as a call with so many images does; how often each network answers each.

        int64 [rows, networks], on the CPU.
        """
        if self.per == "image":
            return laws.votes(self.law, self.counts, rows, self.generator)
        row = torch.zeros(len(self.networks), dtype=torch.int64)
        for member in self.draw():
            row[self._place(member)] += 1
        return row.expand(rows, -1)

    def ensemble(self, team: Team) -> Ensemble:
        """Return the team as a model of its own, with the same networks."""
        return Ensemble([self.networks[self._place(m)] for m in team], self.over)

    def teams(self, count: int, seed: int) -> list[Ensemble]:
        """Draw teams for an attack on a sample of them; later draws do not change."""
        whole("count", count, 1)
        check_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        drawn = [laws.drawn(self.law, self.counts, generator) for _ in range(count)]
        return [self.ensemble(team) for team in drawn]

    def forward(self, x: Tensor) -> Tensor:
        if self.per == "batch":
            return self.ensemble(self.draw())(x)
        return self._each(x, [self.votes(len(x))])[0]

    def many(self, x: Tensor, count: int) -> list[Tensor]:
        """Answer as `count` calls would, but ask a network once about an image."""
        whole("count", count, 1)
        if self.per == "image":
            return self._each(x, [self.votes(len(x)) for _ in range(count)])
        teams = [self.draw() for _ in range(count)]
        asked = {member for team in teams for member in team}
        said = {m: self.networks[self._place(m)](x) for m in sorted(asked)}
        return [merge([said[m] for m in team], self.over) for team in teams]

    def _each(self, x: Tensor, votes: list[Tensor]) -> list[Tensor]:
        """Answer each image by its row of votes, once for each of `votes`."""
        asked, said = torch.stack(votes).sum(0), {}
        for place in asked.any(0).nonzero()[:, 0].tolist():
            rows = asked[:, place].nonzero()[:, 0].to(x.device)
            part = self.networks[place](x[rows])
            empty = part.new_zeros(len(x), part.shape[1])
            said[place] = empty.index_copy(0, rows, part)
        widths = sorted({part.shape[1] for part in said.values()})
        require(len(widths) == 1, "networks must be of the same classes", widths)
        answers = torch.stack(list(said.values()), 1)
        if self.over == "probabilities":
            answers = answers.log_softmax(2)
        weights = [part[:, list(said)].to(answers) for part in votes]
        return [_weighed(answers, part, self.over) for part in weights]

    def _place(self, member: tuple[int, int]) -> int:
        return laws.place(self.counts, member)


def _weighed(answers: Tensor, votes: Tensor, over: str) -> Tensor:
    """Merge logits, or log-probabilities, n×networks×classes, by votes n×networks."""
    shares = votes / votes.sum(1, keepdim=True)
    if over == "logits":
        return torch.einsum("nk,nkc->nc", shares, answers)
    return (answers + shares.log()[:, :, None]).logsumexp(1)


@torch.no_grad()
def repeated(
    sampler: Sampler, x: Tensor, y: Tensor, *, draws: int, seed: int, batch: int = 500
) -> Tensor:
    """Ask about each image `draws` times; bool [draws, n], True where it was right.

    The mean of all is the accuracy, that of `.all(0)` the worst case, where one wrong
    answer counts. Use a seed that no attack has used. Each network is asked once; the
    draws are those of so many calls a `batch`, the answers those but for ties.

    Raises ValueError for what `correct` refuses, or no draws.
    """
    whole("draws", draws, 1)
    whole("batch", batch, 1)
    right = isinstance(sampler, Sampler)
    require(right, "sampler must be a Sampler", type(sampler).__name__)
    tensors.tensor("x", x)
    require(x.ndim == 4 and len(x) > 0, "x must be n×C×H×W, n > 0", list(x.shape))
    sampler.reseed(seed)
    said = _said(sampler, x, y, batch)
    right = []
    for _ in range(draws):
        parts = [sampler.votes(len(part)) for part in x.split(batch)]
        votes = torch.cat(parts).to(said)
        found = torch.einsum("nk,nkc->nc", votes, said)
        right.append(found.argmax(1) == y)
    return torch.stack(right)


def _said(sampler: Sampler, x: Tensor, y: Tensor, batch: int) -> Tensor:
    """Return what a team adds up of each network, float64 [n, networks, classes]."""
    found = []
    for network in sampler.networks:
        parts = [tensors.asked(network, part) for part in x.split(batch)]
        logits = torch.cat(parts).double()
        tensors.labels("y", y, *logits.shape)
        found.append(logits if sampler.over == "logits" else logits.softmax(1))
    widths = sorted({logits.shape[1] for logits in found})
    require(len(widths) == 1, "networks must be of the same classes", widths)
    return torch.stack(found, 1)
