"""`lottolab modelguard …`: put a network and its defence behind HTTP."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from lottolab.checks import one_of, require

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
    seed_file: Annotated[
        Path | None, typer.Option(help="holds noise's seed, a secret")
    ] = None,
    fixed: Annotated[
        bool | None, typer.Option(help="of noise: draw once an image, or anew")
    ] = None,
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is a free one")] = 8000,
    operator: Annotated[
        int | None, typer.Option(help="port of /metrics and /health, here alone")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="who may ask; else LOTTOLAB_KEYS")
    ] = None,
    without_keys: Annotated[
        bool, typer.Option(help="let whoever reaches --host ask")
    ] = False,
    apart: Annotated[
        bool, typer.Option(help="a state of its own for each key")
    ] = False,
    state: Annotated[
        Path | None, typer.Option(help="centroids and log; NETWORK.state")
    ] = None,
    log: Annotated[bool, typer.Option(help="keep every image that is asked")] = False,
    most: Annotated[int, typer.Option(help="images in a request")] = 64,
    limit: Annotated[int, typer.Option(help="images that may wait")] = 512,
    patience: Annotated[
        float, typer.Option(help="seconds that a head or a body may take")
    ] = 10.0,
) -> None:
    """Answer predictions over HTTP, on this machine alone unless --host says more.

    The centroids of a quantiser are on the disk before they are answered, and read
    again at the next start.
    """
    from lottolab.modelguard.defences import scan
    from lottolab.modelguard.experiments import services
    from lottolab.modelguard.queries import Service
    from lottolab.modelguard.service import endpoints, meters, server
    from lottolab.modelguard.service import keys as allowed
    from lottolab.modelguard.service.state import State
    from lottolab.modelguard.service.tenants import Tenants
    from lottolab.nets import checkpoint
    from lottolab.runs import store

    found = checkpoint.load(network)
    classes = found.network["classes"]
    options = {"epsilon": epsilon, "beta": beta, "gamma": gamma}
    options |= {"decimals": decimals, "fixed": fixed}
    options = {k: v for k, v in options.items() if v is not None}
    secret = {} if seed_file is None else {"seed": _secret(seed_file)}
    guard = scan.quick(services.served(defence, options | secret, classes))
    known = allowed.read(keys)
    require(not (apart and known is None), "--apart needs --keys", "none")
    bound = server.listen(host, port)
    closed = known is not None or without_keys or server.private(bound)
    what = f"--host {host} needs --keys, or --without-keys for whoever comes"
    require(closed, what, "neither")
    kept, tenants = None, Tenants(guard, apart)
    if log or tenants.count is not None or (known and known.quotas):
        about = {"defence": defence, **options, "network": store.sha256(network)}
        about |= {"apart": True} if apart else {}
        kept = State(state or f"{network}.state", about, log=log)
        tenants.restore(kept)
    asked = Service(found.model, found.mean_std, guard)
    limits = {"most": most, "limit": limit, "patience": patience}
    own = {"state": kept, "keys": known, "tenants": tenants}
    api = endpoints.app(asked, found.shape, classes, **own, **limits)
    beside = None
    if operator is not None:
        beside = meters.app(api), server.listen("127.0.0.1", operator)
    held = "" if tenants.count is None else f", {tenants.count:,} centroids"
    named = " ".join([defence, *(f"{k}={v}" for k, v in options.items())])
    typer.echo(f"{server.address(bound)}: {network.name} behind {named}{held}")
    if beside:
        typer.echo(f"{server.address(beside[1])}: /metrics and /health")
    server.run(api, bound, patience=patience, operator=beside)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="of whom it is for")],
    keys: Annotated[Path, typer.Option(help="the file to which its hash is added")],
    quota: Annotated[int | None, typer.Option(help="images it may ask for")] = None,
) -> None:
    """Make an API key and print it, once: the file keeps its hash alone."""
    from lottolab.modelguard.service.keys import add

    typer.echo(add(keys, name, quota))


@app.command()
def backup(
    state: Annotated[Path, typer.Argument(help="of a service, which may run")],
    copy: Annotated[Path, typer.Argument(help="the file to write")],
) -> None:
    """Copy a service's state whole, what is only in its -wal file included."""
    from lottolab.modelguard.service.backup import backup

    backup(state, copy)
    typer.echo(f"{copy}: a whole copy of {state}")


def _secret(path: Path) -> int:
    """Read a whole number from a file that its owner alone can read."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    mode = path.stat().st_mode & 0o777
    open_to_others = os.name != "nt" and mode & 0o077
    require(
        not open_to_others, f"{path} must be its owner's alone (chmod 600)", oct(mode)
    )
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    require(text.isdecimal(), f"{path} must hold a whole number >= 0", "something else")
    return int(text)


def _settings() -> dict[int, dict]:
    """Return what the edition's targets were trained by, for each seed."""
    from lottolab.truth import results

    stages = results.read_stages("modelguard", "laptop")
    found = {}
    for text in stages.loc[stages["function"] == TIMED, "arguments"]:
        own = json.loads(text)
        kept = {k: own[k] for k in own if k not in ("defence", "public", "budget")}
        found[own["seed"]] = kept
    return found
