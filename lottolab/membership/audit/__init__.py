"""Audit a model of one's own: what its predictions tell about its training set.

`files` reads what models answered, `attacks` scores the examples by every attack that
these answers allow, `findings` judges the scores, `page` writes it down.
"""

from lottolab.membership.audit.files import Answers, read
from lottolab.membership.audit.findings import Findings, audit

__all__ = ["Answers", "Findings", "audit", "read"]
