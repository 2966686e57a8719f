"""`lottolab modelguard …`: put a network and its defence behind HTTP."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lottolab.checks import one_of

app = typer.Typer(
    help="Serve a network behind a defence against extraction.", no_args_is_help=True
)
TIMED = "modelguard.experiments.studies.timed"


@app.command()
def target(
    output: Annotated[Path, typer.Argument(help="the safetensors file to write")],
    seed: Annotated[int, typer.Option(help="one of the edition's seeds")] = 0,
) -> None:
    """Write the network that is stolen in chapter 4, trained where it is missing."""
    from lottolab.images import datasets
    from lottolab.modelguard.experiments import services
    from lottolab.nets import checkpoint

    if output.exists():
        raise ValueError(f"{output} exists; name another file or remove it")
    setting = _settings()
    one_of("seed", seed, setting)
    trained, parts = services.trained(**setting[seed])
    size = parts["train"][0].shape[-1]
    network = {"channels": parts["train"][0].shape[1], "classes": parts["classes"]}
    network |= setting[seed]["network"] | {"size": size}
    scale = trained.mean_std
    checkpoint.save(trained.model, output, network=network, mean_std=scale)
    named = datasets.get(setting[seed]["dataset"]).name
    typer.echo(f"{output}: {network['name']}, {parts['classes']} classes of {named}")


@app.command()
def serve(
    network: Annotated[
        Path, typer.Argument(help="what lottolab.nets.checkpoint wrote")
    ],
    defence: Annotated[str, typer.Option(help="its name")] = "modelguard-s",
    epsilon: Annotated[float | None, typer.Option(help="ℓ1 that it may add")] = None,
    beta: Annotated[float | None, typer.Option(help="of revsig")] = None,
    gamma: Annotated[float | None, typer.Option(help="of revsig")] = None,
    decimals: Annotated[int | None, typer.Option(help="of rounding")] = None,
    seed: Annotated[int | None, typer.Option(help="of noise; a secret")] = None,
    fixed: Annotated[
        bool | None, typer.Option(help="of noise: draw once an image, or anew")
    ] = None,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is a free one")] = 8000,
    state: Annotated[
        Path | None, typer.Option(help="centroids and log; NETWORK.state")
    ] = None,
    log: Annotated[bool, typer.Option(help="keep every image that is asked")] = False,
    most: Annotated[int, typer.Option(help="images in a request")] = 64,
    limit: Annotated[int, typer.Option(help="images that may wait")] = 512,
    patience: Annotated[
        float, typer.Option(help="seconds that a request may take to come")
    ] = 10.0,
) -> None:
    """Answer predictions over HTTP, on this machine alone unless --host says more.

    The centroids of a quantiser are on the disk before they are answered, and read
    again at the next start.
    """
    from lottolab.modelguard import ModelGuardS
    from lottolab.modelguard.experiments import services
    from lottolab.modelguard.queries import Service
    from lottolab.modelguard.service import endpoints
    from lottolab.modelguard.service.state import State
    from lottolab.nets import checkpoint
    from lottolab.runs import store

    found = checkpoint.load(network)
    classes = found.network["classes"]
    options = {"epsilon": epsilon, "beta": beta, "gamma": gamma}
    options |= {"decimals": decimals, "seed": seed, "fixed": fixed}
    options = {k: v for k, v in options.items() if v is not None}
    guard = services.served(defence, options, classes)
    bound = endpoints.listen(host, port)
    kept = None
    if log or isinstance(guard, ModelGuardS):
        about = {"defence": defence, **options, "network": store.sha256(network)}
        kept = State(state or f"{network}.state", about, log=log)
    if isinstance(guard, ModelGuardS):
        kept.restore(guard)
    asked = Service(found.model, found.mean_std, guard)
    limits = {"most": most, "limit": limit, "patience": patience}
    api = endpoints.app(asked, found.shape, classes, state=kept, **limits)
    held = f", {guard.count:,} centroids" if isinstance(guard, ModelGuardS) else ""
    named = " ".join([defence, *(f"{k}={v}" for k, v in options.items())])
    typer.echo(f"{endpoints.address(bound)}: {network.name} behind {named}{held}")
    endpoints.run(api, bound)


def _settings() -> dict[int, dict]:
    """Return what the edition's targets were trained by, for each seed."""
    from lottolab.runs import results

    stages = results.read_stages("modelguard", "laptop")
    found = {}
    for text in stages.loc[stages["function"] == TIMED, "arguments"]:
        own = json.loads(text)
        kept = {k: own[k] for k in own if k not in ("defence", "public", "budget")}
        found[own["seed"]] = kept
    return found
