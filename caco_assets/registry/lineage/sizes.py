"""Numbers of bytes as people read them."""


def size_text(count: int) -> str:
    """`17.3 MB`; units are powers of a thousand."""
    value, units = float(count), ("bytes", "kB", "MB", "GB", "TB")
    if value < 1000:
        return f"{count} bytes"
    for unit in units[1:-1]:
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} {units[-1]}"
