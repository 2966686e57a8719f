"""The audit of one's own model: on files of other libraries, and against known answers.

Where the truth is known, from a Gaussian shift or from a model that has seen nothing,
the numbers must be the truth's; a bad file must be refused in one line.
"""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from torch import nn
from torchvision.models import shufflenet_v2_x0_5

from lottolab import cli
from lottolab.images import datasets
from lottolab.membership.audit import attacks, audit, files, findings

N, C = 600, 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(findings, "DRAWS", 100)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def columns(n=N, gap=2.0, seed=0, had=None, bias=0.0):
    """Return a model's answers: labels of whom it had stand out by `gap` more."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(7).integers(0, C, n)
    member = np.arange(n) % 2 == 0
    z = rng.normal(size=(n, C))
    z[np.arange(n), labels] += 1 + bias + gap * (member if had is None else had)
    return {"logits": z, "labels": labels, "member": member if had is None else had}


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def found(tmp_path, references=(), **given):
    target = files.read(saved(tmp_path / "target.npz", **columns(**given)))
    paths = [saved(tmp_path / f"r{k}.npz", **r) for k, r in enumerate(references)]
    return audit(target, [files.read(p, reference=True) for p in paths])


def table(arrays, stem="logit"):
    wide = {f"{stem}_{k}": column for k, column in enumerate(arrays["logits"].T)}
    return pd.DataFrame(wide | {"label": arrays["labels"], "member": arrays["member"]})


# What is found


def test_the_auc_is_that_of_the_shift_and_chance_without_one(tmp_path):
    """The loss ranks as log p / (1 − p), written out here."""
    arrays = columns(4000, 2.0)
    told = audit(files.read(saved(tmp_path / "a.npz", **arrays)))
    z, y = arrays["logits"], arrays["labels"]
    rest = np.array([np.logaddexp.reduce(np.delete(z[i], y[i])) for i in range(len(z))])
    wanted = roc_auc_score(arrays["member"], z[np.arange(len(z)), y] - rest)
    assert told.attacks["loss threshold"]["auc"].estimate == pytest.approx(wanted)
    none = audit(files.read(saved(tmp_path / "b.npz", **columns(4000, 0.0))))
    for name, numbers in none.attacks.items():
        assert numbers["auc"].estimate == pytest.approx(0.5, abs=0.04), name
        assert numbers["accuracy"].estimate == pytest.approx(0.5, abs=0.04), name
    assert none.unsaid[1].startswith("Whether these beat chance")


def test_no_attack_is_judged_by_what_it_learned(tmp_path):
    """With as many classes as examples a classifier could know each by its label."""
    rng = np.random.default_rng(1)
    arrays = {"logits": rng.normal(size=(90, 90)), "labels": np.arange(90)}
    arrays["member"] = np.arange(90) % 2
    told = audit(files.read(saved(tmp_path / "a.npz", **arrays)))
    assert abs(told.attacks["MLP, with label"]["auc"].estimate - 0.5) < 0.2


def test_references_add_lira_and_rmia_and_they_find_more(tmp_path):
    """The examples differ in how hard they are, which the references know."""
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 3, N)
    had = [rng.random(N) < 0.5 for _ in range(10)]
    for mark in had:  # RMIA's population: nobody had these
        mark[-100:] = False
    member = rng.random(N) < 0.5
    member[-100:] = False
    given = [columns(seed=k, had=h, bias=hard, gap=1.0) for k, h in enumerate(had)]
    target = columns(seed=99, had=member, bias=hard, gap=1.0)
    files_ = [saved(tmp_path / f"{k}.npz", **r) for k, r in enumerate([target, *given])]
    told = audit(files.read(files_[0]), [files.read(f) for f in files_[1:]])
    assert set(attacks.WITH_REFERENCES) <= set(told.attacks)
    assert not told.scored.skipped
    aucs = {name: numbers["auc"].estimate for name, numbers in told.attacks.items()}
    for name in ("LiRA, online", "RMIA, online"):
        assert aucs[name] > aucs["loss threshold"] + 0.05
    assert told.strongest["attack"] in attacks.WITH_REFERENCES
    assert told.about["left out"].startswith("100 that no model had are RMIA's")
    judged = told.scored.rows
    marks = np.array(had)[:, judged]
    assert marks.any(0).all()
    assert not marks.all(0).any()


def test_offline_references_are_a_control_that_must_fail(tmp_path):
    seen_none = np.zeros(N, bool)
    given = [columns(seed=k + 9, had=seen_none) for k in range(3)]
    told = found(tmp_path, given)
    assert "LiRA, offline" in told.attacks
    assert re.search("trained with it", told.scored.skipped["LiRA, online"])
    assert told.controls[findings.UNSEEN].estimate == pytest.approx(0.5, abs=0.08)
    easier = np.where(np.arange(N) % 2 == 0, 2.0, 0.0)  # members differ in kind
    given = [columns(seed=k + 9, had=seen_none, bias=easier) for k in range(3)]
    told = found(tmp_path, given)
    assert told.controls[findings.UNSEEN].low > 0.5
    assert any("differ in kind" in line for line in told.unsaid)


def test_labels_alone_are_a_control(tmp_path):
    arrays = columns()
    arrays["member"] = arrays["labels"] < 2
    told = audit(files.read(saved(tmp_path / "a.npz", **arrays)))
    assert told.controls[findings.LABELS].estimate > 0.9
    assert any(findings.LABELS in line for line in told.unsaid)


def test_references_that_give_the_target_away_are_said(tmp_path):
    member = np.arange(N) % 2 == 0
    given = [columns(seed=k, had=h) for k, h in enumerate((~member, member, ~member))]
    assert any("give the target away" in line for line in found(tmp_path, given).unsaid)
    lone = [columns(seed=k, had=h) for k, h in enumerate((~member, member))]
    assert not any("give the target" in line for line in found(tmp_path, lone).unsaid)


def test_the_most_exposed_are_members_and_their_rarity_is_counted(tmp_path):
    told = found(tmp_path)
    name, scored = told.strongest["attack"], told.scored
    scores = scored.scores[name]
    assert len(told.exposed) == findings.MOST
    for line in told.exposed:
        assert line["row"] % 2 == 0
        assert line["label"] == columns()["labels"][line["row"]]
        count = (scores[~scored.member] >= line["score"]).sum()
        assert line["non-members with as large a score"] == count
    ranked = [line["score"] for line in told.exposed]
    assert ranked == sorted(scores[scored.member], reverse=True)[: findings.MOST]


@pytest.mark.parametrize(("hits", "rejected"), [(30, 20), (40, 0), (0, 80)])
def test_balanced_accuracy_has_its_two_rates_and_covers(hits, rejected):
    member = np.arange(120) < 40
    guess = np.concatenate([np.arange(40) < hits, np.arange(80) >= rejected])
    found = findings.balanced(guess, member)
    assert found.estimate == pytest.approx((hits / 40 + rejected / 80) / 2)
    assert 0 <= found.low < found.high <= 1
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        member, right = (
            np.arange(120) < 40,
            rng.random(120) < np.repeat([0.8, 0.6], [40, 80]),
        )
        found = findings.balanced(right == member, member)
        inside += found.low <= 0.7 <= found.high
    assert inside >= stats.binom.ppf(0.001, 200, 0.95)


# Files


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet"])
def test_every_form_of_file_gives_the_same_audit(tmp_path, ending, kind):
    arrays = columns()
    if kind == "probabilities":
        arrays["logits"] = torch.tensor(arrays["logits"]).softmax(1).numpy()
    path, stem = tmp_path / f"a{ending}", {"logits": "logit"}.get(kind, "probability")
    if ending == ".npz":
        saved(
            path,
            **{kind: arrays["logits"]},
            **{k: arrays[k] for k in ("labels", "member")},
        )
    elif ending == ".csv":
        table(arrays, stem).to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        table(arrays, stem).to_parquet(path)
    given = files.read(path)
    assert given.kind == kind
    plain = files.read(saved(tmp_path / "b.npz", **columns()))
    ours, theirs = (p.logits.log_softmax(1) for p in (given, plain))
    assert torch.allclose(ours, theirs)
    assert given.labels.equal(plain.labels)
    assert given.member.equal(plain.member)


BAD = {
    "no logits": (lambda a: a.pop("logits"), "logits or probabilities, one of the two"),
    "both": (
        lambda a: a.update(probabilities=a["logits"]),
        "one of the two, got logits and",
    ),
    "no labels": (lambda a: a.pop("labels"), "must hold the true labels"),
    "no members": (lambda a: a.pop("member"), "must say who is a `member`"),
    "nan": (
        lambda a: a["logits"].__setitem__((3, 1), math.nan),
        "first in row \\[3\\]",
    ),
    "flat": (lambda a: a.update(logits=a["logits"][:, 0]), "examples × classes"),
    "short": (
        lambda a: a.update(labels=a["labels"][1:]),
        "labels must hold 600 values",
    ),
    "label": (
        lambda a: a["labels"].__setitem__(0, C),
        r"whole numbers in \[0, 3\], got \[4",
    ),
    "half": (
        lambda a: a.update(labels=a["labels"] + 0.5),
        "labels must be whole numbers",
    ),
    "marks": (
        lambda a: a.update(member=a["member"] * 2),
        r"member must be .* \[0, 1\]",
    ),
    "words": (lambda a: a.update(labels=np.repeat("a", N)), "labels must be numbers"),
    "softmax": (
        lambda a: a.update(logits=torch.tensor(a["logits"]).softmax(1).numpy()),
        "logits must be logits",
    ),
    "all members": (lambda a: a.update(member=np.ones(N)), "needs 20 members and 20"),
    "few": (lambda a: a.update(member=np.arange(N) < 19), "got 19 and 581"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_line_before_anything_is_written(
    tmp_path, name, capsys
):
    arrays = columns()
    spoil, message = BAD[name]
    spoil(arrays)
    path = saved(tmp_path / "a.npz", **arrays)
    output = tmp_path / "report"
    assert cli.main(["membership", "audit", str(path), "--output", str(output)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", "its ending must be one of .npz, .csv, .parquet"),
        ("a.npz", b"no archive", "a.npz: "),
        ("a.npz", b"", "a.npz: "),
        ("a.csv", b"", "a.csv: No columns"),
        ("a.csv", b"logit_0,logit_2,label,member\n1,2,0,1\n", r"none of \[1\]"),
        ("a.csv", b"logit_0,logit_1,label,member\n1,x,0,1\n", "logits must be numbers"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.read(tmp_path / name)
    with pytest.raises(ValueError, match=r"b.npz must be a file"):
        files.read(tmp_path / "b.npz")


def test_probabilities_must_be_some_and_zeros_have_a_log(tmp_path):
    arrays = columns()
    sure = np.eye(C)[arrays["labels"]]
    marks = {k: arrays[k] for k in ("labels", "member")}
    read = files.read(saved(tmp_path / "a.npz", probabilities=sure, **marks))
    assert read.logits.isfinite().all()
    with pytest.raises(ValueError, match="sum 1 in each row, got 600 rows"):
        files.read(saved(tmp_path / "b.npz", probabilities=sure * 2, **marks))


def test_references_must_be_of_the_same_examples(tmp_path):
    target = files.read(saved(tmp_path / "a.npz", **columns()))
    turned = columns() | {"labels": columns()["labels"][::-1]}
    other = files.read(saved(tmp_path / "b.npz", **turned))
    with pytest.raises(ValueError, match=r"b.npz must have the labels of .*a.npz"):
        audit(target, [other])
    short = files.read(saved(tmp_path / "c.npz", **columns(400)))
    with pytest.raises(
        ValueError, match=r"c.npz must answer the examples of .*\[600, 4\]"
    ):
        audit(target, [short])


# Models that no code of ours made


def digits_parts():
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    return x / 16, y, rng.random(len(y)) < 0.5


def test_scikit_learns_classifiers_on_its_digits(tmp_path):
    """A forest knows its members; naive Bayes hardly, and logistic regression some."""
    x, y, member = digits_parts()
    found = {}
    makers = {
        "forest": RandomForestClassifier(100, random_state=0),
        "bayes": GaussianNB(var_smoothing=0.1),
        "logistic": LogisticRegression(C=100, max_iter=500),
    }
    for name, model in makers.items():
        p = model.fit(x[member], y[member]).predict_proba(x)
        given = {"probabilities": p, "labels": y, "member": member}
        found[name] = audit(files.read(saved(tmp_path / f"{name}.npz", **given)))
    aucs = {n: f.attacks["loss threshold"]["auc"] for n, f in found.items()}
    assert aucs["forest"].low > 0.7
    assert aucs["forest"].estimate > aucs["bayes"].estimate
    assert found["forest"].attacks["loss threshold"]["tpr at 1% fpr"] is None
    assert found["forest"].unsaid[0].startswith("The TPR at 1% FPR: 1,000 non-members")


def test_a_torchvision_network_on_the_embedded_images(tmp_path, capsys):
    source = datasets.load("fashion-mnist")
    torch.manual_seed(0)
    images = source.images[:256].float().repeat(1, 3, 1, 1) / 255
    labels, member = source.labels[:256], torch.arange(256) < 128
    model = shufflenet_v2_x0_5(num_classes=10)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(40):
        rows = torch.arange(32) + 32 * (step % 4)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        z = model(images)
    path = tmp_path / "shufflenet.csv"
    arrays = {"logits": z.numpy(), "labels": labels.numpy(), "member": member.numpy()}
    table(arrays).to_csv(path, index=False)
    output = tmp_path / "report"
    assert cli.main(["membership", "audit", str(path), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["about"]["members"] == 128
    loss = nn.functional.cross_entropy(z.double(), labels, reduction="none")
    wanted = roc_auc_score(member, -loss)
    found = told["attacks"]["loss threshold"]["auc"]["estimate"]
    assert found == pytest.approx(wanted, abs=0.01)
    best = told["strongest"]
    assert f"{best['attack']}: AUC {100 * best['auc']['estimate']:.1f} % [" in said
    assert told["attacks"]["entropy"]["tpr at 1% fpr"] is None
    text = (tmp_path / "report.html").read_text()
    drawn = f"<td>{100 * found:.1f} % ["
    for part in (*told["attacks"], *told["unsaid"], drawn, "data:image/png;base64"):
        assert part in text
    assert "http" not in text  # it needs nothing from elsewhere
    assert cli.main(["membership", "audit", str(path), "--output", str(output)]) == 2
    assert "must not exist" in capsys.readouterr().err
