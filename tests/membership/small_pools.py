"""A pool of six networks that train in a second each, and two ways to treat them."""

SETTING = {
    "dataset": "digits",
    "sizes": {"pool": 400, "models": 6, "test": 120},
    "network": {"name": "cnn4", "width": 4},
    "recipe": {"epochs": 3, "batch": 20, "lr": 0.05, "crop": 0, "flip": False},
    "rewind_at": 0,
}
DENSE = {"name": "dense"}
TICKET = {"name": "ticket", "rates": [0.5]}
