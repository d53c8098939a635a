"""README says what is: its picture and table come from the graph, its commands exist."""

import re
from pathlib import Path

import pytest
import typer.main

from jobs.cli import app, register
from jobs.pipeline import outline, picture

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_picture_and_table_are_those_of_the_graph():
    assert picture() in README and outline() in README, "make them again with jobs.pipeline.picture and outline"


@pytest.fixture(scope="module")
def commands():
    register()
    return typer.main.get_command(app).commands


def test_every_command_in_the_readme_exists_with_its_options(commands):
    lines = re.findall(r"^(?:\$ )?wherewhen (.*)$", README, flags=re.M)
    assert len(lines) > 5
    for line in lines:
        words = re.sub(r'"[^"]*"', "TEXT", line).split()
        while words[0].startswith("--"):
            words = words[2:]
        command = commands[words[0]]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words[1:] if word.startswith("--")} <= known, line


def test_every_command_shows_an_example(commands):
    for name, command in commands.items():
        assert "wherewhen" in (command.help or "") and "Example" in command.help, f"{name} --help shows no example"
