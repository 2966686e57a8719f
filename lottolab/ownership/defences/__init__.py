"""What an owner answers: `merging` and `taming` of what a thief added, `reading` after
both, `provenance` of the pictures, and `boundary` pictures that need no training."""
