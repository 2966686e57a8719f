"""Chapter 2: who was in the training set (Bagmar et al., 2021), and who asks better.

All scores are larger for "more likely a member".

`signals` gives an image one number from its logits and label, `thresholds` says where
to cut; `supervised` and `nasr` learn from labelled members, of the target or of shadow
models; `lira` and `rmia` compare with reference models; `metrics` says what an attack
achieves. `experiments` holds what the chapter measures, `figures` draws it. Chapter 5
uses the same attacks.
"""

from typing import TYPE_CHECKING

from lottolab import lazily

if TYPE_CHECKING:
    from lottolab.membership.metrics import report

__all__ = ["report"]

__getattr__ = lazily(__name__)
