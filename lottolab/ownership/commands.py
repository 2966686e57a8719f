"""`lottolab ownership …`: sign and check networks of your own, as safetensors files."""

from pathlib import Path
from typing import Annotated

import typer

from lottolab import models
from lottolab.ownership import signature
from lottolab.ownership.key import SignatureKey

app = typer.Typer(
    help="Sign a sparse network and verify whose it is.", no_args_is_help=True
)
Network = Annotated[Path, typer.Argument(help="a safetensors file")]
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
    """
    for path in (output, key):
        if path.exists():
            raise ValueError(f"{path} exists; name another file or remove it")
    state = models.load_state(network)
    signed, owner = signature.embed_weights(state, text, ecc=ecc, layer=layer)
    models.save(signed, output)
    owner.save(key)
    typer.echo(f"{output}: signed in {owner.layer}; train it again before release")


@app.command()
def calibrate(network: Network, key: KeyFile) -> None:
    """Set the key's threshold by the trained, signed network; rewrites the key."""
    owner = SignatureKey.load(key)
    owner = signature.calibrate(models.load_state(network), owner)
    owner.save(key)
    typer.echo(f"{key}: threshold {owner.threshold:.3g} of a channel's largest weight")


@app.command()
def verify(
    network: Network,
    key: KeyFile,
    claim: Annotated[str | None, typer.Option(help="the text; else blind")] = None,
) -> None:
    """Decide whether a network carries the owner's signature; exit 0 if it does."""
    owner = SignatureKey.load(key)
    found = signature.verify(models.load_state(network), owner, claim=claim)
    typer.echo(
        f"text {found.text!r}, {found.agreement:.1%} of the modules agree, "
        f"p = {found.p_value:.2g}: {'accepted' if found.accepted else 'not accepted'}"
    )
    raise typer.Exit(0 if found.accepted else 1)
