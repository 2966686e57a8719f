"""`lottolab ownership …`: sign and check networks of your own, as safetensors files."""

from __future__ import annotations  # a state dict is only named here

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lottolab.checks import require

if TYPE_CHECKING:
    from lottolab.ownership.signatures.key import SignatureKey

app = typer.Typer(
    help="Sign a sparse network and verify whose it is.", no_args_is_help=True
)
Network = Annotated[Path, typer.Argument(help="a safetensors file")]
Groups = Annotated[
    Path | None,
    typer.Option(help="YAML: axes that are reordered together, see the page"),
]
KeyFile = Annotated[Path, typer.Option("--key", help="the owner's key, JSON")]


@app.command()
def embed(
    network: Network,
    text: Annotated[str, typer.Option(help="what to write")],
    output: Annotated[Path, typer.Option(help="the signed network")],
    key: KeyFile,
    layer: Annotated[str | None, typer.Option(help="where to write it")] = None,
    ecc: Annotated[str, typer.Option(help="error correction: L, M, Q or H")] = "H",
    groups: Groups = None,
) -> None:
    """Write a text into the zeros of a sparse network; train it again afterwards.

    A weight that is moved to an empty place gets the size of an average weight of its
    layer, with a random sign. The key holds a new secret: keep it to yourself. It shows
    that this file of the network, and that of the groups, were there before: they alone
    can be `verify`'s reference and groups, byte by byte, so keep them too.
    Where no convolution has room, a linear layer is signed; a layer that keeps two
    weights of every four (2:4) is not. What torch's pruning
    keeps apart is written as one weight, as `prune.remove` leaves it.
    """
    from lottolab.nets import checkpoint
    from lottolab.ownership.defences import suspect
    from lottolab.ownership.signatures import networks
    from lottolab.ownership.signatures.key import draw_secret

    _new(output)
    _new(key)
    require(key != output, "key and output must be two files", key)
    state, texts = networks.read(network), checkpoint.header(network)
    secret = draw_secret(_sha256(network), _sha256(groups))
    with suspect.shown("signing"):
        signed, owner = networks.embed(state, text, ecc=ecc, layer=layer, secret=secret)
    checkpoint.write(signed, output, texts)
    owner.save(key)
    typer.echo(f"{output}: signed in {owner.layer}; train it again before release")


@app.command()
def calibrate(network: Network, key: KeyFile) -> None:
    """Set the key's threshold by the trained, signed network; rewrites the key."""
    from lottolab.ownership import SignatureKey
    from lottolab.ownership.signatures import networks

    owner = SignatureKey.load(key)
    owner = networks.calibrate(networks.unwrapped(networks.read(network)), owner)
    owner.save(key)
    typer.echo(f"{key}: threshold {owner.threshold:.3g} of a channel's largest weight")


@app.command()
def commit(
    key: KeyFile,
    text: Annotated[str, typer.Option(help="what was written")],
    nonce: Annotated[
        str | None, typer.Option(help="to check a hash; else a new one")
    ] = None,
) -> None:
    """Print a hash to publish with a date, before the network is released.

    It binds you to key and text and tells nothing of them. Whoever is to check it needs
    the key, the text and the nonce.
    """
    from lottolab.ownership import SignatureKey
    from lottolab.ownership import commit as bind

    owner, nonce = SignatureKey.load(key), nonce or secrets.token_hex(16)
    written = owner.spelling(text)
    if written is None:
        raise ValueError(f"{key} was not made for the text {text!a}")
    typer.echo(f"publish {bind(owner, written, nonce=nonce)}")
    typer.echo(f"keep nonce {nonce}")


@app.command()
def verify(
    network: Network,
    key: KeyFile,
    claim: Annotated[str | None, typer.Option(help="the text; else blind")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="your ticket before it was signed: that file")
    ] = None,
    groups: Groups = None,
    published: Annotated[
        str | None, typer.Option(help="the hash, older than the network; with --nonce")
    ] = None,
    nonce: Annotated[
        str | None, typer.Option(help="what `commit` said to keep")
    ] = None,
) -> None:
    """Decide whether a network carries the owner's signature.

    Exit code 0 if it does, 1 if it does not, 2 if that cannot be asked.
    What is not accepted as it is is read again without the dust and the giants that a
    thief may have put there and, with a reference, with hidden channels that were split
    or added merged and all brought into its order; the p-value pays for all of that. It
    is valid only if suspect and reference do not depend on the key's secret. It pays
    for all else that could have been chosen to fit, unless key and claim are those of a
    hash that `commit` printed; whether that is older than the suspect is yours to see.
    A reference, and its groups, could be made to fit as well, which no p-value can pay
    for: with them such a hash is needed, and a secret that was drawn after them, which
    is what `embed` does.
    """
    from lottolab.ownership import SignatureKey
    from lottolab.ownership.defences import suspect
    from lottolab.ownership.signatures import networks

    if groups and not reference:
        raise ValueError("--groups says how to follow a --reference; give one")
    try:
        owner = SignatureKey.load(key)
        dated = _dated(owner, claim, published, nonce, (reference, groups))
        state = networks.unwrapped(networks.read(network))
        where = (reference, groups) if reference else None
        layer, found = suspect.judged(state, owner, claim, dated, where)
    except RuntimeError as error:  # of torch; its exit code 1 is a verdict here
        raise ValueError(str(error)) from error
    place = "" if layer == owner.layer else f"in {layer}: "
    typer.echo(
        f"{place}text {found.text!r}, {found.agreement:.1%} of the modules agree, "
        f"p = {found.p_value:.2g}: {'accepted' if found.accepted else 'not accepted'}"
    )
    raise typer.Exit(0 if found.accepted else 1)


@app.command()
def align(
    network: Network,
    reference: Annotated[Path, typer.Option(help="whose order the channels get")],
    output: Annotated[Path, typer.Option(help="the realigned weights")],
    groups: Groups = None,
) -> None:
    """Bring a network's channels into the order and scale of another's.

    The output is for comparing weights and reading signatures; it holds no batch norm
    and cannot be run.
    """
    from lottolab.nets import models
    from lottolab.ownership.defences import suspect
    from lottolab.ownership.signatures import networks

    _new(output)
    given = networks.unwrapped(networks.read(network))
    models.save(suspect.aligned(given, reference, groups), output)
    typer.echo(f"{output}: in the order of {reference}")


def _dated(
    owner: SignatureKey,
    claim: str | None,
    published: str | None,
    nonce: str | None,
    files: tuple[Path | None, Path | None],
) -> bool:
    """Are key and claim bound by a hash? Refuse a hash that is not theirs.

    files: the reference and the groups, which the key's secret must have been drawn
    after. They are refused without a hash.
    """
    from lottolab.ownership import commit as bind
    from lottolab.ownership.signatures.key import drawn_after

    given = files[0] is not None
    if given:
        known = drawn_after(owner.secret, _sha256(files[0]), _sha256(files[1]))
        only = "a --reference, and its --groups, must be the very files that `embed` "
        require(known, f"{only}had, after which the key's secret was drawn", files[0])
    if published is None and nonce is None:
        worth = "--reference proves nothing without a hash that is older than the "
        worth += "network: --published, --nonce and --claim must be given (`commit`)"
        require(not given, worth, "none")
        return False
    whole = None not in (claim, published, nonce)
    require(whole, "--published, --nonce and --claim must be given together", "less")
    written = owner.spelling(claim)
    right = written is not None and bind(owner, written, nonce=nonce) == published
    require(right, "--published must be the hash of key, claim and nonce", published)
    return True


def _sha256(path: Path | None) -> str | None:
    """Return the hash of a file, in hexadecimal digits; None without one."""
    from lottolab.runs import store

    try:
        return None if path is None else store.sha256(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _new(path: Path) -> None:
    """Refuse to write where something is, or where nothing can be."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder; make it first")
    if path.exists():
        raise ValueError(f"{path} exists; name another file or remove it")
