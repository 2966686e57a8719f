"""`lottolab ownership …`: sign and check networks of your own, as safetensors files."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from lottolab import checkpoint, models
from lottolab.ownership import alignment, channels, matching, signature
from lottolab.ownership.key import SignatureKey
from lottolab.ownership.key import commit as bind

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
) -> None:
    """Write a text into the zeros of a sparse network; train it again afterwards.

    A weight that is moved to an empty place gets the size of an average weight of its
    layer, with a random sign. The key holds a new secret: keep it to yourself.
    A network without convolutions is signed in a linear layer.
    """
    for path in (output, key):
        if path.exists():
            raise ValueError(f"{path} exists; name another file or remove it")
    state, texts = models.load_state(network), checkpoint.header(network)
    kernels = _kernels(state, layer)
    signed, owner = signature.embed_weights(kernels, text, ecc=ecc, layer=layer)
    signed = {name: weight.view_as(state[name]) for name, weight in signed.items()}
    checkpoint.write(signed, output, texts)
    owner.save(key)
    typer.echo(f"{output}: signed in {owner.layer}; train it again before release")


@app.command()
def calibrate(network: Network, key: KeyFile) -> None:
    """Set the key's threshold by the trained, signed network; rewrites the key."""
    owner = SignatureKey.load(key)
    state = _kernels(models.load_state(network), owner.layer)
    owner = signature.calibrate(state, owner)
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
    owner, nonce = SignatureKey.load(key), nonce or secrets.token_hex(16)
    if hashlib.sha256(text.encode()).hexdigest() != owner.digest:
        raise ValueError(f"{key} was not made for the text {text!r}")
    typer.echo(f"publish {bind(owner, text, nonce=nonce)}")
    typer.echo(f"keep nonce {nonce}")


@app.command()
def verify(
    network: Network,
    key: KeyFile,
    claim: Annotated[str | None, typer.Option(help="the text; else blind")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="your ticket before it was signed")
    ] = None,
    groups: Groups = None,
) -> None:
    """Decide whether a network carries the owner's signature; exit 0 if it does.

    With a reference the channels are brought into its order first. The p-value is
    valid only if it was fixed before the key's secret was drawn.
    """
    if groups and not reference:
        raise ValueError("--groups says how to follow a --reference; give one")
    owner, state = SignatureKey.load(key), models.load_state(network)
    if reference:
        state = _aligned(state, models.load_state(reference), groups)
    found = signature.verify(_kernels(state, owner.layer), owner, claim=claim)
    typer.echo(
        f"text {found.text!r}, {found.agreement:.1%} of the modules agree, "
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
    if output.exists():
        raise ValueError(f"{output} exists; name another file or remove it")
    suspect, ours = models.load_state(network), models.load_state(reference)
    models.save(_aligned(suspect, ours, groups), output)
    typer.echo(f"{output}: in the order of {reference}")


def _aligned(
    state: dict[str, Tensor], reference: dict[str, Tensor], file: Path | None
) -> dict[str, Tensor]:
    """Align by the groups in a file, as a ResNet of lottolab, or as a chain."""
    if file:
        return matching.align(state, reference, matching.read(file))
    try:
        channels.groups(reference)
    except ValueError:
        return matching.align(state, reference, matching.chain(reference))
    return alignment.align(state, reference)


def _kernels(state: dict[str, Tensor], layer: str | None) -> dict[str, Tensor]:
    """Give linear weights a kernel of 1×1 where no convolution is to be signed."""
    chosen = [layer] if layer in state else list(state)
    if any(state[name].ndim == 4 for name in chosen):
        return state
    linear = {name: state[name] for name in chosen if state[name].ndim == 2}
    return state | {name: w[:, :, None, None] for name, w in linear.items()}
