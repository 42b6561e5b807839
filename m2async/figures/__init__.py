"""Runs in figures and in words, as the terminal and the pages show them."""

from m2async.figures.figures import (
    AnswerStretch,
    JobFigures,
    JobTally,
    Phase,
    RunFigures,
    count_results,
    duration_of,
    read_figures,
)
from m2async.figures.looks import Look, Looks, Rhythm, Trouble, glance
from m2async.figures.percentiles import Percentiles, Times

__all__ = [
    "AnswerStretch",
    "JobFigures",
    "JobTally",
    "Look",
    "Looks",
    "Percentiles",
    "Phase",
    "Rhythm",
    "RunFigures",
    "Times",
    "Trouble",
    "count_results",
    "duration_of",
    "glance",
    "read_figures",
]
