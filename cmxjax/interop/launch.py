"""A launch command: options of one tool and release, and what they leave unsaid."""

import json
import shlex
from typing import NamedTuple


class Tool(NamedTuple):
    """One release of a tool, with the options that may be printed for it."""

    name: str
    release: str
    """Release that the options were checked against."""
    checked: str
    """What they were checked in."""
    program: str
    """Words of the shell before the options."""
    phases: tuple[str, ...]
    options: frozenset[str]


class Launch(NamedTuple):
    """Options that give a tool the layout of a scenario."""

    tool: Tool
    options: tuple[tuple[str, ...], ...]
    """Each option with its values, in order."""
    notes: tuple[str, ...]
    """What the options don't say, one sentence each."""
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables that the options need."""

    @property
    def arguments(self) -> list[str]:
        """The options as words, not quoted."""
        return [word for option in self.options for word in option]

    @property
    def text(self) -> str:
        """Comment lines, then one shell command with an option a line."""
        title = f"{self.tool.name} {self.tool.release} ({self.tool.checked})"
        comments = [f"# {line}" for line in (title, *self.notes)]
        setting = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        lines = [" ".join([*setting, self.tool.program])]
        lines += [f"  {shlex.join(option)}" for option in self.options]
        return "\n".join([*comments, " \\\n".join(lines)])

    def as_json(self) -> dict[str, object]:
        """The part of `optimize --json` under `emit`."""
        return {
            "tool": self.tool.name,
            "release": self.tool.release,
            "checked": self.tool.checked,
            "environment": dict(self.environment),
            "arguments": self.arguments,
            "notes": list(self.notes),
        }


class Options:
    """Options under construction; those that a tool doesn't have are refused."""

    def __init__(self, tool: Tool):
        self.tool = tool
        self.words: list[tuple[str, ...]] = []

    def add(self, option: str, *values: object) -> None:
        """Add an option.

        Raises:
            KeyError: the tool's table doesn't have it.
        """
        if option not in self.tool.options:
            raise KeyError(f"{option}: not in the table of {self.tool.name}")
        self.words.append((option, *map(_word, values)))

    def launch(self, notes: list[str], **environment: str) -> Launch:
        """The finished command."""
        return Launch(
            self.tool, tuple(self.words), tuple(notes), tuple(environment.items())
        )


def _word(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
