"""One self-contained HTML page about a run."""

from ecgfast.report.contents import Contents as Contents
from ecgfast.report.contents import DataCard as DataCard
from ecgfast.report.contents import Evaluation as Evaluation
from ecgfast.report.contents import Example as Example
from ecgfast.report.contents import Training as Training
from ecgfast.report.page import render as render
