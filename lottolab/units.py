"""Write seconds and bytes as a person would; needs only the standard library."""


def duration(seconds: float) -> str:
    """Write seconds as a person would: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def gb(size: float) -> str:
    """Write a number of bytes as `2.5 GB`."""
    return f"{size / 2**30:,.1f} GB"
