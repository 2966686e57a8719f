"""Membership attacks that chapter 2 does not have: `samia`, by self-attention."""
