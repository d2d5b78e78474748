"""Signatures and docstrings as Markdown."""

from __future__ import annotations


def folded(line: str, width: int = 100) -> str:
    """Put each argument of a long signature on a line of its own."""
    if len(line) <= width:
        return line
    head, _, rest = line.partition("(")
    arguments, _, returns = rest.rpartition(")")
    lines = "".join(f"    {argument},\n" for argument in arguments.split(", "))
    return f"{head}(\n{lines}){returns}"


def as_markdown(docstring: str) -> str:
    """Turn our docstrings' fields into a list, and their literals into Markdown's."""
    lines: list[str] = []
    in_fields = listed = False
    for line in docstring.replace("``", "`").splitlines():
        if line.startswith(":"):
            if not in_fields and lines and lines[-1]:
                lines.append("")
            in_fields, listed = True, False
            name, _, meaning = line[1:].partition(":")
            kind, _, argument = name.partition(" ")
            label = {"param": f"`{argument}`", "raises": f"raises `{argument}`"}.get(kind, kind)
            lines.append(f"- {label}: {meaning.strip()}")
        elif in_fields and line.startswith("    "):
            # A name on a line of its own is explained by the lines below it.
            word = line.strip()
            listed = listed or (word.startswith("`") and word.endswith("`") and " " not in word)
            named = listed and not line.startswith(" " * 12)
            lines.append(f"  - {word}:" if named else f"{'    ' if listed else '  '}{word}")
        else:
            in_fields, listed = in_fields and not line, False
            lines.append(line)
    return "\n".join(lines)
